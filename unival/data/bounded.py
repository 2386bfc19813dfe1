"""The plan of epochs of bounded length over several streams: how many rows of each a batch has, and which.

An epoch reads a number of rows, not a whole table.  Every stream has a share of the rows and is walked through pass by pass: an epoch goes
on where the last one ended, and no row is read twice before all rows of its stream were read.

A round is one batch on every process (rank).  It consists of pieces: a piece is one row of one stream for each rank, so that all ranks
have the same number of rows of each stream.  After every round the number of pieces of each stream differs by less than one from what its
share promises, from the first epoch on, also while shares change: see :func:`deal`.

All counts are integers (a share is a multiple of 1 / :data:`WHOLE`), so that a plan that is resumed anywhere is the uninterrupted one, bit
for bit.  What is needed to resume is a :class:`Position`, whatever the number of ranks, the batch size or the shares were before.
"""

import dataclasses
import heapq
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from unival.data.order import OrderedRows
from unival.data.plan import Batches, Segment, by_rounds
from unival.errors import UserError

WHOLE = 720_720_000  # a share of 1: thousandths and fractions to 1/16 are exact; an epoch may have more than 10**10 rows
PLACE = 40  # bits of a row number below those of its stream's place in the mixture

Shares = Sequence[float] | Callable[[int], Sequence[float]]  # or a function of the number of updates done


@dataclass(frozen=True)
class SharesByEpoch:
    """Shares that are decided anew for every epoch.

    Attributes:
        decide: numbers from which the shares of an epoch follow; called once, when the epoch (from 1) is planned, and kept in checkpoints.
        shares: the shares that follow from these numbers.
    """

    decide: Callable[[int], Sequence[float]]
    shares: Callable[[Sequence[float]], Shares]


@dataclass(frozen=True)
class Position:
    """How far the streams have been read.

    Attributes:
        updates: number of updates done.
        read: rows of each stream that were read, in all passes.
        owed: rows that its shares have promised each stream so far and that were not read, times :data:`WHOLE`; negative: too many were.
        left: rows of the epoch still to be read; None: all.
        epoch: the epoch, from 1.
    """

    updates: int
    read: tuple[int, ...]
    owed: tuple[int, ...]
    left: int | None = None
    epoch: int = 1


