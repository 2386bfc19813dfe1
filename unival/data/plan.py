"""How the rows of an epoch become batches of all processes.

Batch ``i`` of a plan is for rank ``i % ranks`` in round ``i // ranks``.  If the number of batches of one stream is not a multiple of the
number of processes, fairseq replaces the missing batches by a copy of another, whose gradient it then weighs wrongly.  Here, the rows of
the last update (or the last two, if one has too few) are spread evenly instead: see :func:`spread`.  Batches of several streams are made by
:func:`mix`; those of bounded epochs by :mod:`unival.data.bounded`.
"""

import math
from collections.abc import Sequence
from typing import TypedDict, overload

import numpy as np

Rows = np.ndarray  # row numbers within a mixture, int64


class Segment(TypedDict):
    """A part of an epoch that was trained with the same settings; the rest of the epoch depends on all earlier segments."""

    ranks: int
    update_freq: int
    batch_size: int
    rounds: int


class Batches(Sequence[Rows]):
    """Batches of any sizes, in two arrays: those of an epoch of millions of rows are no millions of objects.

    Args:
        rows: the rows of all batches, one batch after the other.
        bounds: where each batch begins in ``rows``, and where the last one ends: one number more than there are batches.
    """

    def __init__(self, rows: Rows, bounds: np.ndarray):
        self._rows = rows
        self._bounds = bounds

    @classmethod
    def of(cls, batches: Sequence[Rows]) -> "Batches":
        """The batches of a list."""
        return cls(np.concatenate([np.arange(0), *batches]), np.cumsum([0, *map(len, batches)]))

    def __len__(self) -> int:
        return len(self._bounds) - 1

    @property
    def sizes(self) -> np.ndarray:
        """The number of rows of each batch."""
        return np.diff(self._bounds)

    @property
    def rows(self) -> Rows:
        """The rows of all batches."""
        return self._rows[self._bounds[0] : self._bounds[-1]]

    @overload
    def __getitem__(self, which: int) -> Rows: ...

    @overload
    def __getitem__(self, which: slice) -> "Batches": ...

    def __getitem__(self, which: int | slice) -> "Rows | Batches":
        if isinstance(which, slice):
            start, stop, step = which.indices(len(self))
            if step == 1:
                return Batches(self._rows, self._bounds[start : max(start, stop) + 1])
            return self.take(np.arange(start, stop, step))
        number = range(len(self))[which]
        return self._rows[self._bounds[number] : self._bounds[number + 1]]

    def cut_from(self, start: int, count: int) -> "Batches":
        """The batches, with the rows of those from number ``start`` on spread evenly over ``count`` batches."""
        rows, more = divmod(len(self[start:].rows), count)
        sizes = np.full(count, rows)
        sizes[:more] += 1
        return Batches(self._rows, np.concatenate([self._bounds[: start + 1], self._bounds[start] + sizes.cumsum()]))

    def take(self, order: np.ndarray) -> "Batches":
        """Some of the batches in another order."""
        sizes = self.sizes[order]
        bounds = np.concatenate([[0], sizes.cumsum()])
        return Batches(self._rows[np.arange(bounds[-1]) + (self._bounds[:-1][order] - bounds[:-1]).repeat(sizes)], bounds)


class Rounds(Sequence[list[Rows]]):
    """The batches of all ranks, round by round.

    Args:
        batches: batch ``i`` is for rank ``i % ranks`` in round ``i // ranks``.
        ranks: number of processes.
    """

    def __init__(self, batches: Batches, ranks: int):
        assert len(batches) % ranks == 0, f"{len(batches)} batches for {ranks} ranks"
        self.batches = batches
        self.ranks = ranks

    def __len__(self) -> int:
        return len(self.batches) // self.ranks

    @overload
    def __getitem__(self, which: int) -> list[Rows]: ...

    @overload
    def __getitem__(self, which: slice) -> "list[list[Rows]]": ...

    def __getitem__(self, which: int | slice) -> "list[Rows] | list[list[Rows]]":
        if isinstance(which, slice):
            return [self[number] for number in range(len(self))[which]]
        number = range(len(self))[which]
        return [self.batches[number * self.ranks + rank] for rank in range(self.ranks)]

    def of_rank(self, rank: int) -> Batches:
        """The batches of one process."""
        return self.batches[rank :: self.ranks]


def by_rounds(pieces: np.ndarray, size: int) -> Batches:
    """Make batches of pieces (``n x ranks``: a row for each rank): ``size`` pieces form a round, the last may have fewer."""
    count, ranks = pieces.shape
    full = count // size
    whole = pieces[: full * size].reshape(full, size, ranks).swapaxes(1, 2).ravel()
    rest = pieces[full * size :].T
    sizes = np.full(full * ranks + ranks * bool(rest.size), size)
    sizes[full * ranks :] = rest.shape[1]
    return Batches(np.concatenate([whole, rest.ravel()]), np.concatenate([[0], sizes.cumsum()]))


def mix(orders: Sequence[Rows], ranks: int, size: int) -> Batches:
    """Make batches of ``size`` rows from several streams: batch ``i`` is for rank ``i % ranks`` in round ``i // ranks``.

    Every stream is cut into pieces with one row for each rank.  The pieces of all streams are merged so that each stream is spread evenly
    over the epoch, and ``size`` pieces form a round (the last may have fewer): in a round, all ranks have the same number of rows of each
    stream.  The last rows of a stream, if too few for a piece, are not read in this epoch.
    """
    counts = [len(order) // ranks for order in orders]
    pieces = np.concatenate([order[: count * ranks].reshape(count, ranks) for order, count in zip(orders, counts, strict=True)])
    places = np.concatenate([(np.arange(count) + 0.5) / max(count, 1) for count in counts])
    return by_rounds(pieces[places.argsort(kind="stable")], size)


def cut(rows: Rows, size: int) -> Batches:
    """Cut rows into batches of ``size``, in order."""
    return Batches(rows, np.append(np.arange(0, len(rows), size), len(rows)))


def first_batches(orders: Sequence[Rows], size: int) -> Batches:
    """The batches of a single stream; the rows of several streams are returned uncut, :func:`mix` makes their batches."""
    return cut(orders[0], size) if len(orders) == 1 else Batches.of(orders)


def shuffled(batches: Batches, seed: int) -> Batches:
    """The batches shuffled as fairseq's iterator does it with this seed."""
    order = np.arange(len(batches))
    np.random.RandomState(seed).shuffle(order)
    return batches.take(order)


def spread(batches: Batches, ranks: int, update_freq: int) -> Batches:
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
        rows = len(batches[start:].rows)
        rounds = min(math.ceil((len(batches) - start) / ranks), rows // ranks)
        if rounds or not start:
            return batches.cut_from(start, max(rounds, 1) * ranks)
        start -= per_update
