"""Several examples in a row: ``{"image": "a.jpg", "question": ["what is it?", "how many?"], "answer": ["a dog", "2"]}``."""

from collections.abc import Collection, Sequence
from typing import Any

import numpy as np

from unival.data.builders.base import ONLY, Builder, Made, Record
from unival.data.cells import is_joined
from unival.data.table import Table
from unival.errors import UserError


def grouped(record: Record, table: Table, rng: np.random.Generator) -> Sequence[Made]:
    """One example per place in the row's lists, which are equally long; other cells belong to all of them.

    Four numbers are a box, not a list.  A row without lists is one example.  Where an example has several references, its place holds a
    list of them: ``"answer": [["yes", "yes", "no"], ["2"]]``.

    Raises:
        UserError: lists have different lengths, or the table cannot have lists.
    """
    if is_joined(table):
        raise UserError("the builder 'grouped' reads lists, which only JSON lines have: give a .jsonl table")
    return [(ONLY, each) for each in places(record)]


def places(record: Record, columns: Collection[str] | None = None) -> list[dict[str, Any]]:
    """One record per place of the lists of a record, those in ``columns`` (default: all); other cells belong to all of them.

    Raises:
        UserError: the lists have different lengths.
    """
    lists = {column: cell for column, cell in record.items() if has_places(cell) and (columns is None or column in columns)}
    lengths = {column: len(cell) for column, cell in lists.items()}
    if len(set(lengths.values())) > 1:
        said = ", ".join(f"{column!r} has {length}" for column, length in lengths.items())
        raise UserError(f"the lists of a row must be equally long, one place per example: {said}")
    count = next(iter(lengths.values()), 1)
    return [{**record, **{column: cell[i] for column, cell in lists.items()}} for i in range(count)]


def has_places(cell: object) -> bool:
    """Whether a cell is a list with a place for each example; one of numbers is a box."""
    return isinstance(cell, list) and not (cell and all(isinstance(item, int | float) for item in cell))


GROUPED = Builder(grouped)
