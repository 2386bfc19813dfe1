"""The order in which the rows of a table are read, and their batches; a part of :class:`unival.data.stream.Stream`."""

import math

import numpy as np
from fairseq.data import FairseqDataset

from unival.data.table import Table
from unival.errors import UserError, counted

BLOCK = 2**12  # rows of the passes over a small table that are drawn together
NO_BATCH_SIZE = "give --batch-size: batches are counted in rows here, not in tokens (--max-tokens)"


class OrderedRows(FairseqDataset):
    """The rows of a table in an order: that of the table in evaluation, one that depends on seed, epoch and number in training.

    Args:
        table: the rows.
        train: shuffle.
        seed: with epoch and number, the only source of randomness.
    """

    def __init__(self, table: Table, train: bool, seed: int):
        super().__init__()
        self.table = table
        self.is_train = train
        self.seed = seed
        self.epoch = 1
        self.number = 0  # among the streams of a mixture
        self.shard = (0, 1)  # (number, count): evaluation reads this shard of the rows

    def __len__(self) -> int:
        return len(self.table)

    def take_shard(self, number: int, count: int) -> None:
        """In evaluation, take every ``count``-th row only, from row ``number`` on.

        Raises:
            UserError: there are fewer rows than shards.
        """
        if count > len(self):
            raise UserError(f"--num-shards {count}: {self.table.path} has {counted(len(self), 'row')} only")
        self.shard = (number, count)

    def set_epoch(self, epoch: int) -> None:
        """Set the epoch, before its rows are read."""
        self.epoch = epoch

    def ordered_indices(self) -> np.ndarray:
        """Row numbers in the order of reading: a new permutation per epoch in training, else the table's order."""
        if not self.is_train:
            number, count = self.shard
            return np.arange(number, len(self), count, dtype=np.int64)
        return self.permutation(0)

    def order(self, count: int) -> np.ndarray:
        """``count`` numbers to read in an epoch of training: whole passes over the rows and a part of one, each in its own random order.

        Number ``i + k * len(self)`` is row ``i`` in pass ``k``.
        """
        rows = len(self)
        return np.concatenate([self.permutation(k) + k * rows for k in range(math.ceil(count / rows))])[:count]

    def permutation(self, number: int) -> np.ndarray:
        """The rows in the order of a pass."""
        which = [number, self.number, 1] if number or self.number else []  # pass 0 of stream 0: as a plain data set
        return np.random.default_rng([self.seed, self.epoch, *which]).permutation(len(self)).astype(np.int64)

    def walk(self, start: int, count: int) -> np.ndarray:
        """``count`` numbers to read in training from position ``start`` on of an endless walk through the rows: pass after pass, each in
        its own random order, whatever the epoch.

        Number ``i + k * len(self)`` is row ``i`` in pass ``k``.  Positions may be asked for in any parts.
        """
        rows = len(self)
        passes = max(1, BLOCK // rows)  # in a block, whose generator is the same wherever the walk starts
        block = passes * rows
        first = start // block
        parts = [np.empty(0, dtype=np.int64)]
        for number in range(first, -(-(start + count) // block)):
            rng = np.random.default_rng([self.seed, 0, number, self.number, 1])  # no epoch is 0
            order = rng.permuted(np.tile(np.arange(rows), (passes, 1)), axis=1) if passes > 1 else rng.permutation(rows)
            numbers = (order + np.arange(number * passes, (number + 1) * passes)[:, None] * rows).ravel()
            parts.append(numbers[max(0, start - number * block) : start + count - number * block])
        return np.concatenate(parts)

    def batch_by_size(
        self,
        indices: np.ndarray,
        max_tokens: int | None = None,
        max_sentences: int | None = None,
        required_batch_size_multiple: int = 1,
    ) -> list[np.ndarray]:
        """Batches of ``max_sentences`` rows; media make token counts meaningless, so ``--batch-size`` is required."""
        if max_sentences is None:
            raise UserError(NO_BATCH_SIZE)
        return [indices[i : i + max_sentences] for i in range(0, len(indices), max_sentences)]
