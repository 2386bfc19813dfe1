"""A stream: rows of one table, read through an instruction, as token ids and media tensors.

Randomness (which caption, which alternative, augmentation) comes from a generator seeded by (seed, epoch, stream, row) and from nothing
else: the same row in the same epoch is the same example whatever the number of workers or GPUs.
"""

import contextlib
import logging
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor

from unival.data.builders import ONLY, builder_of
from unival.data.builders.making import Maker
from unival.data.cells import cell_errors, check_media, is_joined, warn_of_empty
from unival.data.collate import collate
from unival.data.example import BadSample, Example, Sample, TargetTokens
from unival.data.headers import fits_headers
from unival.data.media import load_media
from unival.data.order import OrderedRows
from unival.data.room import Piece, fit
from unival.data.table import Table, row_errors
from unival.errors import BadAnswerError, InstructionError, UserError, counted
from unival.instructions import Instruction, Slot
from unival.modalities import MODALITIES
from unival.modalities.base import MediaLoader
from unival.modalities.composed import MediaOptions
from unival.modalities.geometry import Geometry, Loaded
from unival.modalities.target import Context, References, Target, has_loss, predicted_slot, predicted_slots
from unival.vocab import Vocabulary

logger = logging.getLogger(__name__)

T = TypeVar("T")

MOST_TOKENS = 1000  # of a whole source or target; published models have 1024 positions


@dataclass(frozen=True)
class TextLimits:
    """Longest texts in words (published recipes count words); a slot's own ``max_length`` wins."""

    source: int = 80
    target: int = 30
    source_tokens: int = MOST_TOKENS  # of the whole source
    target_tokens: int = MOST_TOKENS  # of the whole target


