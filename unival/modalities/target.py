"""What a modality brings whose cells become token ids: how they are written, limited while they are predicted, and read back.

Ids are those of the vocabulary, without bos and eos.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, NamedTuple

from unival.instructions import Instruction, Slot
from unival.modalities.geometry import Geometry
from unival.vocab import Vocabulary


@dataclass(frozen=True)
class Context:
    """What a cell is encoded by, beside its slot.

    Attributes:
        words: longest text in words; a slot's own ``max_length`` wins.
        geometry: where the pixels of the row's media went, by the name of their column; those without a geometry are not there.
    """

    words: int
    geometry: Mapping[str, Geometry] = field(default_factory=dict)


class References(NamedTuple):
    """The values of a predicted cell.

    Attributes:
        texts: as metrics compare them.
        values: those that can be learned, at least one, as :meth:`Target.encode` takes them.
        blank: how many values of the cell are blank, and left out of both.
    """

    texts: list[str]
    values: list[Any]
    blank: int = 0


class Target:
    """Cells of one modality as token ids, in the source or in the target, and back.

    Methods that look at a cell raise a UserError that says what is wrong with it; the caller names file, row and column.

    Args:
        vocabulary: of all tokens.
        options: how media are read, the modality's own options among them (:class:`unival.modalities.base.MediaOptions`).

    Attributes:
        output: the field of :class:`unival.generation.outputs.Output` that holds what was predicted.
        metrics: names of the metrics that compare it by default.
        has_code_positions: its positions in the decoder are those of a grid of image codes (``code_masks``).
        needs_geometry: tokens cannot be read back without knowing where the row's pixels went.
        has_own_text: its text is not what the vocabulary makes of its ids.
        limits_loss: the loss, too, is over :attr:`span` (and the four special tokens) in place of the whole vocabulary.
    """

    output: ClassVar[str]
    metrics: ClassVar[tuple[str, ...]] = ()
    has_code_positions: ClassVar[bool] = False
    needs_geometry: ClassVar[bool] = False
    has_own_text: ClassVar[bool] = True
    limits_loss: ClassVar[bool] = False

    def __init__(self, vocabulary: Vocabulary, options: Any):
        self.vocabulary = vocabulary
        self.options = options

    @property
    def span(self) -> tuple[int, int] | None:
        """The ids that it is written in, from the first to the last (exclusive); None: any."""
        return None

    @property
    def length(self) -> int | None:
        """How many tokens it always has; None: as many as the model says."""
        return None

    def check(self, instruction: Instruction, slot: Slot, media: Sequence[str]) -> None:
        """Whether an instruction's slot can be served at all.

        Args:
            media: columns of the source whose cells are images, videos or audio.

        Raises:
            InstructionError: it cannot.
        """

    def values(self, cell: Any, is_joined: bool) -> list[Any]:
        """All values of a cell, at least one.

        Args:
            is_joined: a text holds several values, joined by ``&&``, as in TSV tables.
        """
        raise NotImplementedError

    def references(self, cell: Any, slot: Slot, is_joined: bool) -> References:
        """The values of a cell that is to be predicted."""
        values = self.values(cell, is_joined)
        return References([self.as_text(value) for value in values], values)

    def encode(self, value: Any, slot: Slot, context: Context) -> tuple[list[int], bool]:
        """Ids of a value, and whether it was cut to its limit."""
        raise NotImplementedError

    def closed_set(self, slot: Slot, answers: Sequence[str], words: int) -> list[tuple[int, ...]] | None:
        """The ids of every answer that a slot may have; None where it has no closed set.

        Args:
            answers: what the set consists of.
            words: longest answer in words.
        """
        return None

    def decode(self, ids: Sequence[int], slot: Slot, geometry: Mapping[str, Geometry]) -> Any:
        """The value that ids stand for, as :attr:`output` holds it; ``geometry`` as in :class:`Context`."""
        raise NotImplementedError

    def as_text(self, value: Any) -> str:
        """A value as it is printed, and as metrics compare it."""
        return str(value)


def has_loss(slot: Slot) -> bool:
    """Whether a target slot is predicted: plain text and ``no_loss`` slots are given."""
    return not slot.is_plain and not slot.attributes.get("no_loss", False)


def predicted_slot(instruction: Instruction) -> Slot:
    """The slot whose value is what the model says: the last that is predicted."""
    return [slot for slot in instruction.target if has_loss(slot)][-1]


def decode(target: Target, slot: Slot, tokens: Sequence[int], geometry: Mapping[str, Geometry]) -> dict[str, Any]:
    """What a model said, by the fields of :class:`unival.generation.outputs.Output`: as text, and as its target's own.

    Args:
        target: of the slot's modality.
        tokens: ids, eos among them or not.
        geometry: see :class:`Context`.
    """
    value = target.decode([int(token) for token in tokens if token != target.vocabulary.eos], slot, geometry)
    return {"text": target.as_text(value), target.output: value}
