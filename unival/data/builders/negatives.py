"""Wrong texts for matching: values of other rows of the same table, drawn by random access."""

import contextlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np

from unival.data.builders.base import Builder, Record
from unival.data.cells import cell_errors
from unival.data.table import Table
from unival.errors import UserError, counted
from unival.instructions import Slot
from unival.modalities.target import Context, Target

T = TypeVar("T")
Ids = tuple[int, ...]

MOST_ROWS = 1000  # that are drawn for a wrong text, and looked at before a run; then there seems to be none
YES, NO = "yes", "no"  # whether an image and a text, a question and an answer match
SHOWN = 60  # characters of a text in a message


@dataclass(frozen=True)
class Reading:
    """What the model reads of a text in the slots of a column: cleaned and cut as these say.

    Attributes:
        slots: the slots, one per alternative of the instruction, with what encodes them.
        context: length limits.
    """

    slots: tuple[tuple[Target, Slot], ...]
    context: Context

    def __call__(self, text: str) -> tuple[Ids, ...]:
        """The token ids of a text in each of the slots."""
        return tuple(tuple(target.encode(text, slot, self.context)[0]) for target, slot in self.slots)

    def differs(self, own: Iterable[str]) -> Callable[[str], bool]:
        """A test of texts: whether the model reads something of it, and in every slot something else than of a row's own texts."""
        read = [set(ids) for ids in zip(*map(self, own), strict=True)]
        return lambda text: all(ids and ids not in known for ids, known in zip(self(text), read, strict=True))


def one_of(values: Sequence[T], rng: np.random.Generator) -> T:
    """A random one of several values."""
    return values[int(rng.integers(len(values)))]


def other_value(
    table: Table,
    rng: np.random.Generator,
    values: Callable[[Record, Table], Sequence[T]],
    fits: Callable[[T], bool],
    rows: int = MOST_ROWS,
) -> T | None:
    """A value of random rows.

    Args:
        table: the rows.
        rng: the only source of randomness.
        values: the values of a row.
        fits: whether a value can be used.
        rows: most rows to draw.

    Returns:
        A value that fits, of the first row drawn that has one; None if none has.
    """
    for _ in range(rows):
        with contextlib.suppress(UserError):  # what is wrong with another row is told when that row is read
            found = [value for value in values(table[int(rng.integers(len(table)))], table) if fits(value)]
            if found:
                return one_of(found, rng)
    return None


def none_other(column: str) -> UserError:
    """The error of a row for which no wrong text was found."""
    return UserError(f"no wrong {column} for this row in {MOST_ROWS:,} random rows: none of their texts differs from all of its own")


def check_negatives(builder: Builder, name: str, table: Table, reading: Reading) -> None:
    """Look for two rows of which one has a text that the other lacks, in rows spread evenly over the table.

    Args:
        builder: a builder with negatives.
        name: its name.
        table: the rows.
        reading: of the slots that read the texts.

    Raises:
        UserError: there are none: every row would be looked at for a wrong text in vain.
    """
    assert builder.negatives is not None
    numbers = np.linspace(0, len(table) - 1, min(len(table), MOST_ROWS)).astype(int)
    seen: dict[frozenset[tuple[Ids, ...]], str] = {}
    broken: list[str] = []
    for number in numbers:
        try:
            record = table[int(number)]
            with cell_errors(table, int(number), None):
                texts = builder.negatives.texts(record, table)
            seen.setdefault(frozenset(map(reading, texts)), texts[0])
        except UserError as error:
            broken.append(str(error))
        if len(seen) > 1:
            return
    if broken:  # what is told first, since the others may be well
        alike = f"; the others of {counted(len(numbers), 'row')} that were read have the same texts" if seen else ""
        raise UserError(broken[0] + alike)
    if seen:
        (text,) = seen.values()
        have = "the table has one row" if len(table) == 1 else f"all rows have the same, as far as {len(numbers):,} of them were read"
        column = builder.negatives.column
        raise UserError(
            f"{table.path}, column {column!r}: the builder {name!r} takes a wrong {column} from another row, and {have}:"
            f" {text[:SHOWN]!r}"
        )
