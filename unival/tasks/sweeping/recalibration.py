"""Statistics of batch norms of every point, computed again on rows of tables that are read once."""

from collections.abc import Iterator, Sequence
from typing import Any

from fairseq import utils

from unival.checkpoints.merging.inputs import Checkpoint, frozen_statistics, readers_of
from unival.tasks.statistics.norms import recalibrate
from unival.tasks.statistics.rows import Batches, on_device, rows_of
from unival.tasks.sweeping.model import MergedModel
from unival.tasks.sweeping.store import MediaStore
from unival.tasks.sweeping.table import TableSpec, task_for


class Recalibration:
    """What ``unival merge --recalibrate`` does, for one point after the other.

    Args:
        model: the merged model.
        models: the checkpoints.
        tables: one table, read with the instruction of the first model, or one per model, each read with its own.
        batch_size: rows at a time.
        most: rows of each table that are used, evenly spread over it.
        passes: over these.
        store: keeps the media.

    Raises:
        UserError: the number of tables is another one, or a table cannot be read.
    """

    def __init__(
        self,
        model: MergedModel,
        models: Sequence[Checkpoint],
        tables: Sequence[str],
        batch_size: int,
        most: int,
        passes: int,
        store: MediaStore,
    ):
        readers = readers_of(tables, models, models[0])
        self.model, self.keep, self.passes = model, frozen_statistics(model.inputs), passes
        self.batches = []
        for reader, table in zip(readers, tables, strict=True):
            task = task_for(TableSpec("recalibrate", "", table, reader.name), reader)
            self.module = model.module(reader, task)
            self.batches.append(KeptBatches(Batches(rows_of(task, table), self.module, batch_size, most), store))

    def __call__(self) -> None:
        """Recalibrate the model at its present point.

        Raises:
            UserError: the rows have no media.
        """
        recalibrate(self.module, self.batches, self.keep, self.passes)
        self.model.round_statistics()


class KeptBatches:
    """Batches that are read once, and moved to the model's device whenever they are iterated over."""

    def __init__(self, batches: Batches, store: MediaStore):
        self._source, self._store = batches, store
        self._kept: list[dict[str, Any]] = []

    def __iter__(self) -> Iterator[dict[str, Any]]:
        if not self._kept:
            self._kept = [self._store.keep(utils.move_to_cpu(batch)) for batch in self._source]
        return (on_device(batch, self._source.model) for batch in self._kept)
