"""What is made of a row before it is read: negatives, spans to fill in, several questions about one image.

A builder takes a row and gives what its examples are read from: pairs of an instruction of the stream, by its name, and a record that may
be the row's own, changed or new.  Examples of one row share the media that they have in common.

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
Made = tuple[str, Record]  # the name of an instruction, and what is read through it


@dataclass(frozen=True)
class Builder:
    """Makes records of a row.

    ``build`` is given the row, its table (to take from other rows) and the row's generator, the only source of randomness; it returns one
    pair or several.  ``columns`` are those that its records have besides the table's.
    """

    build: Callable[[Record, Table, np.random.Generator], Sequence[Made]]
    columns: tuple[str, ...] = ()


ONLY = ""  # the name of an instruction that has none: the only one of its stream


def plain(record: Record, table: Table, rng: np.random.Generator) -> Sequence[Made]:
    """The row as it is, through the only instruction."""
    return [(ONLY, record)]


BUILDERS: dict[str, Builder] = {"plain": Builder(plain)}


def builder_of(name: str) -> Builder:
    """A builder by its name.

    Raises:
        UserError: there is none.
    """
    if name not in BUILDERS:
        raise UserError(f"builder {name!r}: there is none; available: {', '.join(BUILDERS)}")
    return BUILDERS[name]
