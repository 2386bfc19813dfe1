"""Modalities whose cells become token ids: how these are encoded, constrained while they are predicted, and decoded.

Token ids are those of the vocabulary, without bos and eos.
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
    """What encoding a cell depends on, in addition to its slot.

    Attributes:
        words: longest text in words; a slot's own ``max_length`` has precedence.
        geometry: column -> geometry of the row's media; media without a geometry are absent.
    """

    words: int
    geometry: Mapping[str, Geometry] = field(default_factory=dict)


class References(NamedTuple):
    """The values of a predicted cell.

    Attributes:
        texts: all values that are not blank, as metrics compare them; of annotators' answers the blank ones, too.
        values: those that can be learned, at least one, as :meth:`Target.encode` takes them.
        blank: number of blank values of the cell, which cannot be learned.
        unlearned: number of values in ``texts`` of which nothing can be learned.
        conf: confidence by which the loss of the row is weighted; None if the cell has none.
    """

    texts: list[str]
    values: list[Any]
    blank: int = 0
    unlearned: int = 0
    conf: float | None = None


class Target:
    """Convert cells of one modality to token ids, in the source or in the target, and back.

    Methods that read a cell raise a UserError if it is wrong; the caller adds file, row and column.

    Args:
        vocabulary: the vocabulary of all modalities.
        options: options of all modalities (:class:`unival.modalities.composed.MediaOptions`).

    Attributes:
        output: field of :class:`unival.generation.outputs.Output` that gets the predicted value.
        metrics: names of the default metrics.
        has_code_positions: whether decoder positions are those of a grid of image codes (``code_masks``).
        needs_geometry: whether decoding needs the geometry of the row's media.
        has_own_text: whether the text of a value differs from what the vocabulary decodes its ids to.
        limits_loss: whether the loss, too, is over :attr:`span` and the four special tokens instead of the whole vocabulary.
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
        """Range of the token ids that values consist of, as (start, end) with ``end`` exclusive; None: any token."""
        return None

    @property
    def length(self) -> int | None:
        """Number of tokens of every value; None if it varies."""
        return None

    def check(self, instruction: Instruction, slot: Slot, media: Sequence[str]) -> None:
        """Check that a slot of an instruction is possible with this vocabulary and these options.

        Args:
            media: columns of the source whose media have a geometry, such as images and videos.

        Raises:
            InstructionError: it is not.
        """

    def values(self, cell: Any, is_joined: bool) -> list[Any]:
        """All values of a cell, at least one.

        Args:
            is_joined: whether a text may hold several values, joined by ``&&``, as in TSV tables.
        """
        raise NotImplementedError

    def references(self, cell: Any, slot: Slot, is_joined: bool) -> References:
        """The values of a cell that is to be predicted."""
        values = self.values(cell, is_joined)
        return References([self.as_text(value) for value in values], values)

    def alternatives(self, values: list[Any], slot: Slot) -> list[Any]:
        """What a cell that is given, not predicted, may stand for: one is drawn for each example.

        Args:
            values: the values of the cell.
        """
        return values

    def encode(self, value: Any, slot: Slot, context: Context) -> tuple[list[int], bool]:
        """Encode a value: its token ids, and whether it was truncated to its limit."""
        raise NotImplementedError

    def closed_set(self, slot: Slot, answers: Sequence[str], words: int) -> list[tuple[int, ...]] | None:
        """The token ids of every candidate answer of a slot; None if the slot has no closed set.

        Args:
            answers: the candidate answers.
            words: longest answer in words.
        """
        return None

    def decode(self, ids: Sequence[int], slot: Slot, geometry: Mapping[str, Geometry]) -> Any:
        """Decode token ids to a value for the field :attr:`output`; ``geometry`` as in :class:`Context`."""
        raise NotImplementedError

    def as_text(self, value: Any) -> str:
        """A value as text, for printing and for metrics."""
        return str(value)


def has_loss(slot: Slot) -> bool:
    """Whether a target slot is predicted: plain text and ``no_loss`` slots are given."""
    return not slot.is_plain and not slot.attributes.get("no_loss", False)


def predicted_slots(instruction: Instruction) -> list[Slot]:
    """The target slots that the model predicts."""
    return [slot for slot in instruction.target if has_loss(slot)]


def predicted_slot(instruction: Instruction) -> Slot:
    """The slot whose value is the model's output: the last one that it predicts."""
    return predicted_slots(instruction)[-1]


def decode(target: Target, slot: Slot, tokens: Sequence[int], geometry: Mapping[str, Geometry]) -> dict[str, Any]:
    """Decode predicted tokens to fields of :class:`unival.generation.outputs.Output`: ``text``, and the target's own field.

    Args:
        target: target of the slot's modality.
        slot: the predicted slot.
        tokens: token ids, with or without eos.
        geometry: see :class:`Context`.
    """
    value = target.decode([int(token) for token in tokens if token != target.vocabulary.eos], slot, geometry)
    return {"text": target.as_text(value), target.output: value}
