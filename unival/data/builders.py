"""Builders make the examples of a row before it is read: negatives, spans to fill in, several questions about one image.

A builder takes a row and returns pairs (name of an instruction of the stream, record); each is read as one example.  The record may be the
row itself, a changed copy or a new one.  Examples of one row share the media that they have in common.

A builder is a function and a line in :data:`BUILDERS`, also in somebody else's package:

    def caption_and_question(record, table, rng):
        return [("caption", record), ("question", {**record, "question": "what colour is it?"})]

    BUILDERS["caption_and_question"] = Builder(caption_and_question, columns=("question",))
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from unival.data.table import Table
from unival.errors import UserError

Record = Mapping[str, Any]
Made = tuple[str, Record]  # (name of an instruction, record to read with it)


@dataclass(frozen=True)
class Builder:
    """Makes records of a row.

    Attributes:
        build: called with the row, its table (for values of other rows) and the row's generator, the only source of randomness; returns
            one or more pairs.
        columns: columns that its records have in addition to the table's.
    """

    build: Callable[[Record, Table, np.random.Generator], Sequence[Made]]
    columns: tuple[str, ...] = ()


ONLY = ""  # stands for the name of a stream's only instruction


def plain(record: Record, table: Table, rng: np.random.Generator) -> Sequence[Made]:
    """The row as it is, through the only instruction."""
    return [(ONLY, record)]


BUILDERS: dict[str, Builder] = {"plain": Builder(plain)}


def builder_of(name: str) -> Builder:
    """A builder by its name.

    Raises:
        UserError: no builder has this name.
    """
    if name not in BUILDERS:
        raise UserError(f"builder {name!r}: no such builder; available: {', '.join(BUILDERS)}")
    return BUILDERS[name]
