"""Values of a mixture file: each is checked where it is read, and an error names the file and the key.

A reader takes a value and its place, and returns what is used of it.
"""

import difflib
import math
import pathlib
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any, TypeVar

from unival.errors import UserError

T = TypeVar("T")
SHOWN = 60  # characters of a value in a message
MOST_SHOWN = 30  # names of which a message lists all
NAME = re.compile(r"[A-Za-z0-9][\w-]*")  # of streams, in keys of logs, and of stages, in names of folders


@dataclass(frozen=True)
class Place:
    """A key of a mixture file, such as ``streams.captions.table``."""

    file: pathlib.Path
    keys: tuple[str, ...] = ()

    def __truediv__(self, key: Any) -> "Place":
        return replace(self, keys=(*self.keys, str(key)))

    def __str__(self) -> str:
        return f"{self.file}: {'.'.join(self.keys)}" if self.keys else str(self.file)

    def error(self, message: str) -> UserError:
        """An error about this key."""
        return UserError(f"{self}: {message}")

    def wrong(self, value: Any, expected: str) -> UserError:
        """An error about the key's value."""
        return self.error(f"expected {expected}, got {str(value)[:SHOWN]!r}")


Reader = Callable[[Any, Place], Any]


def nearest(name: str, known: Iterable[str], shown: int = MOST_SHOWN) -> str:
    """``; did you mean 'x'? There are x, y``, or without the question where nothing is near; without a list where there are too many."""
    names = list(known)
    close = difflib.get_close_matches(name, names, n=1)
    asked = f"; did you mean {close[0]!r}?" if close else ""
    if len(names) > shown:
        return asked
    listed = f"here are {', '.join(names) or 'none'}"
    return f"{asked} T{listed}" if close else f"; t{listed}"


def section(value: Any, place: Place, readers: Mapping[str, Reader]) -> dict[str, Any]:
    """Read a mapping with known keys.

    Args:
        value: the mapping; None: nothing is given.
        place: where it is.
        readers: by key.

    Returns:
        What was read of the keys that are given; a key without a value is not given.

    Raises:
        UserError: it is no mapping, a key is unknown, or a value is wrong.
    """
    given = named(value, place)
    for key in given:
        if key not in readers:
            raise (place / key).error(f"no such key{nearest(key, readers)}")
    return {key: readers[key](each, place / key) for key, each in given.items() if each is not None}


def named(value: Any, place: Place) -> dict[str, Any]:
    """A mapping of names to anything; None is an empty one."""
    if value is None:
        return {}
    if not isinstance(value, Mapping):
        raise place.wrong(value, "keys with values")
    return {str(key): each for key, each in value.items()}


def check_name(name: str, place: Place) -> None:
    """Check the name of a stream or stage.

    Raises:
        UserError: it has characters that cannot be in the key of a log or in the name of a folder.
    """
    if not NAME.fullmatch(name):
        raise (place / name).error("a name has letters, digits, - and _, and begins with a letter or digit")


def text(value: Any, place: Place) -> str:
    """A text; numbers are not."""
    if not isinstance(value, str) or not value.strip():
        raise place.wrong(value, "a text")
    return value


def texts(value: Any, place: Place) -> tuple[str, ...]:
    """A list of texts, or one."""
    return tuple(text(each, place) for each in (value if isinstance(value, list) else [value]))


def columns(value: Any, place: Place) -> tuple[str, ...]:
    """Names of columns: a list, or a text with commas between them, as ``--columns`` takes it."""
    return texts([name.strip() for name in value.split(",")] if isinstance(value, str) else value, place)


def numbers(value: Any, place: Place) -> str:
    """Numbers of columns, as ``--selected-cols`` takes them: a text, a list of whole numbers, or one."""
    listed = value if isinstance(value, list) else [value]
    if all(isinstance(each, int) and not isinstance(each, bool) for each in listed):
        return ",".join(map(str, listed))
    return text(value, place)


def switch(value: Any, place: Place) -> bool:
    """True or false."""
    if not isinstance(value, bool):
        raise place.wrong(value, "true or false")
    return value


def count(value: Any, place: Place) -> int:
    """A whole number, at least 1."""
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise place.wrong(value, "a whole number, at least 1")
    return value


def weight(value: Any, place: Place) -> float:
    """A number, at least 0."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < math.inf:
        raise place.wrong(value, "a number, at least 0")
    return float(value)


def path(value: Any, place: Place) -> pathlib.Path:
    """A path relative to the mixture file.  What is there is asked for when it is used, so that a stage needs its own tables only."""
    return place.file.parent / text(value, place)


def paths(value: Any, place: Place) -> tuple[pathlib.Path, ...]:
    """A list of paths, or one."""
    return tuple(path(each, place) for each in (value if isinstance(value, list) else [value]))
