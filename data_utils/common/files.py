"""Reading of the files that a data set is distributed in: JSON, JSON lines, CSV, pickles; messages name file, entry and key.

Large JSON files are read by ``json_stream``; CSV files and lines are not held in memory.
"""

import csv
import json
import pathlib
import pickle
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NoReturn

from unival.errors import UserError
from unival.text import BOM, HEAD, decode, read_text, refuse_wide, why_not_text

SHOWN = 60  # characters of a value in a message
NAMED = 8  # files of a folder in a message

csv.field_size_limit(sys.maxsize if sys.maxsize < 2**31 else 2**31 - 1)


class Entry:
    """An object of a file: values by key, checked as they are asked for.

    Args:
        values: the object.
        where: its file and place in it, for messages.

    Raises:
        UserError: ``values`` is no object; a key that is asked for is not there, or its value is of another kind.
    """

    def __init__(self, values: Any, where: str):
        if not isinstance(values, dict):
            raise UserError(f"{where}: expected an object, got {shown(values)}")
        self.values = values
        self.where = where

    def __contains__(self, key: str) -> bool:
        return key in self.values

    def __getitem__(self, key: str) -> Any:
        if key not in self.values:
            raise UserError(f"{self.where}: there is no key {key!r}; there are {', '.join(map(repr, self.values)) or 'none'}")
        return self.values[key]

    def wrong(self, key: str, expected: str) -> NoReturn:
        """Refuse the value of a key."""
        raise UserError(f"{self.where}, key {key!r}: expected {expected}, got {shown(self[key])}")

    def text(self, key: str) -> str:
        """A text, without outer spaces and with single spaces between its words; it may be empty."""
        value = self[key]
        if not isinstance(value, str):
            self.wrong(key, "a text")
        reason = why_not_text(value)
        if reason is not None:
            raise UserError(f"{self.where}, key {key!r}: {reason}")
        return " ".join(value.split())

    def name(self, key: str) -> str:
        """A text that is not empty, such as the name of a file."""
        return self.text(key) or self.wrong(key, "a text that is not empty")

    def integer(self, key: str) -> int:
        """A whole number; CSV files have it as text."""
        value = self[key]
        if isinstance(value, str) and value.strip().removeprefix("-").isdecimal():
            return int(value)
        if not isinstance(value, int) or isinstance(value, bool):
            self.wrong(key, "a whole number")
        return value

    def numbers(self, key: str, count: int) -> list[float]:
        """So many finite numbers."""
        value = self[key]
        is_list = isinstance(value, list | tuple) and len(value) == count
        if not is_list or not all(isinstance(v, int | float) and not isinstance(v, bool) and abs(v) < 1e12 for v in value):
            self.wrong(key, f"{count} numbers")
        return list(value)

    def choice(self, key: str, known: Sequence[str]) -> str:
        """One of some texts."""
        value = self.text(key)
        return value if value in known else self.wrong(key, f"one of {', '.join(known)}")

    def list(self, key: str) -> list[Any]:
        """A list."""
        value = self[key]
        if not isinstance(value, list | tuple):
            self.wrong(key, "a list")
        return list(value)

    def entries(self, key: str) -> Iterator["Entry"]:
        """The objects of a list."""
        return entries(self.list(key), f"{self.where}, {key}")


def entries(values: Any, where: str) -> Iterator[Entry]:
    """The objects of a list that is ``where``."""
    if not isinstance(values, list | tuple):
        raise UserError(f"{where}: expected a list, got {shown(values)}")
    return (Entry(value, f"{where} {i}") for i, value in enumerate(values))


def shown(value: Any) -> str:
    """A value in a message."""
    kind = {dict: "an object", list: "a list", type(None): "null"}.get(type(value))
    text = repr(value)
    return kind or (text if len(text) <= SHOWN else f"{text[:SHOWN]}...")


class Source:
    """The folder with a data set's own files, in itself or in the folders directly in it.

    Args:
        folder: the folder.
        option: what the folder was given by, for messages.

    Raises:
        UserError: there is no such folder.
    """

    def __init__(self, folder: str | pathlib.Path, option: str = "--source "):
        self.folder = pathlib.Path(folder)
        self.where = f"{option}{folder}"
        if not self.folder.is_dir():
            raise UserError(f"{self.where}: there is no such folder")

    def find(self, *names: str) -> pathlib.Path | None:
        """The first of the files that there is.

        Raises:
            UserError: several folders have it.
        """
        for name in names:
            if (self.folder / name).is_file():
                return self.folder / name
            found = sorted(path for path in self.folder.glob(f"*/{_literal(name)}") if path.is_file())
            if len(found) > 1:
                raise UserError(f"{self.where}: {name} is there twice: {found[0]}, {found[1]}; give the folder of one")
            if found:
                return found[0]
        return None

    def need(self, *names: str) -> pathlib.Path:
        """As :meth:`find`, for a file that must be there."""
        found = self.find(*names)
        if found is None:
            there = sorted(path.name for path in self.folder.iterdir() if not path.name.startswith("."))
            has = ", ".join(there[:NAMED]) + (", ..." if len(there) > NAMED else "")
            raise UserError(f"{self.where}: there is no {' or '.join(names)}; the folder has {has or 'nothing'}")
        return found


