"""Boxes: a region of the row's image as four location bins, in the source or in the target."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from unival.boxes import EDGES, Box, box_text, boxes_of
from unival.errors import UserError
from unival.instructions import AttributeSpec, Instruction, Slot
from unival.modalities.base import Modality
from unival.modalities.geometry import Geometry
from unival.modalities.options import at_least, option
from unival.modalities.target import Context, Target

SLACK = 1.0  # pixels by which boxes may exceed their image, because annotations are rounded


@dataclass(frozen=True)
class BoxOptions:
    """How the coordinates of boxes become bins."""

    max_image_size: int | None = option(
        None,
        "pixels that the last location bin stands for; published pre-training has 512 (default: --patch-image-size)",
        at_least(1),
    )


class BoxTarget(Target):
    """Convert boxes ``x0,y0,x1,y1`` in pixels of the original image to four bins, and back.

    Bins refer to the square that the image was resized to: pixel ``x`` of it is bin ``round((bins - 1) * x / extent)``. ``extent`` is
    the square's side, or ``max_image_size``: 512 in published pre-training, whatever the square.
    """

    output = "box"
    metrics = ("box_accuracy",)
    needs_geometry = True
    length = EDGES

    @property
    def span(self) -> tuple[int, int]:
        """The ids of the location bins; the loss is over the whole vocabulary nevertheless, as in published recipes for boxes."""
        return self.vocabulary.bin_range

    def check(self, instruction: Instruction, slot: Slot, media: Sequence[str]) -> None:
        """Check that there are bins in the vocabulary and an image that the box refers to."""
        if self.vocabulary.num_bins < 2:
            raise instruction.error(slot, "a box is written in location bins, and this vocabulary has none: give --num-bins 1000")
        if not media:
            raise instruction.error(slot, "a box is of an image or a video, and the source has none: add [IMAGE:image]")
        named = slot.attributes.get("of")
        if named is not None and named not in media:
            raise instruction.error(slot, f"of={named}: the source has no such image or video; there are {', '.join(media)}")

    def values(self, cell: Any, is_joined: bool) -> list[Box]:
        """The boxes of a cell: four numbers or a text of four, or a list of such."""
        return boxes_of(cell, is_joined)

    def encode(self, value: Box, slot: Slot, context: Context) -> tuple[list[int], bool]:
        """Four bins."""
        where, extent = self._place(slot, context.geometry)
        box = where.forward(_within(value, where))
        left, top, right, bottom = (min(max(x, 0.0), float(where.side)) for x in box)
        if left >= right or top >= bottom:
            raise UserError(f"box {self.as_text(value)} lies outside of the part of the frames that the model sees")
        last = self.vocabulary.num_bins - 1
        return [self.vocabulary.bin(round(last * x / extent)) for x in (left, top, right, bottom)], False

    def decode(self, ids: Sequence[int], slot: Slot, geometry: Mapping[str, Geometry]) -> Box:
        """The box in pixels of the original, clipped to the image; the corners are as predicted: a bad model may swap them."""
        assert len(ids) == EDGES, f"a box has {EDGES} tokens, not {len(ids)}"
        where, extent = self._place(slot, geometry)
        start, last = self.vocabulary.bin_range[0], self.vocabulary.num_bins - 1
        left, top, right, bottom = ((i - start) / last * extent for i in ids)
        box = where.back((left, top, right, bottom))
        x0, y0, x1, y1 = (min(max(x, 0.0), float(where.size[i % 2])) for i, x in enumerate(box))
        return x0, y0, x1, y1

    def as_text(self, value: Box) -> str:
        """The box as text, such as ``10.5,20.25,300.75,211``, rounded to 0.01 pixels."""
        return box_text(value)

    def _place(self, slot: Slot, geometry: Mapping[str, Geometry]) -> tuple[Geometry, float]:
        """The geometry of the image that the box refers to, and the extent: the pixel of the square that the last bin stands for."""
        named = slot.attributes.get("of")
        known = {column: where for column, where in geometry.items() if named in (None, column)}
        if len(known) > 1:
            example = f"[{slot.modality}:{slot.column},of={next(iter(known))}]"
            raise UserError(f"a box is of one image, and its row has {', '.join(known)}: name it, as in {example}")
        if not known:
            raise UserError("a box needs the image or video that it is in, on the source side (it cannot follow what --use-dataaug does)")
        (where,) = known.values()
        extent = self.options.max_image_size or where.side
        if extent < where.side:
            raise UserError(f"--max-image-size {extent} is smaller than the images, which have {where.side} pixels per side")
        return where, float(extent)


def _within(box: Box, geometry: Geometry) -> Box:
    """Clip a box to its image, which it may exceed by rounding."""
    width, height = geometry.size
    x0, y0, x1, y1 = box
    if min(x0, y0) < -SLACK or x1 > width + SLACK or y1 > height + SLACK:
        raise UserError(f"box {x0:g},{y0:g},{x1:g},{y1:g} is not within its image, which has {width} x {height} pixels")
    return max(x0, 0.0), max(y0, 0.0), min(x1, float(width)), min(y1, float(height))


BOX = Modality(
    "BOX",
    attributes={"of": AttributeSpec(str), "no_loss": AttributeSpec(bool, target_only=True)},
    options=BoxOptions,
    target=BoxTarget,
)
