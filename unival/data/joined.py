"""Several tables read as one."""

import pathlib
from collections.abc import Sequence
from typing import Any

import numpy as np

from unival.data.table import Table
from unival.errors import UserError


class JoinedTable(Table):
    """The rows of several tables, those of the first one first.

    Args:
        tables: the tables, all TSV or all JSON Lines, with the same columns; rows of JSON Lines may have more.

    Raises:
        UserError: they are of different kinds, or one lacks a column that the first has.
    """

    def __init__(self, tables: Sequence[Table]):
        first = tables[0]
        self.tables = list(tables)
        self.path = first.path
        self.media_root = first.media_root
        self.joins_values = first.joins_values
        self.columns = tuple(column for column in first.columns if all(column in table.columns for table in tables))
        for table in tables[1:]:
            if table.joins_values != self.joins_values:
                raise UserError(f"{first.path} and {table.path} are read as one table: both must be TSV or both JSON Lines")
            lacking = [column for column in first.columns if column not in table.columns]
            if lacking and self.joins_values:
                raise UserError(f"{table.path} has no column {lacking[0]!r}, which {first.path} has: they are read as one table")
        self._starts = np.cumsum([0, *map(len, tables)])

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)

    @property
    def file_bytes(self) -> int:
        """Size of all files."""
        return sum(table.file_bytes for table in self.tables)

    def __len__(self) -> int:
        return int(self._starts[-1])

    def __getitem__(self, i: int) -> dict[str, Any]:
        self._check_number(i)
        table, row = self._place(i)
        return table[row]

    def where(self, i: int, column: str | None = None) -> str:
        """Name of row ``i`` in messages: its own file, and its number there."""
        table, row = self._place(i)
        return table.where(row, column)

    def folders(self, row: int) -> list[pathlib.Path]:
        """The folders of the row's own table."""
        table, number = self._place(row)
        return table.folders(number)

    def _place(self, i: int) -> tuple[Table, int]:
        number = int(np.searchsorted(self._starts, i, side="right")) - 1
        return self.tables[number], int(i - self._starts[number])
