"""Validation by generation: generate texts, and compute the metrics' statistics of them."""

import copy
import json
import logging
from argparse import Namespace
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from fairseq.logging import metrics as log

from unival.errors import UserError
from unival.generation.options import fitting_defaults, generation_options
from unival.generation.scorer import TaskScorer
from unival.metrics import Metric, MetricOptions, check_references, make_metrics
from unival.metrics.base import NO_OPTIONS
from unival.tasks.progress import Progress

logger = logging.getLogger(__name__)


class Evaluation:
    """A task's validation by generation.

    Args:
        metrics: names of metrics; without any, nothing is generated.
        generation: the task's default generation options.
        eval_args: ``--eval-args``, a JSON object of generation options that precede the defaults.
        print_samples: number of texts that are logged per validation.
        options: settings of the metrics.
        prefix: begins the names of all values that are logged.

    Raises:
        UserError: an unknown metric, or one whose programs are not installed.
    """

    def __init__(
        self,
        metrics: Sequence[str],
        generation: Mapping[str, Any],
        eval_args: str,
        print_samples: int,
        options: MetricOptions = NO_OPTIONS,
        prefix: str = "",
    ):
        self.prefix = prefix
        self.metric_options = options
        self.metrics: dict[str, Metric] = make_metrics(metrics, options=options)
        self.fitted: dict[str, dict[str, Metric]] = {}  # split -> name -> metric
        self._nothing: dict[str, float] = {}  # the statistics of no row
        self.generation = generation
        self.eval_args = eval_args
        self.print_samples = print_samples
        self._generators: dict[int, Any] = {}  # by the id of their model, which they keep
        self._left_to_print = print_samples

    @property
    def scores(self) -> list[str]:
        """Names of the scores that are logged."""
        return [f"{self.prefix}{score}" for metric in self.metrics.values() for score in metric.keys]

    def measure(self, metrics: Sequence[str]) -> None:
        """Use other metrics, by their names.

        Raises:
            UserError: an unknown metric, or one whose programs are not installed.
        """
        self.metrics = make_metrics(metrics, options=self.metric_options)

    def options(self, is_limited: bool) -> Namespace:
        """Generation options of validation: the task's defaults, changed by ``--eval-args``.

        Args:
            is_limited: whether there are candidate answers or a fixed length, which defaults must not contradict.

        Raises:
            UserError: ``--eval-args`` is not a JSON object.
        """
        try:
            changes = json.loads(self.eval_args)
        except json.JSONDecodeError as error:
            raise UserError(f"--eval-args {self.eval_args!r} is not JSON: {error}") from error
        if not isinstance(changes, dict):
            raise UserError(f'--eval-args {self.eval_args!r}: expected an object such as {{"beam": 5}}')
        return Namespace(**{**fitting_defaults(self.generation, is_limited), **changes})

    def fit(self, split: str, references: Sequence[Sequence[str]], where: Callable[[int], str] | None = None) -> None:
        """Fit the metrics to a split: some need the references of its whole table, given row by row; ``where`` names a row's place.

        Raises:
            UserError: a row has no reference that the metrics can use.
        """
        check_references(dict(enumerate(references)), self.metrics.values(), f"{split}: ", where)
        fitted = self.fitted[split] = dict(self.metrics)
        for name, metric in fitted.items():
            if type(metric).fit is not Metric.fit:  # metrics that do not need fitting are shared: METEOR runs a process
                fitted[name] = copy.copy(metric)
                fitted[name].fit(references)

    def nothing(self, split: str, references: Sequence[str]) -> dict[str, float]:
        """The statistics of no row, which processes without rows log; ``references``: of any row of the split."""
        if not self._nothing:
            self._nothing = dict.fromkeys(self._statistics(split, "", references), 0.0)
        return self._nothing

    def _statistics(self, split: str, text: str, references: Sequence[str]) -> dict[str, float]:
        return {
            f"_{self.prefix}{name}:{key}": value
            for name, metric in self.fitted[split].items()
            for key, value in metric.update(text, references).items()
        }

    def begin(self, print_samples: int | None = None) -> None:
        """Prepare a validation: drop the old generators, which keep their models, and reset the number of samples to log."""
        self._generators.clear()
        self._left_to_print = self.print_samples if print_samples is None else print_samples

    def prepare(self, task: Any, model: Any, longest: int | None = None) -> None:
        """Build the generator; ``longest`` limits the length of texts in tokens, for a trial."""
        options = generation_options(task.generation_options())
        if longest is not None:
            options.min_len = min(options.min_len, longest)
        generator = self._generators[id(model)] = task.build_generator([model], options)
        generator.longest = longest

    def step(self, task: Any, model: Any, sample: dict[str, Any], prints: bool = True) -> dict[str, float]:
        """Generate for a batch; returns the metrics' statistics of its rows, summed, under ``_<metric>:<statistic>``."""
        if not self.metrics:
            return {}
        if id(model) not in self._generators:
            self.prepare(task, model)
        sums: dict[str, float] = {}
        outputs = task.outputs(self._generators[id(model)], [model], sample)
        for output, references in zip(outputs, sample["references"], strict=True):
            if prints:
                self._print(output.text, references)
            for key, value in self._statistics(sample["split"], output.text, references).items():
                sums[key] = sums.get(key, 0.0) + value
        return sums

    def announce(self, sample: dict[str, Any], progress: Progress, datasets: Mapping[str, Any], answer_scores: Sequence[float]) -> None:
        """Give fairseq-generate's scorer (``--scoring unival``) the references and scores of a batch before it gets the texts."""
        scorer = TaskScorer.current()
        if scorer is not None:
            scorer.expect(self.fitted.get(sample["split"], {}), sample["references"])
            scorer.answer_scores.extend(answer_scores)
            progress.rows("generating", sample, datasets)

    def _print(self, text: str, references: list[str]) -> None:
        if self._left_to_print > 0:
            self._left_to_print -= 1
            logger.info("generated %r, references %s", text, references)

    def log(self, logging_outputs: list[dict[str, Any]]) -> None:
        """Sum the statistics over batches and workers; scores are computed from the sums."""
        for name, metric in self.metrics.items():
            prefix = f"_{self.prefix}{name}:"
            keys = sorted({key for output in logging_outputs for key in output if key.startswith(prefix)})
            if not keys:
                continue
            for key in keys:
                log.log_scalar(key, float(sum(output.get(key, 0.0) for output in logging_outputs)))
            for score in metric.keys:
                log.log_derived(f"{self.prefix}{score}", _score(metric, prefix, keys, score))


def _score(metric: Metric, prefix: str, keys: list[str], score: str) -> Callable[[Any], float]:
    def compute(meters: Any) -> float:
        sums = {key[len(prefix) :]: float(meters[key].sum) for key in keys}
        return metric.compute(sums)[score] if any(sums.values()) else 0.0  # of no rows

    return compute
