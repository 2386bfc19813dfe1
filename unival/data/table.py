"""Tables: random access by row number to TSV and JSON Lines files of any size.

The file is memory-mapped. The offsets of its lines are kept in an index file next to it (or in the user's cache folder if the folder
is read-only), which is written on first use and again when the table changes. A table can be pickled: workers map the file again.
"""

from __future__ import annotations

import contextlib
import difflib
import json
import logging
import mmap
import os
import pathlib
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

from unival.data.line_index import line_offsets
from unival.errors import UserError, counted, kind_of
from unival.text import BOM, HEAD, decode, lone_returns, refuse_wide

logger = logging.getLogger(__name__)

TSV_SUFFIXES = (".tsv", ".txt")
JSONL_SUFFIXES = (".jsonl", ".ndjson")
TRIED_ROWS = 100  # first rows from which the columns of a table are determined

PathLike = str | os.PathLike[str]


def open_table(
    path: PathLike,
    columns: Sequence[str] | None = None,
    selected_cols: str | None = None,
    media_root: PathLike | None = None,
) -> Table:
    """Open a table.

    Args:
        path: ``.tsv`` or ``.txt`` (columns separated by tabs, no header), or ``.jsonl`` or ``.ndjson`` (one JSON object per line).
        columns: TSV: names of the columns, or of the selected ones if ``selected_cols`` is given; default: their numbers, "0", "1",
            ... JSONL: columns that every row must have.
        selected_cols: TSV only: numbers of the columns to keep, in the order of ``columns``, such as "0,4,2".
        media_root: folder of relative paths of media, in addition to the folder of the table.

    Raises:
        UserError: no such file, unknown format, no rows, or columns that most of the first rows do not have.
    """
    file = pathlib.Path(path)
    if not file.is_file():
        raise UserError(f"there is no table {file}{_similar_files(file)}")
    if media_root is not None and not pathlib.Path(media_root).is_dir():
        raise UserError(f"the media root {media_root} is not a folder")
    suffix = file.suffix.lower()
    if suffix in TSV_SUFFIXES:
        return TsvTable(file, columns, selected_cols, media_root)
    if suffix not in JSONL_SUFFIXES:
        known = ", ".join(TSV_SUFFIXES + JSONL_SUFFIXES)
        raise UserError(f"{file}: expected a table with the suffix {known}, got {suffix!r}")
    if selected_cols is not None:
        raise UserError(f"{file}: selected_cols needs a TSV file; columns of a JSONL file have names")
    return JsonlTable(file, columns, media_root)


class Table:
    """Rows of a file by number, each a dict of column name -> value. Create it with ``open_table``.

    Attributes:
        path: the file.
        columns: names of the columns.
        media_root: folder of relative paths of media, in addition to the folder of the file; may be None.
        joins_values: whether a cell with several values is a text that joins them by ``&&``.
    """

    columns: tuple[str, ...]
    joins_values: bool = False

    def __init__(self, path: pathlib.Path, media_root: PathLike | None) -> None:
        self.path = path
        self.media_root = None if media_root is None else pathlib.Path(media_root)
        stat = path.stat()
        self._stamp = (stat.st_size, stat.st_mtime_ns)
        self._map()
        if not len(self):
            raise UserError(f"{path} has no rows")

    def _map(self) -> None:
        with self.path.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            self._bytes = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) if size else b""
        refuse_wide(self._bytes[:HEAD], self.path)
        self._offsets = line_offsets(self.path, self._bytes, self._stamp)

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name not in ("_bytes", "_offsets")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        if not self.path.is_file():
            raise UserError(f"the table {self.path} was removed after it was opened")
        stat = self.path.stat()
        if (stat.st_size, stat.st_mtime_ns) != self._stamp:
            raise UserError(f"the table {self.path} changed after it was opened: start again")
        self._map()

    @property
    def file_bytes(self) -> int:
        """Size of the file."""
        return self._stamp[0]

    def folders(self, row: int) -> list[pathlib.Path]:
        """The folders that media paths of a row are relative to, in the order in which files are looked for."""
        return [folder for folder in (self.media_root, self.path.parent) if folder is not None]

    def __len__(self) -> int:
        return len(self._offsets) - 1

    def __getitem__(self, i: int) -> dict[str, Any]:
        """Row ``i``, with ``0 <= i < len(table)``.

        Raises:
            UserError: the row is malformed; names file, row and column.
            IndexError: there is no such row.
        """
        self._check_number(i)
        with row_errors(self, i):
            return self._parse(i, self._line(i))

    def _parse(self, i: int, line: str) -> dict[str, Any]:
        raise NotImplementedError

    def _check_number(self, i: int) -> None:
        if not 0 <= i < len(self):
            raise IndexError(f"row {i} of {len(self)} in {self.path}")

    def _raw(self, i: int) -> bytes:
        raw: bytes = self._bytes[int(self._offsets[i]) : int(self._offsets[i + 1])]
        return raw.removesuffix(b"\n").removesuffix(b"\r").removeprefix(BOM)  # concatenated files have BOMs in any row

    def _line(self, i: int) -> str:
        return decode(self._raw(i), self.where(i), self.path)

    def where(self, i: int, column: str | None = None) -> str:
        """Name of row ``i`` in messages: "file.tsv, row 3 (line 4)", with the column if one is given."""
        return f"{self.path}, row {i} (line {i + 1})" + ("" if column is None else f", column {column!r}")


