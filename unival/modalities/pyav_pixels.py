"""Pixels of PyAV frames as a person sees them: upright, and on white where they are transparent."""

import struct
from typing import Any

import numpy as np

from unival.errors import UserError

IDENTITY = (1, 0, 0, 1)


def pixels(frame: Any, uses_alpha: bool = True) -> np.ndarray:
    """RGB pixels of a frame.

    Colour matrix and range are those of the frame (default: BT.601, limited). Pixels that are not square are not resampled.

    Args:
        frame: PyAV's frame.
        uses_alpha: whether an alpha channel is used, if the frame has one.

    Returns:
        height x width x 3, uint8.
    """
    if uses_alpha and has_alpha(frame.format):
        values = frame.to_ndarray(format="rgba", threads=1).astype(np.uint16)
        alpha = values[..., 3:]
        colours = ((values[..., :3] * alpha + 255 * (255 - alpha) + 127) // 255).astype(np.uint8)
    else:
        colours = frame.to_ndarray(format="rgb24", threads=1)
    return np.ascontiguousarray(turned(colours, display_matrix(frame)))


def has_alpha(pixel_format: Any) -> bool:
    """Whether a pixel format has an alpha channel or a palette, which may have transparent colours."""
    return pixel_format.has_palette or any(component.is_alpha for component in pixel_format.components)


def display_matrix(frame: Any) -> tuple[int, int, int, int]:
    """Display matrix (a, b, c, d) of a frame: pixel (x, y) is shown at (ax + cy, bx + dy), with y pointing down."""
    try:
        notes = frame.side_data
    except ValueError as error:  # side data of a kind that PyAV does not know makes all of it unreadable
        raise UserError(
            "cannot decode the video: PyAV cannot read the side data of its frames (such as EXIF), which may have their orientation;"
            " convert it (ffmpeg -i old.mov new.mp4)"
        ) from error
    data = notes.get("DISPLAYMATRIX")
    if data is None:
        return IDENTITY
    a, b, _, c, d = struct.unpack_from("=5i", bytes(data))
    return a, b, c, d


def turned(image: np.ndarray, matrix: tuple[int, int, int, int]) -> np.ndarray:
    """Rotate (by the nearest right angle) and mirror an image as its display matrix says."""
    a, b, c, d = matrix
    if abs(a) + abs(d) >= abs(b) + abs(c):
        x, y = a, d
    else:
        image = image.swapaxes(0, 1)
        x, y = c, b
    return image[:: -1 if y < 0 else 1, :: -1 if x < 0 else 1]
