"""Geometry of the transforms of images and frames, by which boxes are converted to what the model sees and back."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from torch import Tensor

from unival.boxes import Box


@dataclass(frozen=True)
class Geometry:
    """The transform of an image or of a video's frames to the model's square: on either axis, ``x -> x * scale + offset``.

    Plain numbers, not tensors: in half precision fairseq converts every float32 tensor of a batch.

    Attributes:
        size: width and height of the original in pixels, as a person sees it (rotated by its EXIF orientation).
        side: pixels per side of the square that the model sees.
        scale: pixels of the square per pixel of the original, across and down.
        offset: position of the original's top left corner in the square, in pixels of the square.
    """

    size: tuple[int, int]
    side: int
    scale: tuple[float, float]
    offset: tuple[float, float] = (0.0, 0.0)

    @classmethod
    def of_resize(cls, size: tuple[int, int], side: int) -> Geometry:
        """The geometry of resizing a whole image to a square."""
        return cls(size, side, (side / size[0], side / size[1]))

    def forward(self, box: Box) -> Box:
        """Convert a box from pixels of the original to pixels of the square."""
        (sx, sy), (dx, dy) = self.scale, self.offset
        return box[0] * sx + dx, box[1] * sy + dy, box[2] * sx + dx, box[3] * sy + dy

    def back(self, box: Box) -> Box:
        """Convert a box from pixels of the square to pixels of the original."""
        (sx, sy), (dx, dy) = self.scale, self.offset
        return (box[0] - dx) / sx, (box[1] - dy) / sy, (box[2] - dx) / sx, (box[3] - dy) / sy


class Loaded(NamedTuple):
    """A loaded media file: its values, and the geometry of the transforms.

    ``geometry`` is None for audio, and for augmented frames (rotated or sheared, say), which boxes cannot follow.
    """

    values: Tensor
    geometry: Geometry | None = None
