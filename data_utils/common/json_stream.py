"""Reading of JSON files of gigabytes: the elements of a list, or the values of an object, one after the other.

A file is read in pieces; in memory is one element and a piece of text, whatever the length of the file. The functions take a list that is
the whole file, or the value of a key of the object that is the whole file; what stands before it is passed over in pieces, too.
"""

import codecs
import json
import pathlib
import re
from collections.abc import Iterator
from typing import Any, BinaryIO

from unival.errors import UserError
from unival.text import HEAD, refuse_wide

from .files import Entry, shown

PIECE = 1 << 20  # bytes that are read at once
MOST_TEXT = 1 << 26  # characters of a text; a longer one has lost its quotation mark
ESCAPE = 32  # characters at the end of a piece within which a literal or an escape may be cut off
_SPACE = re.compile(r"[ \t\n\r]*")
_SCALAR = re.compile(r"[^\s,\]}]*")
_decoder = json.JSONDecoder()


def stream_list(path: pathlib.Path, key: str | None = None) -> Iterator[Entry]:
    """The objects of a list of objects.

    Args:
        path: the file.
        key: the key of the list in the object that is the file; None: the file is the list.

    Raises:
        UserError: the file is not such JSON; names file, line and character, or file and entry.
    """
    where = f"{path}, entry" if key is None else f"{path}, {key}"
    return (Entry(value, f"{where} {i}") for i, value in enumerate(stream_values(path, key)))


def stream_values(path: pathlib.Path, key: str | None = None) -> Iterator[Any]:
    """As :func:`stream_list`, for a list of any values."""
    with _Text.open(path) as text:
        if key is not None:
            _go_to(text, key)
        where = str(path) if key is None else f"{path}, key {key!r}"
        if text.peek() != "[":
            raise UserError(f"{where}: expected a list, got {shown(text.value())}")
        yield from _elements(text)
        if key is None:
            text.end()


def stream_object(path: pathlib.Path) -> Iterator[tuple[str, Any]]:
    """The keys and values of the object that a file is.

    Raises:
        UserError: the file is not such JSON; names file, line and character.
    """
    with _Text.open(path) as text:
        yield from _members(text)
        text.end()


def _go_to(text: "_Text", key: str) -> None:
    """Read on to the value of a key."""
    names = []
    for name in _names(text):
        if name == key:
            return
        names.append(name)
        _pass(text)
    raise UserError(f"{text.path}: there is no key {key!r}; there are {', '.join(map(repr, names)) or 'none'}")


def _pass(text: "_Text") -> None:
    """Pass over a value, of a list or an object one element at a time."""
    first = text.peek()
    for _ in _elements(text) if first == "[" else _members(text) if first == "{" else [text.value()]:
        pass


def _elements(text: "_Text") -> Iterator[Any]:
    text.take("[")
    if text.peek() == "]":
        text.take("]")
        return
    while True:
        yield text.value()
        if text.take(",]") == "]":
            return


def _members(text: "_Text") -> Iterator[tuple[str, Any]]:
    for name in _names(text):
        yield name, text.value()


def _names(text: "_Text") -> Iterator[str]:
    """The keys of an object; whoever asks for the next one has read the value of the last."""
    if text.peek() != "{":
        raise UserError(f"{text.path}: expected an object, got {shown(text.value())}")
    text.take("{")
    if text.peek() == "}":
        text.take("}")
        return
    while True:
        if text.peek() != '"':
            raise text.error("expected a key in double quotes")
        name = text.value()
        text.take(":")
        yield name
        if text.take(",}") == "}":
            return


class _Text:
    """The text of a file from some place on, of which a piece is in memory."""

    def __init__(self, path: pathlib.Path, file: BinaryIO):
        self.path = path
        self._file = file
        self._decoder = codecs.getincrementaldecoder("utf-8-sig")()
        self._text = ""
        self._at = 0  # place in the piece
        self._line, self._column = 1, 1  # place of the piece's first character in the file
        self._bytes = 0
        self._is_complete = False

    @classmethod
    def open(cls, path: pathlib.Path) -> "_Text":
        """The text of a file, from its start."""
        try:
            file = path.open("rb")
            refuse_wide(file.peek(HEAD)[:HEAD], path)
        except OSError as error:
            raise UserError(f"{path}: cannot be read: {error.strerror}") from error
        return cls(path, file)

    def __enter__(self) -> "_Text":
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def error(self, reason: str, at: int | None = None) -> UserError:
        """The error of a place, by default of the next character."""
        before = self._text[: self._at if at is None else at]
        lines = before.count("\n")
        column = len(before) - before.rfind("\n") if lines else self._column + len(before)
        return UserError(f"{self.path}, line {self._line + lines}, character {column}: not valid JSON: {reason}")

    def peek(self) -> str:
        """The next character that is no space; "" at the end."""
        while True:
            found = _SPACE.match(self._text, self._at)
            self._at = self._at if found is None else found.end()
            if self._at < len(self._text):
                return self._text[self._at]
            if not self._more(PIECE):
                return ""

    def take(self, characters: str) -> str:
        """The next character that is no space, which must be one of some."""
        found = self.peek()
        if not found or found not in characters:
            raise self.error(f"expected {' or '.join(repr(character) for character in characters)}")
        self._at += 1
        return found

    def value(self) -> Any:
        """The next value."""
        size = PIECE
        first = self.peek()
        while True:
            try:
                value, end = _decoder.raw_decode(self._text, self._at)
                is_whole = first in '"[{' or _SCALAR.match(self._text, self._at).end() < len(self._text)  # type: ignore[union-attr]
                if is_whole or self._is_complete:
                    self._at = end
                    return value
            except json.JSONDecodeError as error:
                if self._is_complete or self._is_within(error):
                    raise self.error(error.msg, error.pos) from None
            except RecursionError:
                raise UserError(f"{self.path}: nested too deeply") from None
            self._more(size)
            size *= 2  # a value that is longer than what is in memory is not tried too often

    def _is_within(self, error: json.JSONDecodeError) -> bool:
        """Whether an error is one whatever follows, so that not all of the file is read to find that out."""
        most = MOST_TEXT if error.msg.startswith("Unterminated string") else ESCAPE
        return error.pos < len(self._text) - most

    def end(self) -> None:
        """Check that nothing follows."""
        if self.peek():
            raise self.error("Extra data")

    def _more(self, size: int) -> bool:
        """Read on, and forget what was read; whether there was more."""
        if self._is_complete:
            return False
        done = self._text[: self._at]
        lines = done.count("\n")
        self._column = len(done) - done.rfind("\n") if lines else self._column + len(done)
        self._line += lines
        try:
            data = self._file.read(size)
            self._text = self._text[self._at :] + self._decoder.decode(data, final=not data)
        except UnicodeDecodeError as error:
            place = f"byte {self._bytes + error.start + 1:,} of the file"
            raise UserError(f"{self.path}: not UTF-8 text ({place}); {error.reason}") from None
        except OSError as error:
            raise UserError(f"{self.path}: cannot be read: {error.strerror}") from error
        self._at = 0
        self._bytes += len(data)
        self._is_complete = not data
        return bool(data)
