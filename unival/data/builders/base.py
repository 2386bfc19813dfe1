"""What a builder is, and the slot of a medium in its instructions."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from unival.data.table import Table
from unival.errors import UserError
from unival.modalities import media_of

T = TypeVar("T")
Record = Mapping[str, Any]
Made = tuple[str, Record]  # (name of an instruction, record to read with it)

ONLY = ""  # stands for the name of a stream's only instruction


def no_instructions(medium: str) -> dict[str, str]:
    """The instructions of a builder that has none of its own: the stream brings them."""
    return {}


@dataclass(frozen=True)
class Negatives:
    """The texts that a builder replaces by wrong ones, those of other rows.

    Attributes:
        instruction: name of the instruction that reads them.
        column: their column in its source.
        texts: the right ones of a row, called with the row and its table.
    """

    instruction: str
    column: str
    texts: Callable[[Record, Table], Sequence[str]]


@dataclass(frozen=True)
class Builder:
    """Makes records of a row.

    Attributes:
        build: called with the row, its table (for values of other rows) and the row's generator, the only source of randomness; returns
            one or more pairs.  A builder of :attr:`negatives` gets a fourth argument.
        columns: columns that its records have in addition to the table's.
        instructions: its own instructions for rows with a medium (``"image"``, ``"video"`` …), by the names that ``build`` gives; the first
            is its main one.  Empty where the stream has to bring them.
        reads_rows: whether its records are the rows as they are, whose lists are references of which one is drawn.
        negatives: texts that it replaces by wrong ones.  ``build`` gets as its fourth argument a :class:`unival.data.making.Reading`, which
            tells whether two texts are different to the model, and a table whose rows all have the same texts is refused.
    """

    build: Callable[..., Sequence[Made]]
    columns: tuple[str, ...] = ()
    instructions: Callable[[str], dict[str, str]] = no_instructions
    negatives: Negatives | None = None
    reads_rows: bool = False


def slot_of(medium: str) -> str:
    """The slot of a medium in an instruction: ``"video"`` -> ``"[VIDEO:video]"``.

    Raises:
        UserError: no modality with media has this name.
    """
    media_of(medium)
    return f"[{medium.upper()}:{medium}]"


def cell_of(record: Record, column: str, read: Callable[[Any], T]) -> T:
    """Read a cell of a record by ``read``.

    Raises:
        UserError: the record has no such column, or the cell cannot be read; names the column, the caller adds file and row.
    """
    if column not in record:
        raise UserError(f"column {column!r}: no such column; the row has {', '.join(map(repr, record))}")
    try:
        return read(record[column])
    except UserError as error:
        raise UserError(f"column {column!r}: {error}") from error
