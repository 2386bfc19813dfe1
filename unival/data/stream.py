"""A stream: rows of one table, read through one instruction, as token ids and media tensors.

Randomness (which caption, which alternative, augmentation) comes from a generator seeded by (seed, epoch, row) and from nothing else: the
same row in the same epoch is the same example whatever the number of workers or GPUs.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

import numpy as np
import torch
from fairseq.data import FairseqDataset
from torch import Tensor

from unival.data.cells import MAX_PATH_CHARACTERS, cell_references, cell_texts, check_media, decode_media, warn_of_empty
from unival.data.collate import collate
from unival.data.example import BadSample, Example
from unival.data.table import Table, row_errors
from unival.errors import InstructionError, UserError
from unival.instructions import Instruction, Slot
from unival.modalities import MODALITIES, media_of
from unival.modalities.base import MediaLoader, MediaOptions
from unival.modalities.kinds import other_kind
from unival.modalities.text import TEXT
from unival.text import not_empty, strip_punctuation
from unival.vocab import Vocabulary

T = TypeVar("T")

NO_BATCH_SIZE = "give --batch-size: batches are counted in rows here, not in tokens (--max-tokens)"


@dataclass(frozen=True)
class TextLimits:
    """Longest texts in words (published recipes count words); a slot's own ``max_length`` wins."""

    source: int = 80
    target: int = 30
    tokens: int = 1000  # of the whole source and of the whole target; the models have 1024 positions


