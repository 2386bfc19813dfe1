"""Exceptions for invalid input from a user; the command line prints their message in one line, without a traceback."""

from __future__ import annotations

import difflib
from collections.abc import Collection
from typing import Any

MISSING_PLUGIN = "a plugin that registers it may be missing: give --user-dir (in Python, import it first)"
SHOWN_WIDTH = 110  # characters of an instruction that are shown below an error message
JSON_KINDS = {str: "a string", int: "a number", float: "a number", list: "a list", dict: "an object"}


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


def counted(number: int, noun: str, plural: str | None = None) -> str:
    """A number of things, as messages have it: ``1 row``, ``1,204 rows``, ``2 processes``."""
    return f"{number:,} {noun if number == 1 else plural or noun + 's'}"


def kind_of(value: Any) -> str:
    """What a value is, in JSON's words where it has one: ``null``, ``true``, ``a number``, ``a string``, ``a list``, ``an object``."""
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    return JSON_KINDS.get(type(value), f"a value of type {type(value).__name__}")


def unknown(what: str, name: str, known: Collection[str], has: str = "") -> str:
    """The message about a name that there is not, with the one that may be meant.

    Args:
        what: what it is the name of, such as ``--peft``.
        name: the name.
        known: the names that there are.
        has: what has the known names, as in "this model has" (default: "there are").
    """
    close = difflib.get_close_matches(name.lower(), known, n=1)
    if not close:
        return f"unknown {what} {name!r}; {has or 'choose from'} {', '.join(known)}"
    has = has or "there are"
    return f"unknown {what} {name!r}, did you mean {close[0]!r}? {has[0].upper()}{has[1:]} {', '.join(known)}"


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
