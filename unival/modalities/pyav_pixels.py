"""PyAV's frames as pixels, the way they are to be looked at: upright, on white where they are transparent."""

import struct
from typing import Any

import numpy as np

from unival.errors import UserError

IDENTITY = (1, 0, 0, 1)


def pixels(frame: Any, uses_alpha: bool = True) -> np.ndarray:
    """Colours of a frame: height x width x 3, 8 bits.

    Colour matrix and range are those that the frame names (else BT.601, limited); samples that are not square stay as they are.
    """
    if uses_alpha and has_alpha(frame.format):
        values = frame.to_ndarray(format="rgba", threads=1).astype(np.uint16)
        alpha = values[..., 3:]
        colours = ((values[..., :3] * alpha + 255 * (255 - alpha) + 127) // 255).astype(np.uint8)
    else:
        colours = frame.to_ndarray(format="rgb24", threads=1)
    return np.ascontiguousarray(turned(colours, display_matrix(frame)))


def has_alpha(pixel_format: Any) -> bool:
    """Whether pixels of a format may be transparent."""
    return pixel_format.has_palette or any(component.is_alpha for component in pixel_format.components)


def display_matrix(frame: Any) -> tuple[int, int, int, int]:
    """a, b, c, d of the matrix that takes the pixel at (x, y) to (ax + cy, bx + dy) of the screen; y points down."""
    try:
        notes = frame.side_data
    except ValueError as error:  # one of a kind that PyAV has no name for keeps the others from being read
        raise UserError(
            "cannot decode the video: PyAV does not understand what its frames say of themselves (EXIF, for example), such as which"
            " way up they are; convert it (ffmpeg -i old.mov new.mp4)"
        ) from error
    for data in notes:
        if data.type.name == "DISPLAYMATRIX":
            a, b, _, c, d = struct.unpack_from("=5i", bytes(data))
            return a, b, c, d
    return IDENTITY


def turned(image: np.ndarray, matrix: tuple[int, int, int, int]) -> np.ndarray:
    """An image turned and mirrored as a display matrix says, by the right angle that is nearest."""
    a, b, c, d = matrix
    if abs(a) + abs(d) >= abs(b) + abs(c):
        x, y = a, d
    else:
        image = image.swapaxes(0, 1)
        x, y = c, b
    return image[:: -1 if y < 0 else 1, :: -1 if x < 0 else 1]
