"""The builder of a stream at work: it makes the records of rows, and its mistakes name the row."""

import logging
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from unival.data.builders.base import Builder, Made
from unival.data.builders.grouped import has_places
from unival.data.builders.negatives import Reading, check_negatives
from unival.data.cells import cell_errors, is_joined
from unival.data.table import Table
from unival.errors import UserError
from unival.instructions import Instruction
from unival.modalities.target import Context, Target, predicted_slots

logger = logging.getLogger(__name__)

GROUPS = "--builder grouped makes an example of each place"
LOOKED_AT = 100  # first rows of a table


class Maker:
    """Makes the records of a table's rows.

    Args:
        builder: the builder.
        name: its name, for messages.
        table: the rows.
        instructions: the stream's, by name, with their alternatives.
        targets: what encodes the slots of modalities without media, by name.
        words: longest source text in words.

    Raises:
        UserError: the builder needs wrong texts, and the table has none.
    """

    def __init__(
        self,
        builder: Builder,
        name: str,
        table: Table,
        instructions: Mapping[str, Sequence[Instruction]],
        targets: Mapping[str, Target],
        words: int,
    ):
        self.builder = builder
        self.table = table
        self.names = tuple(instructions)
        if builder.reads_rows and not is_joined(table):
            for alternatives in instructions.values():
                _check_pairs(table, _paired(alternatives, targets))
        self.more: tuple[Any, ...] = ()  # further arguments of the builder's function
        if builder.negatives is not None and builder.negatives.instruction in instructions:
            column = builder.negatives.column
            alternatives = instructions[builder.negatives.instruction]
            slots = [slot for each in alternatives for slot in each.source if slot.column == column]
            if len(slots) < len(alternatives):
                missing = f"the builder {name!r} replaces {column}s by wrong ones here: the source needs [TEXT:{column}]"
                lacking = next(each for each in alternatives if all(slot.column != column for slot in each.source))
                raise lacking.error(lacking.source[0], missing)
            reading = Reading(tuple((targets[slot.modality], slot) for slot in slots), Context(words))
            check_negatives(builder, name, table, reading)
            self.more = (reading,)

    def __call__(self, row: int, rng: np.random.Generator) -> Sequence[Made]:
        """The builder's pairs (name of an instruction, record) for a row.

        Raises:
            UserError: the row is broken, or the builder makes nothing of it that the stream can read.
        """
        record = self.table[row]
        with cell_errors(self.table, row, None):
            pairs = list(self.builder.build(record, self.table, rng, *self.more))  # build may be a generator
        if not pairs:
            raise UserError(f"{self.table.where(row)}: its builder makes no example of it")
        for name, _ in pairs:
            if name not in self.names:
                have = ", ".join(map(repr, self.names))
                raise UserError(f"{self.table.where(row)}: its builder names the instruction {name!r}; the stream has {have}")
        return pairs


def _paired(alternatives: Sequence[Instruction], targets: Mapping[str, Target]) -> set[tuple[str, str]]:
    """Columns of what is given as tokens, each with the columns that are predicted."""
    slots = [slot for each in alternatives for slot in each.slots if slot.modality in targets and slot.column is not None]
    predicted = {slot.column for each in alternatives for slot in predicted_slots(each)}
    return {(str(slot.column), str(column)) for slot in slots for column in predicted if slot.column not in predicted}


def _check_pairs(table: Table, columns: set[tuple[str, str]]) -> None:
    """Refuse rows of lists that belong together, of which each would be drawn by itself.

    Lists of references are as long as it happens: only where both lists are equally long in all of the first rows, and not in all of
    them the same length, do their places belong together.  Where all have one length they may be either, which is logged.

    Raises:
        UserError: the table has such rows.
    """
    rows = [record for row in range(min(LOOKED_AT, len(table)) if columns else 0) if (record := _readable(table, row))]
    for given, predicted in columns:
        lengths = [_lengths(record, given, predicted) for record in rows]
        found = [pair for pair in lengths if pair is not None]
        if not found or any(a != b for a, b in found):
            continue
        if len(set(found)) == 1:
            if found[0][0] > 1:
                said = f"{given!r} and {predicted!r} have lists of {found[0][0]} in the first rows, of which one each is drawn by itself"
                logger.warning("%s: %s; %s", table.path, said, GROUPS)
            continue
        where = table.where(next(i for i, pair in enumerate(lengths) if pair is not None))
        several = f"{given!r} and {predicted!r} have lists of the same length, and one of each would be drawn by itself"
        raise UserError(f"{where}: {several}; {GROUPS}")


def _readable(table: Table, row: int) -> Mapping[str, Any] | None:
    try:
        return table[row]
    except UserError:  # told when it is its turn
        return None


def _lengths(record: Mapping[str, Any], given: str, predicted: str) -> tuple[int, int] | None:
    """The lengths of both cells, if they are lists of examples or references."""
    cells: list[Any] = [record.get(given), record.get(predicted)]
    return (len(cells[0]), len(cells[1])) if all(map(has_places, cells)) else None