class TsvTable(Table):
    """A TSV table: columns separated by tabs, no header, no quoting; all values are strings."""

    joins_values = True

    def __init__(
        self, path: pathlib.Path, columns: Sequence[str] | None, selected_cols: str | None, media_root: PathLike | None
    ) -> None:
        super().__init__(path, media_root)
        needed = len(columns) if columns is not None and selected_cols is None else None
        self._width, self._model = self._usual_width(needed)
        self._selected = self._select(selected_cols)
        self.columns = tuple(columns) if columns is not None else tuple(str(number) for number in self._selected)
        if len(self.columns) != len(self._selected):
            chosen = f"selected_cols {selected_cols!r} has" if selected_cols is not None else f"{path} has"
            raise UserError(
                f"{chosen} {counted(len(self._selected), 'column')}, but got {counted(len(self.columns), 'name')}: "
                f"{', '.join(self.columns)}; {self._widths()}"
            )
        _check_unique(path, self.columns)

    def _usual_width(self, needed: int | None) -> tuple[int, int]:
        """Determine the number of columns by majority among the first rows, because any single row may be malformed.

        Blank rows are ignored unless all rows are blank. Rows that cannot be decoded count, since their tabs can be counted.

        Args:
            needed: preferred number of columns in a tie; otherwise the one that comes first is chosen.

        Returns:
            The number of columns, and the first row that has so many.
        """
        firsts: dict[int, int] = {}
        counts: Counter[int] = Counter()
        failure: UserError | None = None
        tried = [(i, self._raw(i)) for i in range(min(TRIED_ROWS, len(self)))]
        for i, raw in [(i, raw) for i, raw in tried if raw] or tried:
            try:
                self._check_one_row(i, raw.decode("utf-8", "replace") if b"\r" in raw else "")
            except UserError as error:
                failure = failure or error
                continue
            width = raw.count(b"\t") + 1
            firsts.setdefault(width, i)
            counts[width] += 1
        if not counts:
            assert failure is not None, "a table without rows"
            raise failure
        width = max(counts, key=lambda width: (counts[width], width == needed))  # the first one in a tie
        return width, firsts[width]

    def _widths(self) -> str:
        return f"{self.where(self._model)}, like most of the first rows, has columns 0 to {self._width - 1}"

    def _check_one_row(self, i: int, line: str) -> None:
        if "\r" in line and sum("\t" in part for part in line.split("\r")) > 1:
            raise UserError(f"{self.where(i)}: {lone_returns(self.path)}")

    def _select(self, selected_cols: str | None) -> tuple[int, ...]:
        if selected_cols is None:
            return tuple(range(self._width))
        numbers = [part.strip() for part in selected_cols.split(",")]
        if not all(re.fullmatch(r"[0-9]{1,9}", number) for number in numbers):
            raise UserError(f"selected_cols must be column numbers such as '0,4,2', got {selected_cols!r}")
        outside = [number for number in numbers if int(number) >= self._width]
        if outside:
            raise UserError(f"selected_cols {selected_cols!r}: no column {outside[0]}; {self._widths()}")
        return tuple(map(int, numbers))

    def _parse(self, i: int, line: str) -> dict[str, Any]:
        fields = line.split("\t")
        self._check_one_row(i, line)
        if len(fields) != self._width:
            if not line:
                raise UserError(f"{self.where(i)}: blank line between rows")
            names = f" ({', '.join(self.columns)})" if len(self.columns) == self._width else ""
            expected = f"{counted(self._width, 'column')}{names} as in row {self._model}"
            raise UserError(f"{self.where(i)}: expected {expected}, got {len(fields)}")
        return dict(zip(self.columns, (fields[number] for number in self._selected), strict=True))


