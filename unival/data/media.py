"""Loads media cells: the file that a cell names or contains, read by its modality's loader."""

from collections.abc import Callable
from typing import Any

from unival.data.cells import MAX_PATH_CHARACTERS, decode_media
from unival.data.table import Table, row_errors
from unival.errors import UserError
from unival.modalities.geometry import Loaded
from unival.modalities.kinds import other_kind


def load_media(
    value: Any, load: Callable[[bytes], Loaded], takes: tuple[str, ...], table: Table, row: int, column: str
) -> Loaded:
    """Load the file that a value names or contains with ``load``; ``takes``: the kinds of files that it reads.

    Raises:
        UserError: there is no such file, or it cannot be read; names file, row and column.
    """
    with row_errors(table, row, column):
        data = decode_media(value, table, row, column)
        try:
            return load(data)
        except UserError as error:
            name = value if isinstance(value, str) and len(value) <= MAX_PATH_CHARACTERS else ""
            name = name if name.isprintable() else ascii(name)
            if other := other_kind(data, takes):
                what = f"{name or 'the cell'} is {other}; the instruction's slot takes {takes[0]}"
                raise UserError(f"{table.where(row, column)}: {what}") from error
            raise UserError(f"{table.where(row, column)}{name and f' ({name})'}: {error}") from error
