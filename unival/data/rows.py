"""Rows held in memory, as a table: what the Python API reads."""

import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

from unival.data.table import Table
from unival.errors import UserError


class RowTable(Table):
    """A sequence of dicts; media are paths (relative to the working directory), base64 text or bytes.

    Raises:
        UserError: there are no rows, or they have different columns.
    """

    def __init__(self, rows: Sequence[Mapping[str, Any]]):
        if not rows:
            raise UserError("no rows were given")
        self.path = pathlib.Path("rows")
        self.media_root = None
        self.columns = tuple(rows[0])
        self._rows = [dict(row) for row in rows]

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, i: int) -> dict[str, Any]:
        return self._rows[i]

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)

    def where(self, i: int, column: str | None = None) -> str:
        """Row ``i`` for messages."""
        return f"row {i}" + ("" if column is None else f", column {column!r}")