class Stream(FairseqDataset):
    """Reads a table through an instruction.

    Args:
        table: the rows.
        instructions: the alternatives of one instruction; training draws one per row and epoch, evaluation takes the first.
        vocabulary: text to ids.
        media: how media becomes tensors.
        limits: longest texts.
        train: draw references and augment.
        seed: with epoch and row, the only source of randomness.
        skip_bad: give :class:`BadSample` for rows that cannot be read instead of raising.
        with_target: False to read only the source side (inference on rows without answers).
    """

    def __init__(
        self,
        table: Table,
        instructions: Sequence[Instruction],
        vocabulary: Vocabulary,
        media: MediaOptions,
        limits: TextLimits,
        *,
        train: bool = False,
        seed: int = 1,
        skip_bad: bool = False,
        with_target: bool = True,
    ):
        super().__init__()
        self.table = table
        try:
            self.instructions = [i.resolve(table.columns) for i in (instructions if train else instructions[:1])]
        except InstructionError as error:
            raise error.of(table.path) from None
        self.split = ""  # the table's name among those of a run; batches carry it
        self.vocabulary = vocabulary
        self.limits = limits
        self.is_train = train
        self.seed = seed
        self.epoch = 1
        self.shard = (0, 1)  # which of how many parts of the rows evaluation takes
        self.skip_bad = skip_bad
        self.with_target = with_target
        self._check_slots()
        kinds = {slot.modality: MODALITIES[slot.modality].media for i in self.instructions for slot in i.source}
        self.loaders: dict[str, MediaLoader] = {name: kind.loader(media) for name, kind in kinds.items() if kind is not None}

    def _check_slots(self) -> None:
        for instruction in self.instructions:
            for slot in instruction.source:
                if slot.modality != TEXT.name and MODALITIES[slot.modality].media is None:
                    able = ", ".join(name for name, kind in MODALITIES.items() if kind is TEXT or kind.media)
                    raise instruction.error(slot, f"a source cannot be {slot.modality} yet; available: {able}")
            for slot in instruction.target:
                if slot.modality != TEXT.name:
                    raise instruction.error(slot, f"a target cannot be {slot.modality} yet; available: {TEXT.name}")
            if not any(has_loss(slot) for slot in instruction.target):
                raise instruction.error(
                    instruction.target[0], "nothing to predict: the target needs a slot such as [TEXT:caption]"
                )

    def __len__(self) -> int:
        return len(self.table)

    def take_shard(self, number: int, count: int) -> None:
        """In evaluation, take every ``count``-th row only, from row ``number`` on.

        Raises:
            UserError: there are fewer rows than shards.
        """
        if count > len(self):
            raise UserError(f"--num-shards {count}: {self.table.path} has {len(self)} rows only")
        self.shard = (number, count)

    def __getitem__(self, row: int) -> Example | BadSample:
        try:
            return self.read(int(row))
        except UserError as error:
            if not self.skip_bad:
                raise
            return BadSample(int(row), str(error))

    def read(self, row: int) -> Example:
        """Read one row.

        Raises:
            UserError: the row is broken; names file, row and column.
        """
        with row_errors(self.table, row):
            return self._read(row)

    def _read(self, row: int) -> Example:
        record = self.table[row]
        rng = np.random.default_rng([self.seed, self.epoch, row])
        instruction = self.draw(self.instructions, rng)
        media: list[tuple[str, Tensor]] = []
        source: list[int] = []
        cuts = 0  # texts cut to their limit
        for slot in instruction.source:
            if slot.modality in self.loaders:
                media.append((MODALITIES[slot.modality].key, self.load_media(slot, record, row, rng)))
                continue
            text = self.text(slot, record, row, rng)
            with row_errors(self.table, row, slot.column):
                ids, cut = encode_text(slot, text, self.vocabulary, self.limits.source)
            source += ids
            cuts += cut
        tokens, loss, references, empty, target_cuts = self.read_target(instruction, record, row, rng)
        vocabulary = self.vocabulary
        limit = self.limits.tokens
        cuts += target_cuts + (len(source) > limit) + (len(tokens) > limit)
        source, tokens, loss = source[:limit], tokens[:limit], loss[:limit]
        return Example(
            row=row,
            source=torch.tensor([vocabulary.bos, *source, vocabulary.eos]),
            prev_output=torch.tensor([vocabulary.bos, *tokens]),
            target=torch.tensor(
                [*(t if keep else vocabulary.pad for t, keep in zip(tokens, loss, strict=True)), vocabulary.eos]
            ),
            prefix=torch.tensor(tokens[: loss.index(True)] if True in loss else tokens, dtype=torch.long),
            media=media,
            references=references,
            truncated=cuts,
            empty=empty,
        )

    def read_target(
        self, instruction: Instruction, record: Mapping[str, Any], row: int, rng: np.random.Generator
    ) -> tuple[list[int], list[bool], list[str], int, int]:
        """Target tokens, which carry loss, the references of the predicted slot; how many of its texts are empty, how many were cut."""
        tokens: list[int] = []
        loss: list[bool] = []
        references: list[str] = []
        empty = truncated = 0
        for slot in instruction.target:
            if has_loss(slot):
                if not self.with_target:
                    break
                references, usable, blank = self.slot_references(slot, record, row)
                empty += blank + len(references) - len(usable)
                text = self.draw(usable, rng)
            else:
                text = self.text(slot, record, row, rng)
            with row_errors(self.table, row, slot.column):
                ids, cut = encode_text(slot, text, self.vocabulary, self.limits.target)
            tokens += ids
            loss += [has_loss(slot)] * len(ids)
            truncated += cut
        return tokens, loss, references, empty, truncated

    def text(self, slot: Slot, record: Mapping[str, Any], row: int, rng: np.random.Generator) -> str:
        """The text of a plain or named slot; one of several is drawn in training, the first taken in evaluation."""
        if slot.is_plain:
            assert slot.text is not None
            return slot.text
        return self.draw(self.texts(slot, record, row), rng)

    def draw(self, alternatives: Sequence[T], rng: np.random.Generator) -> T:
        """One of several at random in training, the first in evaluation."""
        return alternatives[int(rng.integers(len(alternatives))) if self.is_train else 0]

    def texts(self, slot: Slot, record: Mapping[str, Any], row: int) -> list[str]:
        """All texts in a slot's cell: a string, a list of strings (JSONL), or strings joined by ``&&`` (TSV)."""
        assert slot.column is not None
        return cell_texts(self.cell(slot.column, record, row), self.table, row, slot.column)

    def slot_references(self, slot: Slot, record: Mapping[str, Any], row: int) -> tuple[list[str], list[str], int]:
        """The texts of a predicted slot, less blank ones; those with words after normalisation, at least one; how many are blank."""
        assert slot.column is not None
        references, blank = cell_references(self.cell(slot.column, record, row), self.table, row, slot.column)
        usable = not_empty(references, partial(words_of, slot))
        if not usable:
            reason = "is empty once normalised, and cannot be learned or scored"
            raise UserError(f"{self.table.where(row, slot.column)}: {references[0][:60]!r} {reason}")
        return references, usable, blank

    def cell(self, column: str, record: Mapping[str, Any], row: int) -> Any:
        """A row's value; rows of a JSONL table may lack columns that the first row has."""
        if column not in record:
            raise UserError(
                f"{self.table.where(row, column)}: no such column; the row has {', '.join(map(repr, record))}"
            )
        return record[column]

    def load_media(self, slot: Slot, record: Mapping[str, Any], row: int, rng: np.random.Generator) -> Tensor:
        """The tensor of a media slot; errors name file, row and column."""
        assert slot.column is not None
        value = self.cell(slot.column, record, row)
        with row_errors(self.table, row, slot.column):
            data = value if isinstance(value, bytes) else decode_media(value, self.table, row, slot.column)
            return self._decode(slot, value, data, row, rng)

    def _decode(self, slot: Slot, value: str | bytes, data: bytes, row: int, rng: np.random.Generator) -> Tensor:
        try:
            return self.loaders[slot.modality](data, rng, self.is_train).values
        except UserError as error:
            name = value if isinstance(value, str) and len(value) <= MAX_PATH_CHARACTERS else ""
            name = name if name.isprintable() else ascii(name)
            takes = media_of(MODALITIES[slot.modality].key).takes
            if other := other_kind(data, takes):
                what = f"{name or 'the cell'} is {other}; the instruction's slot takes {takes[0]}"
                raise UserError(f"{self.table.where(row, slot.column)}: {what}") from error
            raise UserError(f"{self.table.where(row, slot.column)}{name and f' ({name})'}: {error}") from error

    def check_rows(self) -> None:
        """Look at every row without decoding media: its texts are there, and so are the files that it names.

        Raises:
            UserError: the first row that cannot be used, with file, row and column.
        """
        instruction = self.instructions[0]
        predicted = [slot for slot in instruction.target if has_loss(slot)]
        slots = [slot for slot in instruction.slots if not slot.is_plain]
        for row in range(len(self)):
            record = self.table[row]
            for slot in slots:
                assert slot.column is not None
                if slot in predicted:
                    self.slot_references(slot, record, row)
                elif slot.modality in self.loaders:
                    with row_errors(self.table, row, slot.column):
                        check_media(self.cell(slot.column, record, row), self.table, row, slot.column)
                else:
                    self.texts(slot, record, row)

    def references(self) -> list[list[str]]:
        """The references of every row, for metrics that need corpus statistics; reads no media."""
        slot = next(slot for slot in self.instructions[0].target if has_loss(slot))
        references, empty = [], 0
        for row in range(len(self)):
            texts, _, blank = self.slot_references(slot, self.table[row], row)
            references.append(texts)
            empty += blank
        warn_of_empty(empty, self.table)
        return references

    def collater(self, samples: list[Example | BadSample]) -> dict[str, Any]:
        """Batch examples; see :func:`unival.data.collate.collate`.  ``skipped`` holds what was wrong with the rows that are left out."""
        examples = [sample for sample in samples if isinstance(sample, Example)]
        skipped = [sample.message for sample in samples if isinstance(sample, BadSample)]
        return {**collate(examples, self.vocabulary.pad), "split": self.split, "skipped": skipped}

    def set_epoch(self, epoch: int) -> None:
        """Called before the readers of an epoch start."""
        self.epoch = epoch

    def ordered_indices(self) -> np.ndarray:
        """Rows in the order of batching: a fresh permutation per epoch in training, the table's order otherwise."""
        if not self.is_train:
            number, count = self.shard
            return np.arange(number, len(self), count, dtype=np.int64)
        return np.random.default_rng([self.seed, self.epoch]).permutation(len(self)).astype(np.int64)

    def batch_by_size(
        self,
        indices: np.ndarray,
        max_tokens: int | None = None,
        max_sentences: int | None = None,
        required_batch_size_multiple: int = 1,
    ) -> list[np.ndarray]:
        """Batches of ``max_sentences`` rows; media make token counts meaningless, so ``--batch-size`` is required."""
        if max_sentences is None:
            raise UserError(NO_BATCH_SIZE)
        return [indices[i : i + max_sentences] for i in range(0, len(indices), max_sentences)]

    def num_tokens(self, index: int) -> int:
        """An upper bound in words; only logged."""
        return self.limits.source + self.limits.target

    def size(self, index: int) -> int:
        """As :meth:`num_tokens`."""
        return self.num_tokens(index)


def has_loss(slot: Slot) -> bool:
    """Whether a target slot is predicted: plain text and ``no_loss`` slots are given."""
    return not slot.is_plain and not slot.attributes.get("no_loss", False)


def encode_text(slot: Slot, text: str, vocabulary: Vocabulary, limit: int) -> tuple[list[int], bool]:
    """Ids of a slot's text, normalised as its attributes say, and whether it was cut to its limit (in words)."""
    space = "" if slot.glued else " "
    if slot.is_plain:
        return vocabulary.encode(space + text), False
    words = words_of(slot, text)
    limit = int(slot.attributes.get("max_length", limit))
    return vocabulary.encode(space + " ".join(words[:limit])) if words else [], len(words) > limit


def words_of(slot: Slot, text: str) -> list[str]:
    """The words of a slot's text, normalised as its attributes say; none where nothing is left."""
    if slot.attributes.get("no_punctuation"):
        text = strip_punctuation(text)
    if slot.attributes.get("uncased"):
        text = text.lower()
    return text.split()
