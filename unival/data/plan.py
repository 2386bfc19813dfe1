"""How the rows of an epoch become batches of all processes.

Batch ``i`` of a plan is for rank ``i % ranks`` in round ``i // ranks``.  If the number of batches of one stream is not a multiple of the
number of processes, fairseq replaces the missing batches by a copy of another, whose gradient it then weighs wrongly.  Here, the rows of
the last update (or the last two, if one has too few) are spread evenly instead: see :func:`spread`.  Batches of several streams are made by
:func:`mix`; those of bounded epochs by :mod:`unival.data.bounded`.
"""

import math
from collections.abc import Sequence
from typing import TypedDict

import numpy as np

Rows = np.ndarray  # row numbers within a mixture, int64


class Segment(TypedDict):
    """A part of an epoch that was trained with the same settings; the rest of the epoch depends on all earlier segments."""

    ranks: int
    update_freq: int
    batch_size: int
    rounds: int


def mix(orders: Sequence[Rows], ranks: int, size: int) -> list[Rows]:
    """Make batches of ``size`` rows from several streams: batch ``i`` is for rank ``i % ranks`` in round ``i // ranks``.

    Every stream is cut into pieces with one row for each rank.  The pieces of all streams are merged so that each stream is spread evenly
    over the epoch, and ``size`` pieces form a round (the last may have fewer): in a round, all ranks have the same number of rows of each
    stream.  The last rows of a stream, if too few for a piece, are not read in this epoch.
    """
    counts = [len(order) // ranks for order in orders]
    pieces = np.concatenate([order[: count * ranks].reshape(count, ranks) for order, count in zip(orders, counts, strict=True)])
    places = np.concatenate([(np.arange(count) + 0.5) / max(count, 1) for count in counts])
    merged = pieces[places.argsort(kind="stable")]  # pieces x ranks
    return [batch for i in range(0, len(merged), size) for batch in merged[i : i + size].T]


def cut(rows: Rows, size: int) -> list[Rows]:
    """Cut rows into batches of ``size``, in order."""
    return [rows[i : i + size] for i in range(0, len(rows), size)]


def joined(batches: Sequence[Rows]) -> Rows:
    """Concatenate the rows of batches, of which there may be none."""
    return np.concatenate([np.arange(0), *batches])


def first_batches(orders: list[Rows], size: int) -> list[Rows]:
    """The batches of a single stream; several streams are returned uncut, :func:`mix` makes their batches."""
    return cut(orders[0], size) if len(orders) == 1 else orders


def shuffled(batches: Sequence[Rows], seed: int) -> list[Rows]:
    """The batches shuffled as fairseq's iterator does it with this seed."""
    order = list(batches)
    np.random.RandomState(seed).shuffle(order)  # type: ignore[arg-type]  # a list is shuffled in place
    return order


def spread(batches: list[Rows], ranks: int, update_freq: int) -> list[Rows]:
    """Give every rank the same number of batches, none empty: batch ``i`` is for rank ``i % ranks`` in round ``i // ranks``.

    If their number is a multiple of ``ranks``, batches stay as they are.  Else the rows of the last update are spread evenly over its
    rounds; if these are fewer than the ranks, those of the last two updates are.  All earlier updates have the same rows as on one process
    with ``update_freq * ranks``.  Only batches of one row may become larger.  With fewer rows than ranks, some batches are empty.
    """
    if len(batches) % ranks == 0:
        return batches
    per_update = ranks * update_freq
    start = len(batches) // per_update * per_update
    while True:
        rows = np.concatenate(batches[start:])
        rounds = min(math.ceil((len(batches) - start) / ranks), len(rows) // ranks)
        if rounds or not start:
            return batches[:start] + np.array_split(rows, max(rounds, 1) * ranks)
        start -= per_update
