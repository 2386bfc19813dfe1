"""A table of rows in memory, as the Python API reads them."""

import os
import pathlib
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from PIL import Image
from torch import Tensor

from unival.data.table import Table
from unival.errors import UserError
from unival.modalities.base import Modality
from unival.modalities.pillow import as_file


class RowTable(Table):
    """A table of dicts. Media are paths (relative to the working directory), base64 text or bytes.

    Args:
        rows: column name -> value, per row.

    Raises:
        UserError: there are no rows, or a row is not a dict with strings as keys.
    """

    def __init__(self, rows: Iterable[Mapping[str, Any]]):
        rows = list(rows)
        if not rows:
            raise UserError("expected at least one row, got none")
        for i, row in enumerate(rows):
            if not isinstance(row, Mapping):
                raise UserError(f'row {i}: expected a dict such as {{"image": "a.jpg"}}, got {type(row).__name__}')
            odd = next((key for key in row if not isinstance(key, str)), None)
            if odd is not None:
                raise UserError(f"row {i}: column names must be strings, got {str(odd)[:40]!r} of type {type(odd).__name__}")
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
        """Name of row ``i`` in messages, with the column if one is given."""
        return f"row {i}" + ("" if column is None else f", column {column!r}")


def plain(value: Any) -> Any:
    """Convert a Python object to a value that a table may have: an open file to bytes, an image to bytes of PNG, a path to text.

    Args:
        value: any value; those that are not named here are returned unchanged. Images are PIL images of any mode (rotated by their EXIF
            only as opened from a file, not after ``rotate`` or ``convert``).

    Raises:
        UserError: a file that is closed, empty, opened as text or read to its end.
    """
    if isinstance(value, Image.Image):
        return as_file(value)
    if hasattr(value, "read"):
        try:
            data = value.read()
        except (OSError, ValueError) as error:
            raise UserError(f"{value!r} {'is closed' if getattr(value, 'closed', False) else f'cannot be read: {error}'}") from None
        if not isinstance(data, bytes) or not data:
            reason = "is empty, or was read to its end" if data in (b"", "") else 'is open as text: open it with mode "rb"'
            raise UserError(f"{value!r} {reason}")
        return data
    if isinstance(value, bytearray | memoryview):
        return bytes(value)
    return os.fsdecode(value) if isinstance(value, os.PathLike) else value


def cell_of(value: Any, modality: Modality) -> Any:
    """Convert a Python object to a cell for slots of a modality.

    Args:
        value: see :func:`plain`; arrays and tensors become plain numbers or text where the modality has no media, and else what
            :attr:`unival.modalities.base.Media.from_array` makes of them.
        modality: the modality of the slot that has the value.

    Raises:
        UserError: see :func:`plain`; or the modality takes no arrays, or not such ones.
    """
    if modality.media is None:
        return plain(_listed(value))
    if not isinstance(value, np.ndarray | Tensor):
        return plain(value)
    if modality.media.from_array is None:
        shape = " x ".join(map(str, value.shape))
        raise UserError(
            f"{modality.name} takes no arrays, and this is one of {str(value.dtype).removeprefix('torch.')}, {shape}:"
            " give a path, bytes or an open file"
        )
    return modality.media.from_array(value)


def _listed(value: Any) -> Any:
    """The values of arrays and tensors, also of those in lists, as nested lists."""
    if isinstance(value, Tensor):
        return value.detach().cpu().tolist()
    if isinstance(value, np.ndarray | np.generic):
        return value.tolist()
    return [_listed(part) for part in value] if isinstance(value, list | tuple) else value
