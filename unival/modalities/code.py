"""Image codes: an image as indices into the codebook of a VQGAN, one per patch, row by row; in the target only."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from unival.errors import UserError, kind_of
from unival.instructions import Instruction, Slot
from unival.modalities.base import Modality
from unival.modalities.geometry import Geometry
from unival.modalities.options import at_least, option
from unival.modalities.target import Context, Target
from unival.text import REFERENCE_SEPARATOR

PIXELS_PER_CODE = 8  # per side
SHOWN = 60  # characters of a cell in a message


@dataclass(frozen=True)
class CodeOptions:
    """Size of the images that codes stand for."""

    code_image_size: int = option(128, "pixels per side of generated images (8 per code)", at_least(1), silent=True)


class CodeTarget(Target):
    """Convert image codes to tokens and back: ``(code_image_size / 8)^2`` codes, 1,024 for images of 256 pixels."""

    output = "codes"
    has_code_positions = True
    limits_loss = True  # as published, by --constraint-range

    @property
    def span(self) -> tuple[int, int]:
        """The image codes."""
        return self.vocabulary.code_range

    @property
    def length(self) -> int:
        """How many codes an image has."""
        return (self.options.code_image_size // PIXELS_PER_CODE) ** 2

    def check(self, instruction: Instruction, slot: Slot, media: Sequence[str]) -> None:
        """Check that the vocabulary has codes and that the target consists of them alone: their positions are places in the image."""
        if self.vocabulary.num_codes < 1:
            raise instruction.error(slot, "this vocabulary has no image codes: give --num-codes 8192")
        if len(instruction.target) > 1:
            raise instruction.error(slot, f"{slot.modality} must be all that the target holds: its positions are places in the image")

    def values(self, cell: Any, is_joined: bool) -> list[tuple[int, ...]]:
        """The images of a cell: a list of numbers, a text of numbers with spaces between, or a list of such."""
        if isinstance(cell, str):
            return [self._checked(text.split()) for text in (cell.split(REFERENCE_SEPARATOR) if is_joined else [cell])]
        if not isinstance(cell, list | tuple):
            raise UserError(f"expected image codes, numbers in a list or with spaces between, got {kind_of(cell)}")
        if any(isinstance(part, list | tuple) or (isinstance(part, str) and " " in part) for part in cell):
            return [codes for part in cell for codes in self.values(part, False)]
        return [self._checked(cell)]

    def _checked(self, numbers: Sequence[Any]) -> tuple[int, ...]:
        codes = []
        for place, number in enumerate(numbers):
            is_number = (isinstance(number, int) and not isinstance(number, bool)) or (isinstance(number, str) and number.isdecimal())
            if not is_number or not 0 <= int(number) < self.vocabulary.num_codes:
                shown = repr(number)[:SHOWN]
                raise UserError(f"image code {place} is {shown}: expected a whole number from 0 to {self.vocabulary.num_codes - 1}")
            codes.append(int(number))
        if len(codes) != self.length:
            raise UserError(f"{len(codes)} image codes; an image of --code-image-size {self.options.code_image_size} has {self.length}")
        return tuple(codes)

    def encode(self, value: Sequence[int], slot: Slot, context: Context) -> tuple[list[int], bool]:
        """One token per code."""
        start = self.vocabulary.code_range[0]
        return [start + code for code in value], False

    def decode(self, ids: Sequence[int], slot: Slot, geometry: Mapping[str, Geometry]) -> tuple[int, ...]:
        """Numbers of codes."""
        start = self.vocabulary.code_range[0]
        return tuple(int(i) - start for i in ids)

    def as_text(self, value: Sequence[int]) -> str:
        """``5 17 4 …``."""
        return " ".join(map(str, value))


CODE = Modality("CODE", options=CodeOptions, model_options=CodeOptions, is_source=False, target=CodeTarget)
