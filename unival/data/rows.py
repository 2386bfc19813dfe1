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
        value = _array(value)
    if isinstance(value, np.ndarray):
        value = _image(value)
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


CHANNELS = (1, 3, 4)


def _array(value: Tensor) -> np.ndarray:
    """Convert a tensor to an array with channels last."""
    value = value.detach().cpu()
    if value.is_floating_point():
        value = value.float()  # numpy has no bfloat16
    is_first = value.dim() == 3 and (value.size(0) in (1, 3) or (value.size(0) == 4 and value.size(2) not in CHANNELS))
    return (value.permute(1, 2, 0) if is_first else value).numpy()


def _image(pixels: np.ndarray) -> Image.Image:
    """Convert an array of any byte order to an 8-bit image."""
    pixels = pixels.astype(pixels.dtype.newbyteorder("="), copy=False)
    is_image = pixels.ndim == 2 or (pixels.ndim == 3 and pixels.shape[2] in CHANNELS)
    is_float = np.issubdtype(pixels.dtype, np.floating)
    if not (is_float or pixels.dtype in (np.uint8, np.uint16, np.bool_)) or not is_image or not pixels.size:
        shape = " x ".join(map(str, pixels.shape))
        raise UserError(
            f"an array of {pixels.dtype}, {shape}, is not an image: expected uint8, uint16, bool or floats from 0 to 1, as h x w, h x w x 3"
            " (or 4, with alpha) or (tensors) 3 x h x w; videos and audio must be paths or bytes"
        )
    if is_float and not (pixels.min() >= 0 and pixels.max() <= 1):
        raise UserError(
            f"an array of {pixels.dtype} from {pixels.min():g} to {pixels.max():g} is not an image: floats must be 0 to 1, or give uint8"
        )
    if pixels.dtype != np.uint8:
        white = 2**16 - 1 if pixels.dtype == np.uint16 else 1
        pixels = np.round(pixels.astype(np.float64) * (255 / white)).astype(np.uint8)
    return Image.fromarray(pixels[:, :, 0] if pixels.ndim == 3 and pixels.shape[2] == 1 else np.ascontiguousarray(pixels))
