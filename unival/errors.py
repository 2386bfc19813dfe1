"""The exception that means "what you gave us cannot be used", and its kind for instructions: the command line prints one line."""

from __future__ import annotations

SHOWN_WIDTH = 110  # characters of an instruction that fit under an error message


class UserError(ValueError):
    """Raised for bad input from a user; its message names the value, the place and the alternatives."""

    def __init__(self, message: object = "") -> None:
        super().__init__(printable(str(message)))


class InstructionError(UserError):
    """An instruction cannot be used. The message is one line, then the text and a caret below the character."""

    def __init__(self, problem: str, text: str, position: int) -> None:
        super().__init__(f"{problem}\n{_pointed(text, position)}")
        self.problem, self.text, self.position = problem, text, position

    @property
    def one_line(self) -> str:
        """The message without the caret: the problem, then the instruction in quotes."""
        return f"{self.problem}; in the instruction {self.text!r}"

    def of(self, where: object) -> InstructionError:
        """The same error, which names the place first: a table, say."""
        return type(self)(f"{where}: {self.problem}", self.text, self.position)

    def __reduce__(self) -> tuple[type[InstructionError], tuple[str, str, int]]:
        return type(self), (self.problem, self.text, self.position)


def printable(text: str) -> str:
    """Text that every stream takes: lone surrogates (of undecodable file names, or ``\\ud800`` in JSON) become escapes."""
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


def _pointed(text: str, position: int) -> str:
    """The line of ``text`` with that character, cut to a width, and a caret below the character."""
    begin = text.rfind("\n", 0, position) + 1
    line = text[begin:].split("\n", 1)[0].replace("\t", " ").replace("\r", " ")
    column = position - begin
    if len(line) > SHOWN_WIDTH:
        left = max(0, min(column - SHOWN_WIDTH // 2, len(line) - SHOWN_WIDTH))
        before, after = "..." if left else "", "..." if left + SHOWN_WIDTH < len(line) else ""
        line, column = before + line[left : left + SHOWN_WIDTH] + after, column - left + len(before)
    return f"  {line}\n  {' ' * column}^"
