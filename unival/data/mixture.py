"""The plan of an epoch: which rows of which streams form a batch, for which process, in which order.

Batches are planned for all processes (ranks) together.  A round is one batch on every process; an update is ``--update-freq`` rounds.
No batch is empty, and in a round all processes have rows of the same streams, so that all use the same parts of the model, as gradient
synchronisation expects.

In training, several streams are read whole in every epoch, or as often as their weights say (:func:`unival.data.plan.mix`), or epochs are
bounded and streams have shares of their rows (:mod:`unival.data.bounded`).  In evaluation they are read one after the other, and no batch
has rows of two streams.  A plain data set is a mixture of one stream.
"""

import itertools
import logging
import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from fairseq.data import FairseqDataset
from fairseq.data.iterators import CountingIterator, EpochBatchIterator

from unival.data.bounded import PLACE, BoundedPlan, Shares, SharesByEpoch
from unival.data.example import Sample
from unival.data.plan import Batches, Rounds, Rows, Segment, cut, first_batches, mix, shuffled, spread
from unival.data.reading import Reader
from unival.data.stream import Stream
from unival.errors import UserError, counted

logger = logging.getLogger(__name__)

class Mixture(FairseqDataset):
    """Several streams with one row numbering: first the rows of stream 0, then those of stream 1, and so on.

    Args:
        streams: the streams, all for training or all for evaluation.
        weights: how often a row of each stream is read in an epoch of training: once (1, the default), in half of the epochs (0.5), three
            times (3).
        shares: instead of weights, the share of each stream in the rows of training, in any unit; or a function that gives the shares by
            the number of updates done; either may be decided by epoch.  Epochs are bounded, and a stream is walked through pass by pass,
            whatever the epoch.
        rows_per_epoch: with shares, the rows of an epoch on all processes together (default: as many as the streams have).
        numbers: with shares or in evaluation, a number for each stream, which seeds its random numbers (default: its place).

    Raises:
        UserError: there are no streams, a weight is not above 0, or weights or shares are not one number for each stream.
    """

    def __init__(
        self,
        streams: Sequence[Stream],
        weights: Sequence[float] = (),
        *,
        shares: Shares | SharesByEpoch | None = None,
        rows_per_epoch: int | None = None,
        numbers: Sequence[int] = (),
    ):
        super().__init__()
        if not streams:
            raise UserError("a mixture needs at least one stream")
        assert len({stream.is_train for stream in streams}) == 1, "streams for training and for evaluation"
        assert streams[0].is_train or not (weights or shares), "weights and shares are for training"
        assert not (weights and shares), "weights or shares"
        self.streams = list(streams)
        self.numbers = list(numbers) or list(range(len(streams)))
        for number, stream in zip(self.numbers, streams, strict=True):
            stream.number = number
        names = [stream.name for stream in streams]
        self.names = [name if names.count(name) == 1 else f"{name}.{place}" for place, name in enumerate(names)]
        sizes = [len(stream) for stream in streams]
        self.plan: BoundedPlan | None = None
        if shares is not None:
            self.plan = BoundedPlan(streams, shares, sum(sizes) if rows_per_epoch is None else rows_per_epoch)
            self.rows = sizes
            self.starts = np.arange(len(streams) + 1) << PLACE  # passes go on for ever
            return
        assert rows_per_epoch is None, "rows per epoch without shares"
        weights = weights or [1.0] * len(streams)
        if len(weights) != len(streams) or not all(0 < weight < float("inf") for weight in weights):
            raise UserError(f"weights of streams {list(weights)}: expected {counted(len(streams), 'number')} above 0")
        self.rows = [max(1, round(weight * size)) for weight, size in zip(weights, sizes, strict=True)]  # in an epoch
        passes = [math.ceil(rows / size) for rows, size in zip(self.rows, sizes, strict=True)]
        self.starts = np.cumsum([0, *(times * size for times, size in zip(passes, sizes, strict=True))])

    @property
    def is_train(self) -> bool:
        """Whether the rows are for training."""
        return self.streams[0].is_train

    @property
    def where(self) -> str:
        """The tables, for messages."""
        return ", ".join(str(stream.table.path) for stream in self.streams)

    @property
    def size(self) -> int | list[int]:
        """Rows of the only stream's table, or a list with every stream's rows (of an epoch, with weights); saved with a position."""
        return len(self.streams[0]) if len(self.streams) == 1 else self.rows

    @property
    def split(self) -> str:
        """The name of the streams' tables among those of a run; batches carry it."""
        return self.streams[0].split

    @split.setter
    def split(self, name: str) -> None:
        for stream in self.streams:
            stream.split = name

    def take_shard(self, number: int, count: int) -> None:
        """In evaluation, take of every stream every ``count``-th row only, from row ``number`` on; some may have none.

        Raises:
            UserError: every stream has fewer rows than there are shards.
        """
        max(self.streams, key=len).take_shard(number, count)
        for stream in self.streams:
            stream.shard = (number, count)

    def __len__(self) -> int:
        return sum(self.rows) if self.plan is not None else int(self.starts[-1])

    def __getitem__(self, number: int) -> Sample:
        stream = int(np.searchsorted(self.starts, number, side="right")) - 1
        return self.streams[stream][int(number - self.starts[stream])]

    def orders(self) -> list[Rows]:
        """For every stream, the row numbers that the current epoch reads, in order."""
        if not self.is_train:
            return [start + stream.ordered_indices() for start, stream in zip(self.starts, self.streams, strict=False)]  # maybe a shard
        if len(self.streams) == 1 and self.rows[0] == len(self.streams[0]):
            return [self.streams[0].ordered_indices()]
        return [start + stream.order(rows) for start, stream, rows in zip(self.starts, self.streams, self.rows, strict=False)]

    def by_stream(self, numbers: Rows) -> list[Rows]:
        """Split row numbers by stream; their order stays."""
        return [numbers[(start <= numbers) & (numbers < end)] for start, end in itertools.pairwise(self.starts)]

    def collater(self, samples: list[Sample]) -> dict[str, Any]:
        """Batch rows of any streams, see :meth:`unival.data.stream.Stream.collater`; with several streams, add ``stream_names``."""
        batch = self.streams[0].collater(samples)
        if len(self.streams) == 1 and self.plan is None:
            return batch
        places = {number: place for place, number in enumerate(self.numbers)}
        stream = torch.tensor([places[number] for number in batch["stream"].tolist()], dtype=torch.long)
        return {**batch, "stream": stream, "stream_names": self.names}

    def set_epoch(self, epoch: int) -> None:
        """Set the epoch, before its rows are read."""
        for stream in self.streams:
            stream.set_epoch(epoch)