class JsonlTable(Table):
    """A JSON Lines table: one JSON object per line. Rows may have more columns than the required ones, and are returned whole."""

    def __init__(self, path: pathlib.Path, columns: Sequence[str] | None, media_root: PathLike | None) -> None:
        super().__init__(path, media_root)
        self.columns, self._required = (), tuple(columns or ())
        _check_unique(path, self._required)
        self.columns = tuple(self._first_row())

    def _first_row(self) -> dict[str, Any]:
        """The first row that can be parsed; malformed rows before it may be skipped later (``--on-bad-sample skip``)."""
        failure: UserError | None = None
        for i in range(min(TRIED_ROWS, len(self))):
            try:
                return self[i]
            except UserError as error:
                failure = failure or error
        assert failure is not None, "a table without rows"
        raise failure

    def _parse(self, i: int, line: str) -> dict[str, Any]:
        if not line.strip():
            raise UserError(f"{self.where(i)}: blank line between rows")
        row = parse_row(line, self.where(i), f" ({lone_returns(self.path)}?)" if "\r" in line else "")
        for name in self._required:
            if name not in row:
                raise UserError(f"{self.where(i, name)}: no such column; the row has {', '.join(map(repr, row))}")
        return row


def parse_row(text: str, where: str, advice: str = "") -> dict[str, Any]:
    """Parse a row in JSON: an object with at least one key and without repeated keys.

    Args:
        text: the JSON text.
        where: what the text is, for messages.
        advice: added to the message if the text is not valid JSON.

    Raises:
        UserError: the text is not such an object.
    """
    try:
        row = json.loads(text, object_pairs_hook=_unique_keys)
    except json.JSONDecodeError as error:
        raise UserError(f"{where}, character {error.pos + 1}: not valid JSON: {error.msg}{advice}") from None
    except KeyError as error:
        raise UserError(f"{where}, column {error.args[0]!r}: the row names this column twice") from None
    except (RecursionError, ValueError) as error:  # nested too deeply, or a number with thousands of digits
        raise UserError(f"{where}: {_reason(error)}") from error
    if not isinstance(row, dict):
        raise UserError(f"{where}: expected a JSON object, got {kind_of(row)}: {text[:60]}")
    if not row:
        raise UserError(f'{where}: the row has no columns; expected an object such as {{"image": "a.jpg"}}')
    return row


def _unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        raise KeyError(next(name for name in names if names.count(name) > 1))
    return found


@contextlib.contextmanager
def row_errors(table: Table, row: int, column: str | None = None) -> Iterator[None]:
    """Turn every exception inside into a UserError that names file, row and column.

    Parsers and decoders may raise almost anything (recursion, memory, numbers, codecs); the exception is kept as the cause.
    """
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        raise UserError(f"{table.where(row, column)}: {_reason(error)}") from error


def _reason(error: Exception) -> str:
    if isinstance(error, RecursionError):
        return "nested too deeply"
    if isinstance(error, MemoryError):
        return "too large for the free memory"
    said = " ".join(str(error).split())
    return f"{type(error).__name__}: {said}" if said else type(error).__name__


def _check_unique(path: pathlib.Path, columns: Sequence[str]) -> None:
    twice = sorted({name for name in columns if list(columns).count(name) > 1})
    if twice:
        raise UserError(f"{path}: column name {twice[0]!r} is given twice in {', '.join(columns)}")


def _similar_files(file: pathlib.Path) -> str:
    if not file.parent.is_dir():
        return f": the folder {file.parent} does not exist"
    names = sorted(entry.name for entry in file.parent.iterdir() if not entry.name.startswith("."))
    close = difflib.get_close_matches(file.name, names, n=3) or names[:8]
    return f"; {file.parent} has {', '.join(close)}" if close else f"; {file.parent} is empty"
