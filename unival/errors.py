"""Exceptions for invalid input from a user; the command line prints their message in one line, without a traceback."""

from __future__ import annotations

MISSING_PLUGIN = "a plugin that registers it may be missing: give --user-dir (in Python, import it first)"
SHOWN_WIDTH = 110  # characters of an instruction that are shown below an error message


class UserError(ValueError):
    """Invalid input from a user; the message names the value, where it was given, and the alternatives."""

    def __init__(self, message: object = "") -> None:
        super().__init__(printable(str(message)))


class BadAnswerError(UserError):
    """An answer to learn that is none of the candidate answers."""


class InstructionError(UserError):
    """An invalid instruction. The message is the problem in one line, then the instruction with a caret below the character.

    Args:
        problem: what is wrong, in one line.
        text: the instruction.
        position: index of the character in ``text``.
    """

    def __init__(self, problem: str, text: str, position: int) -> None:
        super().__init__(f"{problem}\n{_pointed(text, position)}")
        self.problem, self.text, self.position = problem, text, position

    @property
    def one_line(self) -> str:
        """The message in one line: the problem, then the instruction in quotes."""
        return f"{self.problem}; in the instruction {self.text!r}"

    def of(self, where: object) -> InstructionError:
        """The same error, with a place (a table, for example) before the problem."""
        return type(self)(f"{where}: {self.problem}", self.text, self.position)

    def __reduce__(self) -> tuple[type[InstructionError], tuple[str, str, int]]:
        return type(self), (self.problem, self.text, self.position)


def flag(name: str) -> str:
    """An option's name on the command line, as messages have it: ``batch_size`` -> ``--batch-size``."""
    return "--" + name.replace("_", "-")


def printable(text: str) -> str:
    """Escape lone surrogates (from undecodable file names, or ``\\ud800`` in JSON), so that every stream can write the text."""
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


def _pointed(text: str, position: int) -> str:
    """The line of ``text`` that has the character, cut to ``SHOWN_WIDTH``, and a caret below the character."""
    begin = text.rfind("\n", 0, position) + 1
    line = text[begin:].split("\n", 1)[0].replace("\t", " ").replace("\r", " ")
    column = position - begin
    if len(line) > SHOWN_WIDTH:
        left = max(0, min(column - SHOWN_WIDTH // 2, len(line) - SHOWN_WIDTH))
        before, after = "..." if left else "", "..." if left + SHOWN_WIDTH < len(line) else ""
        line, column = before + line[left : left + SHOWN_WIDTH] + after, column - left + len(before)
    return f"  {line}\n  {' ' * column}^"
