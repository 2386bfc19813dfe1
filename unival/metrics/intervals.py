"""How sure scores are: bootstrap intervals of a corpus's scores, and paired tests of two outputs on the same rows.

Rows are drawn with replacement, and scores are computed from the sums of the drawn rows' statistics, so that this works for BLEU and
METEOR, too. What a metric takes from the whole corpus, the document frequencies of CIDEr, stays as it is.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

from unival.metrics.base import Metric

if TYPE_CHECKING:
    import numpy as np

RESAMPLES = 1000
SEED = 1
LEVEL = 0.95
FIELD = "intervals"  # of the scores that are written as JSON: name -> [low, high]

Interval = tuple[float, float]
Statistics = Sequence[Mapping[str, float]]


class Difference(NamedTuple):
    """A score of B minus that of A.

    Attributes:
        value: the difference.
        interval: its 95% bootstrap interval; both outputs have the same rows in every draw.
        p: probability of a difference as large if the two were exchangeable, by randomly swapping them row by row.
    """

    value: float
    interval: Interval
    p: float


def intervals(metric: Metric, statistics: Statistics, resamples: int = RESAMPLES, seed: int = SEED) -> dict[str, Interval]:
    """The 95% bootstrap interval of each of a metric's scores, from the statistics of the rows."""
    table, names = _matrix(statistics)
    return _percentiles([_compute(metric, names, drawn @ table) for drawn in draws(len(table), resamples, seed)], metric.keys)


def differences(
    metric: Metric, a: Statistics, b: Statistics, resamples: int = RESAMPLES, seed: int = SEED
) -> dict[str, Difference]:
    """How each of a metric's scores differs between two outputs, from the statistics of the same rows."""
    import numpy as np

    (first, names), (second, _) = _matrix(a), _matrix(b)

    def difference(of_a: "np.ndarray", of_b: "np.ndarray") -> dict[str, float]:
        minuend, subtrahend = _compute(metric, names, of_b), _compute(metric, names, of_a)
        return {key: minuend[key] - subtrahend[key] for key in metric.keys}

    sums = first.sum(0), second.sum(0)
    observed = difference(*sums)
    bounds = _percentiles([difference(drawn @ first, drawn @ second) for drawn in draws(len(first), resamples, seed)], metric.keys)
    rng = np.random.default_rng([seed, 1])
    as_large = dict.fromkeys(metric.keys, 1)  # the outputs as they are count, too
    for _ in range(resamples):
        moved = rng.integers(0, 2, len(first)) @ (second - first)
        swapped = difference(sums[0] + moved, sums[1] - moved)
        for key in metric.keys:
            as_large[key] += abs(swapped[key]) >= abs(observed[key]) - 1e-12
    return {key: Difference(observed[key], bounds[key], as_large[key] / (resamples + 1)) for key in metric.keys}


def _matrix(statistics: Statistics) -> "tuple[np.ndarray, list[str]]":
    """Statistics as an array, rows x names."""
    import numpy as np

    names = list(statistics[0])
    return np.array([[row[name] for name in names] for row in statistics], dtype=np.float64), names


def draws(rows: int, resamples: int, seed: int = SEED) -> "Iterable[np.ndarray]":
    """How often each row is drawn, ``resamples`` times; the same for the same seed and number of rows."""
    import numpy as np

    rng = np.random.default_rng(seed)
    return (np.bincount(rng.integers(0, rows, rows), minlength=rows) for _ in range(resamples))


def _compute(metric: Metric, names: Sequence[str], sums: "np.ndarray") -> dict[str, float]:
    return metric.compute(dict(zip(names, sums.tolist(), strict=True)))


def _percentiles(scores: Sequence[Mapping[str, float]], keys: Iterable[str]) -> dict[str, Interval]:
    return {key: percentiles([score[key] for score in scores]) for key in keys}


def percentiles(values: Sequence[float]) -> Interval:
    """The interval of a number, from its values in all draws."""
    import numpy as np

    tail = (1 - LEVEL) / 2
    low, high = np.quantile(values, [tail, 1 - tail]).tolist()
    return low, high