def _literal(name: str) -> str:
    return "".join(f"[{character}]" if character in "*?[" else character for character in name)


def read_json(path: pathlib.Path, hook: Callable[[dict[str, Any]], Any] | None = None) -> Any:
    """The value of a JSON file; ``hook`` may replace objects while they are read, where there are millions."""
    try:
        return json.loads(read_text(path), object_hook=hook)
    except json.JSONDecodeError as error:
        raise UserError(f"{path}, line {error.lineno}, character {error.colno}: not valid JSON: {error.msg}") from None
    except RecursionError:
        raise UserError(f"{path}: nested too deeply") from None


def read_object(path: pathlib.Path, hook: Callable[[dict[str, Any]], Any] | None = None) -> Entry:
    """A JSON file that holds an object."""
    return Entry(read_json(path, hook), str(path))


def read_list(path: pathlib.Path) -> Iterator[Entry]:
    """A JSON file that holds a list of objects."""
    return entries(read_json(path), f"{path}, entry")


def text_lines(path: pathlib.Path) -> Iterator[tuple[int, str]]:
    """The numbers of a text file's lines, from 1, and the lines, without their ends; the file is not held in memory."""
    try:
        with path.open("rb") as file:
            refuse_wide(file.peek(HEAD)[:HEAD], path)
            for number, line in enumerate(file, start=1):
                text = decode(line.removeprefix(BOM), f"{path}, line {number}", path)
                yield number, text.removesuffix("\n").removesuffix("\r")
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror}") from error


def read_lines(path: pathlib.Path) -> Iterator[Entry]:
    """The objects of a file with one a line, which is not held in memory."""
    for number, text in text_lines(path):
        if text.strip():
            where = f"{path}, line {number}"
            yield Entry(_line(text, where), where)


def _line(text: str, where: str) -> Any:
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        raise UserError(f"{where}, character {error.pos + 1}: not valid JSON: {error.msg}") from None
    except RecursionError:
        raise UserError(f"{where}: nested too deeply") from None


def read_csv(path: pathlib.Path) -> Iterator[Entry]:
    """The rows of a CSV file with a header, which is not held in memory; a quoted cell may have commas and line breaks."""
    reader = csv.reader((f"{part}\n" for _, line in text_lines(path) for part in line.split("\r")), strict=True)
    header: list[str] = []
    try:
        for cells in reader:
            if not cells:
                continue
            if not header:
                header = [cell.strip() for cell in cells]
                continue
            if len(cells) != len(header):
                raise UserError(f"{path}, line {reader.line_num}: expected {len(header)} cells ({', '.join(header)}), got {len(cells)}")
            yield Entry(dict(zip(header, cells, strict=True)), f"{path}, line {reader.line_num}")
    except csv.Error as error:
        raise UserError(f"{path}, line {reader.line_num}: not valid CSV: {error}") from None


# --- pickles ----------------------------------------------------------------------------------------------------------


class _Inert(pickle.Unpickler):
    """Reads plain values only: a pickle that names a class or a function is refused before anything of it is called."""

    def find_class(self, module: str, name: str) -> NoReturn:
        raise UserError(f"it names {module}.{name}; only plain values (texts, numbers, lists, dicts) are read")

    def persistent_load(self, pid: Any) -> NoReturn:
        raise UserError("it refers to something outside of the file; only plain values are read")


def read_pickle(path: pathlib.Path) -> Any:
    """The plain values of a pickle, also of one that Python 2 wrote; nothing in it is executed.

    Raises:
        UserError: the file cannot be read, is damaged, or holds more than plain values.
    """
    try:
        with path.open("rb") as file:
            return _as_text(_Inert(file, encoding="bytes").load())
    except UserError as error:
        raise UserError(f"{path}: refused, nothing in it was run: {error}") from None
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror}") from error
    except Exception as error:  # noqa: BLE001  damaged pickles raise almost anything
        raise UserError(f"{path}: damaged, or not a pickle: {str(error) or type(error).__name__}") from error


def _as_text(value: Any) -> Any:
    """Python 2's strings are bytes: UTF-8, or what its authors' terminals wrote."""
    if isinstance(value, bytes):
        try:
            return value.decode("utf-8")
        except UnicodeDecodeError:
            return value.decode("latin-1")
    if isinstance(value, dict):
        return {_as_text(key): _as_text(item) for key, item in value.items()}
    return [_as_text(item) for item in value] if isinstance(value, list | tuple) else value
