"""Which rows form which batch, on which process, in which order: the plan of an epoch.

An epoch's batches are drawn for all processes together.  A round is one batch on every process, an update is ``--update-freq`` rounds.
Where the batches do not divide by the processes, fairseq gives some of them an empty batch, for which another one stands in whose
gradient it then weighs wrongly.  Here the rows of the last update (of the last two, where one has too few) are spread evenly instead.
"""

import logging
import math
from collections.abc import Callable, Sequence
from typing import Any, TypedDict

import numpy as np
from fairseq.data.iterators import CountingIterator, EpochBatchIterator

from unival.data.reading import Reader
from unival.data.stream import Stream
from unival.errors import UserError

logger = logging.getLogger(__name__)

Rows = np.ndarray  # numbers of rows


class Stretch(TypedDict):
    """A part of an epoch that was trained with one setting; how an epoch goes on depends on all of them."""

    ranks: int
    update_freq: int
    batch_size: int
    rounds: int


def shuffled(batches: Sequence[Rows], seed: int) -> list[Rows]:
    """The batches in the order in which fairseq's iterator shuffles them."""
    order = list(batches)
    np.random.RandomState(seed).shuffle(order)  # type: ignore[arg-type]  # a list is shuffled in place
    return order


def spread(batches: list[Rows], ranks: int, update_freq: int) -> list[Rows]:
    """As many batches for every rank, none empty: batch ``i`` is for rank ``i % ranks``, in round ``i // ranks``.

    Batches that divide by the ranks stay as they are.  Else the rows of the last update are spread evenly over its rounds, and where they
    are fewer than the ranks, those of the last two.  All updates before hold the rows that they would hold on one process with
    ``update_freq * ranks``.  Batches of one row become larger; those of more never do.  With fewer rows than ranks some are empty.
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


class EpochBatches(EpochBatchIterator):
    """fairseq's iterator over epochs, with batches planned for all processes and readers that are closed.

    Args:
        dataset: the rows, and their order in an epoch.
        batch_size: rows in a batch.
        update_freq: rounds per update, by epoch; the last one counts for all further epochs.
        workers: processes that read.
        ahead: batches to read ahead.
        pin_memory: as in :class:`unival.data.reading.Reader`.
        seed: orders the batches, with the epoch.
        ranks: processes that share the batches.
        rank: the number of this one.
        epoch: the first epoch.
        skip_remainder_batch: leave out the last round of an epoch.
        rows_by_epoch: rows of the tables that epochs train on in turn, this one among them; by default it is alone.
        dry: no batches at all.
        on_epoch: called with the iterator at the beginning of each epoch, and of what is left of one that is resumed.

    Raises:
        UserError: training with fewer rows than processes, or from a position that this table does not have.
    """

    def __init__(
        self,
        dataset: Stream,
        batch_size: int,
        *,
        update_freq: Sequence[int] = (1,),
        workers: int = 0,
        ahead: int = 0,
        pin_memory: bool = False,
        seed: int = 1,
        ranks: int = 1,
        rank: int = 0,
        epoch: int = 1,
        skip_remainder_batch: bool = False,
        rows_by_epoch: Sequence[int] = (),
        dry: bool = False,
        on_epoch: Callable[["EpochBatches"], None] | None = None,
    ):
        super().__init__(
            dataset,
            dataset.collater,
            batch_sampler=[],
            seed=seed,
            num_shards=ranks,
            shard_id=rank,
            num_workers=workers,
            epoch=epoch,
            buffer_size=ahead,
            skip_remainder_batch=skip_remainder_batch,
        )
        self.rows_by_epoch = list(rows_by_epoch) or [len(dataset)]
        fewest = min(self.rows_by_epoch)
        if dataset.is_train and fewest < ranks:
            whose = dataset.table.path if len(dataset) == fewest else f"a table that a later epoch trains on, after {dataset.table.path}"
            raise UserError(f"{whose}: {fewest} rows cannot be shared by {ranks} processes: use at most {fewest}")
        self.batch_size = batch_size
        self.update_freq = list(update_freq)
        self.pin_memory = pin_memory
        self.dry = dry
        self.on_epoch = on_epoch
        self._lengths: dict[tuple[int, int], int] = {}  # by update frequency and rows
        self._before: list[Stretch] = []  # what was trained of this epoch before it was resumed
        self._start = 0  # where the counter of rounds started

    @property
    def first_batch(self) -> None:
        """None: there are no empty batches that it would have to stand in for."""
        return None

    def __len__(self) -> int:
        """Rounds in an epoch (from its beginning)."""
        return len(self.rounds(self.epoch, self.shuffle, [])) - self.skip_remainder_batch

    @property
    def updates(self) -> int:
        """Updates in the present epoch, those before a resumption included."""
        assert self._cur_epoch_itr is not None, "no epoch was started"
        return self._updates(len(self._cur_epoch_itr), self.epoch)

    @property
    def updates_left(self) -> int:
        """Updates that are left of the present epoch."""
        assert self._cur_epoch_itr is not None, "no epoch was started"
        return self._updates(len(self._cur_epoch_itr) - self._cur_epoch_itr.n, self.epoch)

    def length(self, epoch: int) -> int:
        """Updates in a whole epoch; it does not depend on the order of the batches."""
        freq = self.rounds_per_update(epoch)
        rows = self.rows_by_epoch[(epoch - 1) % len(self.rows_by_epoch)]
        if (freq, rows) not in self._lengths:
            batches = spread(self.cut(np.arange(rows), self.batch_size), self.num_shards, freq)
            self._lengths[freq, rows] = self._updates(math.ceil(len(batches) / self.num_shards) - self.skip_remainder_batch, epoch)
        return self._lengths[freq, rows]

    def _updates(self, rounds: int, epoch: int) -> int:
        whole = rounds / self.rounds_per_update(epoch)
        return math.floor(whole) if self.skip_remainder_batch else math.ceil(whole)

    def rounds_per_update(self, epoch: int) -> int:
        """fairseq's ``--update-freq`` in an epoch."""
        return self.update_freq[min(epoch, len(self.update_freq)) - 1]

    def rounds(self, epoch: int, shuffle: bool, before: Sequence[Stretch]) -> list[list[Rows]]:
        """The batches that are left of an epoch: ``rounds x ranks``.

        ``before``: the stretches that were trained already.  What each of them left is shared out among the processes of the next one.
        """
        if self.dry:
            return []
        size = before[0]["batch_size"] if before else self.batch_size
        batches = self.cut(self.dataset.ordered_indices(), size)
        if shuffle:
            batches = shuffled(batches, self.seed + epoch)
        for stretch in before:
            if stretch["batch_size"] != size:
                size = stretch["batch_size"]
                batches = self.cut(np.concatenate(batches), size)
            batches = spread(batches, stretch["ranks"], stretch["update_freq"])[stretch["rounds"] * stretch["ranks"] :]
        if size != self.batch_size:
            batches = self.cut(np.concatenate(batches), self.batch_size)
        batches = spread(batches, self.num_shards, self.rounds_per_update(epoch))
        return [batches[i : i + self.num_shards] for i in range(0, len(batches), self.num_shards)]

    def cut(self, rows: Rows, size: int) -> list[Rows]:
        """Rows in their order -> batches."""
        return self.dataset.batch_by_size(rows, max_sentences=size)

    def next_epoch_itr(self, *args: Any, **kwargs: Any) -> CountingIterator:
        """fairseq's hook at the beginning of an epoch."""
        iterator = super().next_epoch_itr(*args, **kwargs)
        if self.on_epoch is not None:
            self.on_epoch(self)
        return iterator

    def _get_iterator_for_epoch(
        self, epoch: int, shuffle: bool, fix_batches_to_gpus: bool = False, offset: int = 0
    ) -> CountingIterator:
        """fairseq's hook; ``offset`` is where the counter starts, which batches are left follows from the state that was loaded."""
        if not offset:
            self._before = []
        self._start = offset
        mine = [batches[self.shard_id] for batches in self.rounds(epoch, shuffle, self._before)]
        largest = max(map(len, mine), default=0)
        if largest > self.batch_size:
            logger.info(
                "%d rows do not divide by %d processes: batches of %d rows end the epoch",
                len(self.dataset),
                self.num_shards,
                largest,
            )
        reader = Reader(
            self.dataset,
            self.collate_fn,
            mine,
            workers=self.num_workers,
            ahead=self.buffer_size,
            pin_memory=self.pin_memory,
        )
        iterator = CountingIterator(reader, start=offset)
        return iterator.take(len(iterator) - 1) if self.skip_remainder_batch else iterator

    def state_dict(self) -> dict[str, Any]:
        """fairseq's position, and within an epoch what another number of processes or another batch size needs to go on."""
        state = super().state_dict()
        if state["iterations_in_epoch"]:
            now = Stretch(
                ranks=self.num_shards,
                update_freq=self.rounds_per_update(self.epoch),
                batch_size=self.batch_size,
                rounds=self.iterations_in_epoch - self._start,
            )
            state["stretches"] = [*self._before, now]
            state["rows"] = len(self.dataset)
        return state

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on where a checkpoint stopped; its rounds are counted in updates, as many as they were."""
        done = state_dict.get("iterations_in_epoch", 0)
        freq = self.rounds_per_update(state_dict["epoch"])
        if done:
            same = Stretch(ranks=self.num_shards, update_freq=freq, batch_size=self.batch_size, rounds=done)
            self._before = state_dict.get("stretches") or [same]  # fairseq's own state is of the same setting
            rows = state_dict.get("rows", len(self.dataset))
            if rows != len(self.dataset):
                raise UserError(
                    f"{self.dataset.table.path} has {len(self.dataset)} rows, but had {rows} when the checkpoint was saved within an epoch:"
                    " restore the table, or give --reset-dataloader to start with the first epoch"
                )
            done = freq * sum(math.ceil(stretch["rounds"] / stretch["update_freq"]) for stretch in self._before)
        super().load_state_dict({**state_dict, "iterations_in_epoch": done})
