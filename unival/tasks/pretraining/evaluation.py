"""Validation of a mixture by generation: every stream with its own metrics, candidate answers and generation options."""

from collections.abc import Sequence
from typing import Any

from unival.tasks.evaluation import Evaluation
from unival.tasks.pretraining.streams import TaskStream


class MixtureEvaluation(Evaluation):
    """The evaluations of several streams; their scores are ``<stream>/<score>``.

    Args:
        streams: the validated streams, in the order of the mixture.
        eval_args: ``--eval-args``.
    """

    def __init__(self, streams: Sequence[TaskStream], eval_args: str):
        super().__init__((), {}, eval_args, 0)
        self.streams = list(streams)
        self._references: dict[str, Sequence[str]] = {}  # stream -> references of a row

    @property
    def scores(self) -> list[str]:
        """Names of the scores that are logged."""
        return [score for stream in self.streams for score in stream.evaluation.scores]

    def fit_stream(self, stream: TaskStream, split: str, references: Sequence[Sequence[str]]) -> None:
        """Fit the metrics of a stream to its rows in a split."""
        stream.evaluation.fit(split, references)
        self._references[stream.name] = references[0]

    def begin(self, print_samples: int | None = None) -> None:
        """Prepare a validation."""
        for stream in self.streams:
            stream.evaluation.begin(print_samples)

    def prepare(self, task: Any, model: Any, longest: int | None = None) -> None:
        """Build the generators of all streams that have metrics."""
        for stream in self.streams:
            if stream.evaluation.metrics:
                stream.evaluation.prepare(stream, model, longest)

    def step(self, task: Any, model: Any, sample: dict[str, Any], prints: bool = True) -> dict[str, float]:
        """Generate for a batch of one stream; the statistics of all others are there, too, so that all processes log the same."""
        sums: dict[str, float] = {}
        own = self.streams[int(sample["stream"][0])]
        for stream in self.streams:
            if stream.evaluation.metrics:
                sums |= stream.evaluation.nothing(sample["split"], self._references[stream.name])
        return sums | own.evaluation.step(own, model, sample, prints)

    def log(self, logging_outputs: list[dict[str, Any]]) -> None:
        """Log the scores of all streams."""
        for stream in self.streams:
            stream.evaluation.log(logging_outputs)