class BoundedPlan:
    """Plans epochs of ``rows_per_epoch`` rows.

    Args:
        streams: the streams.
        shares: the share of each stream, in any unit: their sum is the whole; or a function that gives them for the update after so many;
            either may be decided by epoch.
        rows_per_epoch: rows of an epoch on all ranks together; whole pieces are read, and what is left over adds to no other epoch.

    Attributes:
        whole_updates: an epoch ends with its last whole update; the rows of the rest are read in the next one.

    Raises:
        UserError: shares are not one number per stream, are negative, or have no sum above 0.
    """

    def __init__(self, streams: Sequence[OrderedRows], shares: Shares | SharesByEpoch, rows_per_epoch: int):
        if rows_per_epoch < 1:
            raise UserError(f"{rows_per_epoch} rows per epoch: expected at least 1")
        self.streams = list(streams)
        self.shares = shares
        self.rows_per_epoch = rows_per_epoch
        self.whole_updates = False
        self._known = 1, self.start()  # an epoch, and where it begins or is resumed
        self._decided: dict[int, list[float]] = {}  # epoch -> numbers from which its shares follow
        self._counted: tuple[Position, Segment, np.ndarray] | None = None  # the last result of counts
        self.weights([0])

    def start(self) -> Position:
        """Where the first epoch begins."""
        nothing = (0,) * len(self.streams)
        return Position(0, nothing, nothing)

    def shares_of(self, epoch: int) -> Shares:
        """The shares of an epoch; decides them if they are decided by epoch and were not."""
        if not isinstance(self.shares, SharesByEpoch):
            return self.shares
        if epoch not in self._decided:
            self._decided[epoch] = list(map(float, self.shares.decide(epoch)))
        return self.shares.shares(self._decided[epoch])

    def weights(self, updates: Sequence[int], epoch: int = 1) -> np.ndarray:
        """The shares in updates of an epoch, by the number of updates before each: ``n x streams``, integers whose sum is :data:`WHOLE` in
        each row."""
        given = self.shares_of(epoch)
        each = [given(number) for number in updates] if callable(given) else [given]
        shares = np.asarray(each, dtype=np.float64)
        sums = shares.sum(-1) if shares.shape == (len(each), len(self.streams)) else np.array([np.nan])
        if not (np.isfinite(sums).all() and (sums > 0).all() and (shares >= 0).all()):
            raise UserError(f"shares of {len(self.streams)} streams: expected as many numbers, none negative and not all 0, got {each[0]}")
        bounds = np.rint(np.cumsum(shares / sums[:, None], axis=1) * WHOLE).astype(np.int64)
        bounds[:, -1] = WHOLE
        weights = np.diff(bounds, axis=1, prepend=0)
        return weights if callable(given) else weights.repeat(len(updates), axis=0)

    def sizes(self, segment: Segment, left: int | None = None) -> np.ndarray:
        """Pieces of each round of an epoch of which ``left`` rows are left (default: all); the last round may have fewer."""
        pieces = max(1, (self.rows_per_epoch if left is None else left) // segment["ranks"])
        update = segment["batch_size"] * segment["update_freq"]
        if self.whole_updates and pieces > update:
            pieces -= pieces % update
        sizes = np.full(math.ceil(pieces / segment["batch_size"]), segment["batch_size"])
        sizes[-1] = pieces - sizes[:-1].sum()
        return sizes

    def length(self, segment: Segment) -> int:
        """Rounds of a whole epoch."""
        return len(self.sizes(segment))

    def position(self, epoch: int, setting: Callable[[int], Segment]) -> Position:
        """Where an epoch begins or is resumed, if all epochs after the last known position have the settings that ``setting`` gives."""
        known, position = self._known
        if epoch < known:
            known, position = 1, self.start()
        for number in range(known, epoch):
            position = self.after(position, setting(number))
        self._known = epoch, position
        return position

    def counts(self, position: Position, segment: Segment) -> np.ndarray:
        """Pieces of each stream in every remaining round of an epoch: ``rounds x streams``."""
        key = segment.copy()
        key["rounds"] = 0
        if self._counted is None or self._counted[:2] != (position, key):
            sizes = self.sizes(segment, position.left)
            of_round = np.arange(len(sizes)) // segment["update_freq"]
            weights = self.weights(range(position.updates, position.updates + int(of_round[-1]) + 1), position.epoch)
            counts = deal(position.owed, weights, of_round, sizes, segment["ranks"])
            self._counted = position, key, counts
        return self._counted[2]

    def after(self, position: Position, segment: Segment, rounds: int | None = None) -> Position:
        """The position some rounds (default: all that are left, so that the next epoch begins) after another one."""
        counts, ranks, freq = self.counts(position, segment), segment["ranks"], segment["update_freq"]
        done = counts[:rounds]
        pieces = done.sum(0)
        of_round = np.arange(len(done)) // freq
        updates = math.ceil(len(done) / freq)
        numbers = range(position.updates, position.updates + updates)
        weights = self.weights(numbers, position.epoch) if updates else np.zeros((0, len(pieces)), np.int64)
        by_update = np.bincount(of_round, weights=done.sum(1), minlength=updates).astype(np.int64)
        promised = by_update @ weights - pieces * WHOLE
        left = (self.rows_per_epoch if position.left is None else position.left) - ranks * int(pieces.sum())
        is_over = rounds is None or len(done) == len(counts)
        return Position(
            updates=position.updates + updates,
            read=tuple(read + ranks * int(count) for read, count in zip(position.read, pieces, strict=True)),
            owed=tuple(owed + ranks * int(more) for owed, more in zip(position.owed, promised, strict=True)),
            left=None if is_over else left,
            epoch=position.epoch + is_over,
        )

    def batches(self, position: Position, segment: Segment) -> Batches:
        """The remaining batches of an epoch, a stream's rows together: batch ``i`` is for rank ``i % ranks`` in round ``i // ranks``."""
        counts, ranks = self.counts(position, segment), segment["ranks"]
        bounds = np.concatenate([[0], counts.sum(1).cumsum()])
        pieces = np.empty((int(bounds[-1]), ranks), dtype=np.int64)
        starts = bounds[:-1]
        for place, (stream, count) in enumerate(zip(self.streams, counts.T, strict=True)):
            ends = count.cumsum()
            within = np.arange(int(ends[-1])) - (ends - count).repeat(count)
            rows = stream.walk(position.read[place], len(within) * ranks)
            pieces[starts.repeat(count) + within] = (rows + (place << PLACE)).reshape(-1, ranks)
            starts = starts + count
        return by_rounds(pieces, segment["batch_size"])

    def saved(self, position: Position) -> dict[str, Any]:
        """A position as checkpoints have it, which say the epoch themselves; with what was decided for the epoch."""
        saved = dataclasses.asdict(position)
        decided = self._decided.get(saved.pop("epoch"))
        return saved if decided is None else {**saved, "decided": decided}

    def load(self, epoch: int, saved: dict[str, Any]) -> None:
        """Take a saved position, where an epoch begins or is resumed."""
        self._known = epoch, Position(saved["updates"], tuple(saved["read"]), tuple(saved["owed"]), saved["left"], epoch)
        self._decided = {epoch: list(saved["decided"])} if "decided" in saved else {}


def deal(owed: Sequence[int], weights: np.ndarray, of_round: np.ndarray, sizes: np.ndarray, ranks: int) -> np.ndarray:
    """Deal the pieces of rounds to streams so that after every round each stream has what its share promises, to less than one piece.

    In a round of n pieces, a stream with the share w gets floor(n w).  What is missing to n is dealt one by one: a stream can take its next
    piece from the round on in which its share reaches into this piece, and must have it by the round in which its share has reached its
    end.  The stream whose piece is due first takes it.  Earliest due date first is known to meet all dates if that is possible at all, and
    it is, since pieces of fractions meet them.

    Args:
        owed: rows that each stream has still to get from before, times :data:`WHOLE`; their sum is 0.
        weights: ``updates x streams``, shares times :data:`WHOLE`.
        of_round: the update of every round.
        sizes: the pieces of every round.
        ranks: rows in a piece.

    Returns:
        The pieces of each stream in every round: ``rounds x streams``.
    """
    counts = np.empty((len(sizes), len(owed)), dtype=np.int32)
    opens, dues = [], []
    piece = ranks * WHOLE
    for stream, debt in enumerate(owed):
        promised = weights[of_round, stream] * sizes
        counts[:, stream] = promised // WHOLE
        reached = debt + ranks * np.cumsum(promised % WHOLE)
        ends = np.arange(1, max(0, -(-int(reached[-1]) // piece)) + 1) * piece  # of its pieces
        opens.append(np.searchsorted(reached, ends - piece, side="right"))
        dues.append(np.searchsorted(reached, ends) * len(owed) + stream)
    missing = sizes - counts.sum(1)
    if missing.any():
        opening = np.concatenate(opens)
        order = opening.argsort(kind="stable")
        taken = earliest(opening[order], np.concatenate(dues)[order], missing)
        np.add.at(counts, (np.arange(len(sizes)).repeat(missing), taken % len(owed)), 1)
    return counts


def earliest(opening: np.ndarray, due: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """Take, in every round, the wanted number of those that are open and were not taken, of which the earliest due first.

    Args:
        opening: rounds in which each opens, ascending.
        due: a number for each, the lower the earlier.
        wanted: how many each round takes.

    Returns:
        What was taken, by its number in ``due``, in order.
    """
    taken = np.empty(int(wanted.sum()), dtype=np.int64)
    rest = zip(opening.data, due.data, strict=True)
    opens, number = next(rest, (len(wanted), 0))
    ready: list[int] = []
    done = 0
    for now, count in enumerate(wanted.data):
        while opens <= now:
            heapq.heappush(ready, number)
            opens, number = next(rest, (len(wanted), 0))
        for _ in range(count):
            taken[done] = heapq.heappop(ready)
            done += 1
    return taken
