"""Where the pixels of an image went when it became what the model sees, so that boxes go there and come back."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from torch import Tensor

from unival.boxes import Box


@dataclass(frozen=True)
class Geometry:
    """What a loader did to an image or to a video's frames: on either axis, pixel ``x`` became ``x * scale + offset``.

    Python's numbers, not tensors: fairseq halves every float32 tensor of a batch in half precision.

    Attributes:
        size: width and height of the original in pixels, as a person sees it (turned upright by its EXIF orientation).
        side: pixels per side of the square that the model sees.
        scale: pixels of the square per pixel of the original, across and down.
        offset: where the original's top left corner lies in the square, in its pixels.
    """

    size: tuple[int, int]
    side: int
    scale: tuple[float, float]
    offset: tuple[float, float] = (0.0, 0.0)

    @classmethod
    def of_resize(cls, size: tuple[int, int], side: int) -> Geometry:
        """The whole image was resized to a square."""
        return cls(size, side, (side / size[0], side / size[1]))

    def forward(self, box: Box) -> Box:
        """A box of the original, in pixels of the square."""
        (sx, sy), (dx, dy) = self.scale, self.offset
        return box[0] * sx + dx, box[1] * sy + dy, box[2] * sx + dx, box[3] * sy + dy

    def back(self, box: Box) -> Box:
        """A box of the square, in pixels of the original."""
        (sx, sy), (dx, dy) = self.scale, self.offset
        return (box[0] - dx) / sx, (box[1] - dy) / sy, (box[2] - dx) / sx, (box[3] - dy) / sy


class Loaded(NamedTuple):
    """What a loader makes of a file.

    ``geometry`` is None where there is none to speak of (audio) or none that a box could follow (frames that were turned or sheared).
    """

    values: Tensor
    geometry: Geometry | None = None