class Stream(OrderedRows):
    """Reads a table with an instruction: a row gives one example, or several if a builder makes them.

    Args:
        table: the rows.
        instructions: the alternatives of one instruction, or a dict of these if the builder uses several, by name; training draws an
            alternative per example and epoch, evaluation takes the first.
        vocabulary: converts text to ids.
        media: options of reading media.
        limits: length limits of texts.
        train: draw one of several references, and augment.
        seed: the only source of randomness, together with epoch, stream and row.
        skip_bad: return a :class:`BadSample` for a row that cannot be read instead of raising.
        with_target: False: read only the source (inference on rows without answers).
        builder: name of the builder of examples, in :data:`unival.data.builders.BUILDERS`.
        candidates: token ids of the candidate answers, of those of several instructions with a slot with ``closed_set``; None: any.
        skip_answers: like ``skip_bad``, for rows whose answer is no candidate (in training; evaluation keeps them).

    Raises:
        UserError: the table does not have a column, an instruction cannot be used, no builder has this name, or the builder needs other
            rows' texts and all are equal.
    """

    def __init__(
        self,
        table: Table,
        instructions: Sequence[Instruction] | Mapping[str, Sequence[Instruction]],
        vocabulary: Vocabulary,
        media: MediaOptions,
        limits: TextLimits,
        *,
        train: bool = False,
        seed: int = 1,
        skip_bad: bool = False,
        with_target: bool = True,
        builder: str = "plain",
        candidates: frozenset[tuple[int, ...]] | None = None,
        skip_answers: bool = False,
    ):
        super().__init__(table, train, seed)
        self.builder = builder_of(builder)
        named = instructions if isinstance(instructions, Mapping) else {ONLY: instructions}
        every = [instruction for alternatives in named.values() for instruction in alternatives]
        absent = () if with_target else (slot.column for i in every for slot in i.target if slot.column is not None)
        columns = list(dict.fromkeys([*table.columns, *self.builder.columns, *absent]))  # rows need not have what is predicted
        try:
            self.instructions = {name: [i.resolve(columns) for i in (each if train else each[:1])] for name, each in named.items()}
        except InstructionError as error:
            raise error.of(table.path) from None
        self.split = ""  # the table's name among those of a run; batches carry it
        self.name = table.path.stem  # values logged per stream have this name
        self.vocabulary = vocabulary
        self.limits = limits
        self.skip_bad = skip_bad
        self.candidates = candidates
        closed = {name for name, each in named.items() if any(slot.attributes.get("closed_set") for slot in each[0].target)}
        self.unlimited = frozenset(named) - closed - {ONLY}  # of a builder's several instructions those without candidate answers
        self.skip_answers = skip_answers
        self.with_target = with_target
        every = [instruction for alternatives in self.instructions.values() for instruction in alternatives]
        kinds = [MODALITIES[name] for name in dict.fromkeys(slot.modality for i in every for slot in i.slots)]
        self.loaders: dict[str, MediaLoader] = {kind.name: kind.media.loader(media) for kind in kinds if kind.media}
        self.targets: dict[str, Target] = {kind.name: kind.target(vocabulary, media) for kind in kinds if kind.target}
        self._check_slots(every)
        self.made = Maker(self.builder, builder, table, self.instructions, self.targets, limits.source)

    def _check_slots(self, instructions: Sequence[Instruction]) -> None:
        for instruction in instructions:
            sources = [(slot, MODALITIES[slot.modality].media) for slot in instruction.source]
            media = [str(slot.column) for slot, kind in sources if kind and kind.has_geometry]
            for slot in instruction.slots:
                if slot.modality in self.targets:
                    self.targets[slot.modality].check(instruction, slot, media)
            predicted = predicted_slots(instruction)
            if not predicted:
                raise instruction.error(
                    instruction.target[0], "nothing to predict: the target needs a slot such as [TEXT:caption]"
                )
            for slot in predicted:
                is_alone = len(predicted) == 1 and slot is instruction.target[-1]
                if self.targets[slot.modality].length is not None and not is_alone:
                    raise instruction.error(slot, f"{slot.modality} must be all that is predicted, at the end of the target")

    def __getitem__(self, number: int) -> Sample:
        try:
            return self.read(int(number))
        except UserError as error:
            if not self.is_skipped(error):
                raise
            return BadSample(int(number) % len(self), str(error))

    def is_skipped(self, error: UserError) -> bool:
        """Whether a row is skipped because of an error."""
        return self.skip_answers if isinstance(error, BadAnswerError) else self.skip_bad

    def read(self, number: int) -> list[Example]:
        """The examples of one row; a number beyond the last row reads a row once more, see :meth:`order`.

        Raises:
            UserError: the row is broken; names file, row and column.
        """
        row, rng = number % len(self), self.generator(number)
        shared: dict[Any, Loaded] = {}
        with row_errors(self.table, row):
            return [self._read(name, record, row, rng, shared) for name, record in self.made(row, rng)]

    def generator(self, number: int) -> np.random.Generator:
        """The generator of random numbers for a row; each further pass over the rows has its own."""
        which = [self.number] if self.number else []  # the first stream is read as a plain data set
        return np.random.default_rng([self.seed, self.epoch, number, *which])

    def _read(
        self, name: str, record: Mapping[str, Any], row: int, rng: np.random.Generator, shared: dict[Any, Loaded]
    ) -> Example:
        """One example of a row; ``shared`` keeps loaded media for the row's further examples."""
        instruction = self.draw(self.instructions[name], rng)
        media: list[tuple[str, Tensor]] = []
        seen: Counter[Any] = Counter()  # a column that an instruction names twice is loaded twice
        geometry: dict[str, Geometry] = {}
        written: list[tuple[Slot, Any]] = []  # encoded when the geometry of all media is known
        for slot in instruction.source:
            if slot.modality not in self.loaders:
                written.append((slot, self.value(slot, record, row, rng)))
                continue
            kind = MODALITIES[slot.modality]
            assert kind.media is not None, "a loader without media"
            cell = self.cell(slot.column, record, row)
            medium = slot.modality, *slot.attributes.items(), id(cell)
            seen[medium] += 1
            key = medium, seen[medium]
            if key not in shared:
                load = partial(self.loaders[slot.modality], rng=rng, train=self.is_train)
                shared[key] = load_media(cell, load, kind.media.takes, self.table, row, str(slot.column))
            loaded = shared[key]
            media.append((kind.key, loaded.values))
            if loaded.geometry is not None:
                geometry[str(slot.column)] = loaded.geometry
        source: list[int] = []
        cuts = 0  # texts cut to their limit
        for slot, value in written:
            ids, cut = self.encode(slot, value, Context(self.limits.source, geometry), row)
            source += ids
            cuts += cut
        tokens, loss, references, target_cuts, empty, conf, is_outside = self.read_target(name, instruction, record, row, rng, geometry)
        predicted = predicted_slot(instruction)
        vocabulary, target = self.vocabulary, self.targets[predicted.modality]
        given = loss.index(True) if True in loss else len(tokens)
        silent = given + int(predicted.attributes.get("loss_from", 0))
        learned = {i for i, keep in enumerate(loss) if keep and i >= silent}
        limit = self.limits.source_tokens
        cuts += target_cuts + (len(source) > limit)
        source = source[:limit]
        return Example(
            row=row,
            stream=self.number,
            source=torch.tensor([vocabulary.bos, *source, vocabulary.eos]),
            prev_output=torch.tensor([vocabulary.bos, *tokens]),
            target=torch.tensor([*(t if i in learned else vocabulary.pad for i, t in enumerate(tokens)), vocabulary.eos]),
            prefix=torch.tensor(tokens[:given], dtype=torch.long),
            media=media,
            references=references,
            truncated=cuts,
            empty=empty,
            conf=conf,
            is_outside=is_outside,
            geometry=geometry if target.needs_geometry else {},
            loss_span=target.span if target.limits_loss else None,
            has_codes=target.has_code_positions,
        )

    def target_room(self, target: Target, count: int, row: int) -> int:
        """Most tokens that a target, here one of ``count``, may have; a target of fixed length is never truncated.

        Raises:
            UserError: the prefix leaves no room for a target of fixed length.
        """
        limit = self.limits.target_tokens
        if target.length is None or count <= max(limit, target.length):
            return max(limit, target.length or 0)
        reason = f"the target has {counted(count, 'token')}, and {limit} fit: shorten what is given before the prediction"
        raise UserError(f"{self.table.where(row)}: {reason}")

    def read_target(
        self,
        name: str,
        instruction: Instruction,
        record: Mapping[str, Any],
        row: int,
        rng: np.random.Generator,
        geometry: Mapping[str, Geometry],
    ) -> TargetTokens:
        """The tokens of the target, and what belongs to them."""
        pieces: list[Piece] = []
        references: list[str] = []
        empty = truncated = 0
        conf, is_outside = None, False
        for slot in instruction.target:
            if slot.attributes.get("after_eos"):
                pieces.append(Piece([self.vocabulary.eos], has_loss=False, is_whole=True))
            if has_loss(slot):
                if not self.with_target:
                    break
                found = self.slot_references(slot, record, row)
                references, conf = found.texts, found.conf
                empty += found.blank + found.unlearned
                value = self.draw(found.values, rng)
            else:
                value = self.value(slot, record, row, rng)
            ids, cut = self.encode(slot, value, Context(self.limits.target, geometry), row)
            if has_loss(slot) and self.is_outside(ids, name):
                is_outside = True
                if self.is_train and name not in self.unlimited:
                    raise self.bad_answer(slot, value, row)
            pieces.append(Piece(ids, has_loss(slot), is_whole=has_loss(slot)))
            truncated += cut
        count = sum(len(piece.ids) for piece in pieces)
        room = self.target_room(self.targets[predicted_slot(instruction).modality], count, row)
        tokens, loss = fit(pieces, room)
        return TargetTokens(tokens, loss, references, truncated + (count > room), empty, conf, is_outside)

    def is_outside(self, ids: Sequence[int], name: str = ONLY) -> bool:
        """Whether token ids to predict are none of the candidate answers, or the instruction of this name has none."""
        return self.candidates is not None and (name in self.unlimited or tuple(ids) not in self.candidates)

    def bad_answer(self, slot: Slot, value: Any, row: int, more: str = "") -> BadAnswerError:
        """The error of a row whose answer is no candidate; ``more`` is added about other rows."""
        assert self.candidates is not None, "an answer outside of nothing"
        reason = f"{value!r} is none of the {counted(len(self.candidates), 'candidate answer')}"
        advice = "" if self.skip_answers else "; --on-bad-answer skip leaves such rows out"
        return BadAnswerError(f"{self.table.where(row, slot.column)}: {reason}{more}{advice}")

    def value(self, slot: Slot, record: Mapping[str, Any], row: int, rng: np.random.Generator) -> Any:
        """The value of a slot to encode as ids: of several, a random one in training, the first in evaluation."""
        if slot.is_plain:
            return slot.text
        return self.draw(self.targets[slot.modality].alternatives(self.values(slot, record, row), slot), rng)

    def encode(self, slot: Slot, value: Any, context: Context, row: int) -> tuple[list[int], bool]:
        """Ids of a value, and whether it was truncated."""
        with cell_errors(self.table, row, slot.column):
            return self.targets[slot.modality].encode(value, slot, context)

    def draw(self, alternatives: Sequence[T], rng: np.random.Generator) -> T:
        """One of several values: a random one in training, the first in evaluation."""
        return alternatives[int(rng.integers(len(alternatives))) if self.is_train and len(alternatives) > 1 else 0]

    def values(self, slot: Slot, record: Mapping[str, Any], row: int) -> list[Any]:
        """All values in a slot's cell."""
        assert slot.column is not None
        cell = self.cell(slot.column, record, row)
        with cell_errors(self.table, row, slot.column):
            return self.targets[slot.modality].values(cell, is_joined(self.table))

    def slot_references(self, slot: Slot, record: Mapping[str, Any], row: int) -> References:
        """The values of a predicted slot."""
        assert slot.column is not None
        cell = self.cell(slot.column, record, row)
        with cell_errors(self.table, row, slot.column):
            return self.targets[slot.modality].references(cell, slot, is_joined(self.table))

    def cell(self, column: str | None, record: Mapping[str, Any], row: int) -> Any:
        """A row's value; rows of a JSONL table may lack columns that the first row has."""
        assert column is not None
        if column not in record:
            raise UserError(f"{self.table.where(row, column)}: no such column; the row has {', '.join(map(repr, record))}")
        return record[column]

    def check_rows(self) -> list[list[str]]:
        """Check every row without decoding media: its texts are valid, and the files that it names exist.

        Returns:
            The references of every example.

        Raises:
            UserError: the first row that cannot be used; names file, row and column.
        """
        return self._references(check=True)

    def references(self) -> list[list[str]]:
        """The references of every example, for metrics that need corpus statistics; reads no media."""
        return self._references(check=False)

    def where_reference(self, number: int) -> str:
        """File, row, line and column of one of :meth:`references`, for messages."""
        row, _, instruction, _ = list(self._evaluated())[number]
        return self.table.where(row, predicted_slots(instruction)[0].column)

    def readable_references(self) -> list[list[str]]:
        """As :meth:`references`, without the rows that have none."""
        found = []
        for row in range(len(self)):
            with contextlib.suppress(UserError):  # what is wrong with the row is told when it is read
                for name, record in self.made(row, self.generator(row)):
                    found.append(self.slot_references(predicted_slots(self.instructions[name][0])[0], record, row).texts)
        return found

    def _references(self, check: bool) -> list[list[str]]:
        references, empty, outside = [], 0, 0
        for row, name, instruction, record in self._evaluated():
            predicted = predicted_slots(instruction)
            others = [slot for slot in instruction.slots if not slot.is_plain and slot not in predicted]
            found = self.slot_references(predicted[0], record, row)
            references.append(found.texts)
            empty += found.blank
            kind = self.targets[predicted[0].modality]
            if check and not fits_headers(kind, predicted[0], found.values[0], instruction, record, self.table, row):
                self.read(row)
            if check and self.candidates is not None and name not in self.unlimited:
                outside += self.is_outside(self.encode(predicted[0], found.values[0], Context(self.limits.target), row)[0])
            for slot in predicted[1:] if check else ():
                self.slot_references(slot, record, row)
            for slot in others if check else ():
                self._check_cell(slot, record, row)
        warn_of_empty(empty, self.table)
        if outside:
            said = f"the answers of {counted(outside, 'row')} are no candidates; their loss is over the whole vocabulary"
            logger.warning("%s: %s", self.table.path, said)
        return references

    def _evaluated(self) -> Iterator[tuple[int, str, Instruction, Mapping[str, Any]]]:
        """Row, name and first alternative of the instruction, and record of every example, as evaluation has them."""
        for row in range(len(self)):
            for name, record in self.made(row, self.generator(row)):
                yield row, name, self.instructions[name][0], record

    def _check_cell(self, slot: Slot, record: Mapping[str, Any], row: int) -> None:
        assert slot.column is not None
        if slot.modality not in self.loaders:
            self.values(slot, record, row)
            return
        with row_errors(self.table, row, slot.column):
            check_media(self.cell(slot.column, record, row), self.table, row, slot.column)

    def collater(self, samples: list[Sample]) -> dict[str, Any]:
        """Batch rows; see :func:`unival.data.collate.collate`.  ``skipped`` has the messages of rows that are left out."""
        examples = [example for sample in samples if not isinstance(sample, BadSample) for example in sample]
        skipped = [sample.message for sample in samples if isinstance(sample, BadSample)]
        return {**collate(examples, self.vocabulary.pad), "split": self.split, "skipped": skipped}

    def num_tokens(self, index: int) -> int:
        """An upper bound in words; only logged."""
        return self.limits.source + self.limits.target

    def size(self, index: int) -> int:
        """As :meth:`num_tokens`."""
        return self.num_tokens(index)