class EpochBatches(EpochBatchIterator):
    """fairseq's iterator over epochs, with batches planned for all processes and readers that are closed.

    Args:
        mixture: the rows, and their order in an epoch.
        batch_size: rows per batch.
        update_freq: rounds per update, by epoch; the last value is for all further epochs.
        workers: number of worker processes.
        ahead: number of batches to read ahead.
        pin_memory: as in :class:`unival.data.reading.Reader`.
        seed: seeds the order of the batches, together with the epoch.
        ranks: number of processes that share the batches.
        rank: number of this process.
        epoch: the first epoch.
        skip_remainder_batch: leave out the last round of an epoch.
        rows_by_epoch: with one stream whose epochs train on several tables in turn, the number of rows of each; default: one table.
        dry: plan no batches.
        on_epoch: called with the iterator at the start of each epoch, also where a resumed epoch continues.

    Raises:
        UserError: a stream has fewer training rows than there are processes, or a resumed position does not fit the table.
    """

    def __init__(
        self,
        mixture: Mixture,
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
            mixture,
            mixture.collater,
            batch_sampler=[],
            seed=seed,
            num_shards=ranks,
            shard_id=rank,
            num_workers=workers,
            epoch=epoch,
            buffer_size=ahead,
            skip_remainder_batch=skip_remainder_batch,
        )
        self.mixture = mixture
        self.rows_by_epoch = list(rows_by_epoch) or mixture.rows[:1]
        for place, (stream, rows) in enumerate(zip(mixture.streams, [min(self.rows_by_epoch), *mixture.rows[1:]], strict=True)):
            if mixture.is_train and mixture.plan is None and rows < ranks:
                path = stream.table.path
                whose = path if rows == mixture.rows[place] else f"a table that a later epoch trains on, after {path}"
                raise UserError(f"{whose}: {counted(rows, 'row')} cannot be shared by {ranks} processes: use at most {rows}")
        self.plan = mixture.plan
        if self.plan is not None:
            self.plan.whole_updates = skip_remainder_batch
        self.batch_size = batch_size
        self.update_freq = list(update_freq)
        self.pin_memory = pin_memory
        self.dry = dry
        self.on_epoch = on_epoch
        self._lengths: dict[tuple[int, int], int] = {}  # (update frequency, rows) -> updates
        self._before: list[Segment] = []  # the segments of this epoch that were trained before it was resumed
        self._start = 0  # value of the round counter at the start of this run's segment

    @property
    def first_batch(self) -> None:
        """None: fairseq replaces empty batches by it, and there are none."""
        return None

    def __len__(self) -> int:
        """Rounds in a whole epoch."""
        if self.plan is not None:
            return self.plan.length(self.setting(self.epoch))
        return len(self.rounds(self.epoch, self.shuffle, [])) - self.skip_remainder_batch

    @property
    def updates(self) -> int:
        """Updates in the current epoch, including those before it was resumed."""
        assert self._cur_epoch_itr is not None, "no epoch was started"
        return self._updates(len(self._cur_epoch_itr), self.epoch)

    @property
    def updates_left(self) -> int:
        """Remaining updates of the current epoch."""
        assert self._cur_epoch_itr is not None, "no epoch was started"
        return self._updates(len(self._cur_epoch_itr) - self._cur_epoch_itr.n, self.epoch)

    def length(self, epoch: int) -> int:
        """Updates in a whole epoch; it does not depend on the order of the batches."""
        freq = self.rounds_per_update(epoch)
        if self.plan is not None:
            return self._updates(self.plan.length(self.setting(epoch)), epoch)
        rows = self.rows_by_epoch[(epoch - 1) % len(self.rows_by_epoch)]
        if (freq, rows) not in self._lengths:
            orders = self.mixture.orders() if len(self.mixture.streams) > 1 else [np.arange(rows)]
            batches = self.deal(first_batches(orders, self.batch_size), None, self.setting(epoch))
            self._lengths[freq, rows] = self._updates(math.ceil(len(batches) / self.num_shards) - self.skip_remainder_batch, epoch)
        return self._lengths[freq, rows]

    def _updates(self, rounds: int, epoch: int) -> int:
        whole = rounds / self.rounds_per_update(epoch)
        return math.floor(whole) if self.skip_remainder_batch else math.ceil(whole)

    def rounds_per_update(self, epoch: int) -> int:
        """fairseq's ``--update-freq`` in an epoch."""
        return self.update_freq[min(epoch, len(self.update_freq)) - 1]

    def rounds(self, epoch: int, shuffle: bool, before: Sequence[Segment]) -> Rounds:
        """The remaining batches of an epoch.

        ``before``: the segments that were trained already.  The rows that a segment leaves are dealt to the ranks of the next one.
        """
        if self.dry:
            return Rounds(Batches.of([]), self.num_shards)
        if self.plan is not None:
            return Rounds(self.plan.batches(self.plan.position(epoch, self.setting), self.setting(epoch)), self.num_shards)
        segments = [*before, self.setting(epoch)]
        batches = first_batches(self.mixture.orders(), segments[0]["batch_size"])
        if shuffle and len(self.mixture.streams) == 1:
            batches = shuffled(batches, self.seed + epoch)
        for last, segment in zip([None, *segments], segments, strict=False):
            batches = self.deal(batches, last, segment)[segment["rounds"] * segment["ranks"] :]
        return Rounds(batches, self.num_shards)

    def setting(self, epoch: int, rounds: int = 0) -> Segment:
        """The current segment of an epoch, with its number of trained rounds."""
        return Segment(ranks=self.num_shards, update_freq=self.rounds_per_update(epoch), batch_size=self.batch_size, rounds=rounds)

    def deal(self, batches: Batches, last: Segment | None, segment: Segment) -> Batches:
        """Deal the batches that the last segment left: batch ``i`` is for rank ``i % ranks`` of this segment, in round ``i // ranks``."""
        if len(self.mixture.streams) > 1:
            if not self.mixture.is_train:  # every stream for itself, so that in a round all ranks have the same one
                streams = [cut(rows, segment["batch_size"]) for rows in self.mixture.by_stream(batches.rows)]
                return Batches.of([batch for each in streams for batch in spread(each, segment["ranks"], 1)])
            if last is not None and (last["ranks"], last["batch_size"]) == (segment["ranks"], segment["batch_size"]):
                return batches  # as without an interruption
            return mix(self.mixture.by_stream(batches.rows), segment["ranks"], segment["batch_size"])
        if last is not None and segment["batch_size"] != last["batch_size"]:
            batches = cut(batches.rows, segment["batch_size"])
        return spread(batches, segment["ranks"], segment["update_freq"])

    def next_epoch_itr(self, *args: Any, **kwargs: Any) -> CountingIterator:
        """fairseq's hook at the start of an epoch."""
        iterator = super().next_epoch_itr(*args, **kwargs)
        if self.on_epoch is not None:
            self.on_epoch(self)
        return iterator

    def _get_iterator_for_epoch(
        self, epoch: int, shuffle: bool, fix_batches_to_gpus: bool = False, offset: int = 0
    ) -> CountingIterator:
        """fairseq's hook; the counter starts at ``offset``, but the loaded state decides which batches remain."""
        if not offset:
            self._before = []
        self._start = offset
        mine = self.rounds(epoch, shuffle, self._before).of_rank(self.shard_id)
        largest = mine.sizes.max(initial=0)
        if largest > self.batch_size:
            logger.info(
                "%s not divisible by %s: batches of %s end the epoch",
                counted(sum(self.mixture.rows), "row"),
                counted(self.num_shards, "process", "processes"),
                counted(largest, "row"),
            )
        reader = Reader(
            self.mixture,
            self.collate_fn,
            mine,
            workers=self.num_workers,
            ahead=self.buffer_size,
            pin_memory=self.pin_memory,
        )
        iterator = CountingIterator(reader, start=offset)
        return iterator.take(len(iterator) - 1) if self.skip_remainder_batch and self.plan is None else iterator

    def state_dict(self) -> dict[str, Any]:
        """fairseq's position; within an epoch also the segments, to resume with another number of processes or batch size."""
        state = super().state_dict()
        if state["iterations_in_epoch"]:
            state["stretches"] = [*self._before, self.setting(self.epoch, self.iterations_in_epoch - self._start)]
            state["rows"] = self.mixture.size
        if self.plan is not None:
            position = self.plan.position(state["epoch"], self.setting)
            if state["iterations_in_epoch"]:
                position = self.plan.after(position, self.setting(self.epoch), self.iterations_in_epoch - self._start)
            state |= {"plan": self.plan.saved(position), "rows": self.mixture.size}
        return state

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Resume at a checkpoint's position, which is converted so that the number of updates done stays the same."""
        done = state_dict.get("iterations_in_epoch", 0)
        freq = self.rounds_per_update(state_dict["epoch"])
        rows, size = state_dict.get("rows", self.mixture.size), self.mixture.size
        if rows != size:
            raise UserError(
                f"{self.mixture.where} has {size} rows, but had {rows} when the checkpoint was saved"
                f"{' within an epoch' if done else ''}: restore the table, or give --reset-dataloader to start with the first epoch"
            )
        if self.plan is not None and "plan" in state_dict:  # else as if the epochs before had had these settings
            self.plan.load(state_dict["epoch"], state_dict["plan"])
        if done:
            same = self.setting(state_dict["epoch"], done)
            self._before = state_dict.get("stretches") or [same]  # a state of fairseq's own has the current settings
            done = freq * sum(math.ceil(segment["rounds"] / segment["update_freq"]) for segment in self._before)
        super().load_state_dict({**state_dict, "iterations_in_epoch": done})
