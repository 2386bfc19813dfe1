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
from unival.modalities.arrays import as_image, channels_last
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
            only as opened from a file, not after ``rotate`` or ``convert``), or numpy arrays or tensors: ``height x width``,
            ``height x width x channels`` or (tensors only) ``channels x height x width``, with 1, 3 or 4 channels (RGB and alpha), of
            uint8, uint16, bool or floats from 0 to 1.

    Raises:
        UserError: an array that is not such an image, or a file that is closed, empty, opened as text or read to its end.
    """
    if isinstance(value, Tensor):
        value = channels_last(value)
    if isinstance(value, np.ndarray):
        value = as_image(value)
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
