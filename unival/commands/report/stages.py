"""Pretraining in a report: the curve of every stream over all stages, what each stage forgot and gained, and what was trained afterwards.

A stage is a run of its own with a log of its own, in which the losses of streams are ``loss/<stream>`` and the scores of a validation
``valid_<stream>/<score>``.  Updates are counted on from stage to stage.
"""

import pathlib
import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from unival.commands.report.content import Split
from unival.commands.report.reading import points, read_records
from unival.errors import UserError

Points = tuple[tuple[int, float], ...]  # (update, value)
LOSS = "loss"
COUNTS = ("loss", "nll_loss", "ntokens", "nsentences", "time_share", "ppl")  # values of a stream that are no scores of what it generates
TRAINED, VALIDATED = re.compile(r"(?:train_)?loss/(.+)"), re.compile(r"valid_([^/]+)/(.+)")


@dataclass(frozen=True)
class Stage:
    """A stage of a pretraining.

    Attributes:
        name: its name.
        updates: how many it made.
        losses: by stream, the training loss in bits per token.
        scores: by stream and score, the values of its validations.
    """

    name: str
    updates: int
    losses: Mapping[str, Points] = field(default_factory=dict)
    scores: Mapping[str, Mapping[str, Points]] = field(default_factory=dict)


@dataclass(frozen=True)
class Afterwards:
    """A run of one task that follows: its name and the values of a score in its validations."""

    name: str
    points: Points


@dataclass(frozen=True)
class Cell:
    """A score of a stream at the end of a stage; ``change`` from the stage before, None if it had none there."""

    value: float
    change: float | None
    is_trained: bool  # the stage trained the stream

    @property
    def text(self) -> str:
        return f"{self.value:.2f}"


@dataclass(frozen=True)
class StreamHistory:
    """A stream over all stages: a cell for each, None where it was not validated."""

    name: str
    score: str
    cells: tuple[Cell | None, ...]

    @property
    def is_loss(self) -> bool:
        """Whether lower is better."""
        return self.score == LOSS

    def gain(self, cell: Cell) -> float:
        """How much better it became in a stage; negative: it was forgotten."""
        change = cell.change or 0.0
        return -change if self.is_loss else change


@dataclass(frozen=True)
class Pretraining:
    """All that the page of a pretraining shows."""

    title: str
    stages: tuple[Stage, ...]
    splits: tuple[Split, ...]  # what the last stage's model generates, a task each
    afterwards: tuple[Afterwards, ...] = ()
    afterwards_score: str = ""
    note: str = ""

    @property
    def streams(self) -> tuple[str, ...]:
        """All streams, in the order in which stages trained them."""
        return tuple(dict.fromkeys(name for stage in self.stages for name in stage.losses))

    @property
    def starts(self) -> tuple[int, ...]:
        """The number of updates before each stage."""
        return tuple(sum(stage.updates for stage in self.stages[:number]) for number in range(len(self.stages)))

    def curve(self, stream: str) -> Points:
        """A stream's loss by update of all stages."""
        pairs = zip(self.starts, self.stages, strict=True)
        return tuple((start + update, value) for start, stage in pairs for update, value in stage.losses.get(stream, ()))

    def history(self, stream: str) -> StreamHistory | None:
        """A stream's score at the end of each stage; the first score that it has, else its loss.  None: it was never validated."""
        found = next((stage.scores[stream] for stage in self.stages if stream in stage.scores), None)
        if found is None:
            return None
        score = next((name for name in found if name not in COUNTS), LOSS)
        cells: list[Cell | None] = []
        last: float | None = None
        for stage in self.stages:
            values = stage.scores.get(stream, {}).get(score, ())
            if not values:
                cells.append(None)
                continue
            value = values[-1][1]
            cells.append(Cell(value, None if last is None else value - last, stream in stage.losses))
            last = value
        return StreamHistory(stream, score, tuple(cells))

    def histories(self) -> list[StreamHistory]:
        """The histories of all streams that were validated."""
        return [history for name in self.streams if (history := self.history(name)) is not None]


def read_stage(name: str, path: pathlib.Path) -> Stage:
    """Read the log of a stage, fairseq's ``--log-format json --log-file``.

    Raises:
        UserError: it has no losses of streams.
    """
    records = read_records(path)
    losses, scores = {}, dict[str, dict[str, Points]]()
    keys = dict.fromkeys(key for record in records for key in record)
    for key in keys:
        if (trained := TRAINED.fullmatch(key)) is not None:
            stream = trained[1]
            within_epochs = points(records, "num_updates", f"loss/{stream}")
            losses[stream] = max(within_epochs, points(records, "train_num_updates", f"train_loss/{stream}"), key=len)
        elif (validated := VALIDATED.fullmatch(key)) is not None:
            scores.setdefault(validated[1], {})[validated[2]] = points(records, "valid_num_updates", key)
    if not losses:
        raise UserError(f"{path}: no losses of streams, such as loss/captions: not the log of a stage of --task unival_pretrain")
    updates = max(int(float(str(record[key]))) for record in records for key in ("num_updates", "train_num_updates") if key in record)
    return Stage(name, updates, losses, scores)


def read_afterwards(name: str, path: pathlib.Path, score: str) -> Afterwards:
    """Read a score of the validations in a log.

    Raises:
        UserError: it has none.
    """
    found = points(read_records(path), "valid_num_updates", f"valid_{score}")
    if not found:
        raise UserError(f"{path}: no valid_{score} (choose with --after-metric)")
    return Afterwards(name, found)
