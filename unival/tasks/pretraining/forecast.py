"""What a stage will do, from its file and tables alone."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from unival.data.stream import Stream
from unival.errors import UserError
from unival.tasks.pretraining import plan
from unival.tasks.pretraining.checks import MixtureChecks
from unival.tasks.pretraining.file import MixtureFile, StageSpec
from unival.tasks.pretraining.task import PretrainTask
from unival.tasks.resume import any_vocabulary

SAMPLED = 16  # rows of a stream that are read, at even distances, for its tokens


@dataclass(frozen=True)
class StreamForecast:
    """A stream in a stage; at the end of a transition.

    Attributes:
        name: of the stream.
        rows: of its tables.
        shares: of the rows of each epoch; of the first one alone where the length of the stage is not known.
        rows_per_epoch: that an epoch reads of it, on average.
        passes: over its rows, in the whole stage; 0 where its length is not known.
        examples: that a row gives, on average.
        source_tokens, target_tokens: text tokens of a row, of all of its examples; target tokens are those that carry loss.
    """

    name: str
    rows: int
    shares: Sequence[float]
    rows_per_epoch: float
    passes: float
    examples: float
    source_tokens: float
    target_tokens: float


@dataclass(frozen=True)
class Forecast:
    """A stage. ``updates`` are those of all epochs; None: their number is not given."""

    streams: list[StreamForecast]
    ranks: int
    rows_per_update: int
    updates_per_epoch: int
    updates: int | None

    @property
    def target_tokens(self) -> float:
        """Tokens that carry loss, of an epoch."""
        return sum(each.rows_per_epoch * each.target_tokens for each in self.streams)

    @property
    def all_target_tokens(self) -> float:
        """Those of the whole stage."""
        return self.target_tokens * (self.updates or 0) / self.updates_per_epoch


def forecast(cfg: Any, mixture: MixtureFile, stage: StageSpec) -> Forecast:
    """Open the tables of a stage, and read a few rows of each.

    Args:
        cfg: fairseq's configuration of its training.
        mixture: the file.
        stage: one of its stages.

    Raises:
        UserError: a table or an option cannot be used.
    """
    if cfg.dataset.batch_size is None:
        raise UserError(f"{stage.place}: give batch_size among its options, or --set batch_size=N")
    if all(spec.valid is None for spec in mixture.until(stage)):
        cfg.task.disable_validation = True  # which training is told on its command line
    task = PretrainTask(cfg.task, any_vocabulary(cfg.task))
    task.is_training = True
    MixtureChecks(task).check_tables()  # what training would refuse
    data = [stream.training_data() for stream in task.streams]
    rows = {stream.name: len(stream) for stream in data}
    ranks = max(cfg.distributed_training.distributed_world_size, 1)
    per_update = cfg.dataset.batch_size * int(cfg.optimization.update_freq[0]) * ranks
    per_epoch = plan.rows_per_epoch(stage, rows, per_update)
    updates_per_epoch = math.ceil(per_epoch / per_update)
    epochs, most = cfg.optimization.max_epoch, cfg.optimization.max_update
    lengths = [*([epochs * updates_per_epoch] if epochs else []), *([most] if most else [])]
    updates = min(lengths, default=None)
    found = []
    length = 1 if updates is None else updates / updates_per_epoch  # in epochs
    parts = np.minimum(length - np.arange(math.ceil(length)), 1)  # of each epoch
    shares = plan.shares_by_epoch(stage, rows, task.weights, len(parts))
    for stream, of_epochs in zip(data, zip(*shares, strict=True), strict=True):
        read = float(np.average(of_epochs, weights=parts)) * per_epoch
        passes = 0.0 if updates is None else read * length / len(stream)
        found.append(StreamForecast(stream.name, len(stream), of_epochs, read, passes, *_tokens(stream)))
    return Forecast(found, ranks, per_update, updates_per_epoch, updates)


def _tokens(stream: Stream) -> tuple[float, float, float]:
    """Examples of a row, and source and target tokens of all of these, on average over a few rows."""
    counts = []
    for row in np.linspace(0, len(stream) - 1, min(SAMPLED, len(stream))).astype(int):
        try:
            read = stream.read(int(row))
        except UserError as error:
            if not stream.is_skipped(error):
                raise
            continue
        pad = stream.vocabulary.pad
        counts.append((len(read), sum(len(each.source) for each in read), sum(int(each.target.ne(pad).sum()) for each in read)))
    examples, source, target = np.mean(counts or [(0, 0, 0)], axis=0).tolist()
    return examples, source, target
