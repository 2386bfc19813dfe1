"""``--scoring unival``: the last line that fairseq-generate prints has the task's metrics instead of BLEU over tokens.

fairseq creates the scorer without the task and gives it one reference per row; the task gives it the other references during generation.
"""

import weakref
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from fairseq.dataclass import FairseqDataclass
from fairseq.scoring import BaseScorer, register_scorer

from unival.metrics import Metric


@dataclass
class TaskScorerConfig(FairseqDataclass):
    """No options: the metrics are those of ``--eval-metrics``."""


@register_scorer("unival", dataclass=TaskScorerConfig)
class TaskScorer(BaseScorer):
    """Metrics of the texts that fairseq-generate prints, against all references: the same values as ``unival score``."""

    _latest: ClassVar["weakref.ref[TaskScorer] | None"] = None

    def __init__(self, cfg: TaskScorerConfig):
        super().__init__(cfg)
        self.metrics: Mapping[str, Metric] = {}
        self._expected: deque[Sequence[str]] = deque()
        self._sums: dict[str, dict[str, float]] = {}
        self.answer_scores: list[float] = []  # of the rows' best answers, see :class:`unival.generation.outputs.Output`
        TaskScorer._latest = weakref.ref(self)

    @classmethod
    def current(cls) -> "TaskScorer | None":
        """The scorer of the running generation: the newest one that still exists. None without ``--scoring unival``."""
        return cls._latest() if cls._latest is not None else None

    def expect(self, metrics: Mapping[str, Metric], references: Sequence[Sequence[str]]) -> None:
        """Give the references of the next rows.

        Args:
            metrics: the metrics, already fitted to the references of the whole split.
            references: all references of each row whose text :meth:`add_string` gets next, in order.
        """
        self.metrics = metrics
        self._expected.extend(references)

    def add_string(self, ref: str, pred: str) -> None:
        """Add the text of one row. ``ref``, the first reference as fairseq prints it, is not used."""
        references = self._expected.popleft()
        for name, metric in self.metrics.items():
            sums = self._sums.setdefault(name, {})
            for key, value in metric.update(pred, references).items():
                sums[key] = sums.get(key, 0.0) + value

    def scores(self) -> dict[str, float]:
        """Score per metric name; empty without generated texts or metrics."""
        found: dict[str, float] = {}
        for name, sums in self._sums.items():
            found.update(self.metrics[name].compute(sums))
        return found

    def score(self, order: Any = None) -> float:
        """The first score."""
        return next(iter(self.scores().values()))

    def said_of_answer_scores(self) -> str:
        """How the scores of the rows' best answers are distributed, from which a threshold for ``--reject-below`` can be chosen."""
        import numpy as np

        least, *tenths, middle, most = np.quantile(self.answer_scores, [0, 0.05, 0.1, 0.25, 0.5, 1]).tolist()
        shares = ", ".join(f"{share}% are below {score:.3g}" for share, score in zip((5, 10, 25, 50), (*tenths, middle), strict=True))
        return f"answers score from {least:.3g} to {most:.3g}, {shares} (--reject-below)"

    def result_string(self, order: Any = None) -> str:
        """All scores on one line."""
        return ", ".join(f"{name} {value:.4f}" for name, value in self.scores().items()) or "no metrics (--eval-metrics)"
