"""The loss barrier on the straight path between two models, with a bootstrap interval over the rows of a table."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from unival.metrics.intervals import RESAMPLES, draws, percentiles
from unival.tasks.sweeping.results import Result


@dataclass(frozen=True)
class Barrier:
    """How much higher the loss is between two models than at their ends.

    Attributes:
        height: ``max over lambda of L(lambda) - ((1 - lambda) L(0) + lambda L(1))`` with ``L(lambda)`` the loss of
            ``(1 - lambda) theta_A + lambda theta_B`` in bits per token: the barrier of Entezari et al. 2022 (arXiv:2110.06296).
        instability: ``max over lambda of L(lambda) - (L(0) + L(1)) / 2``: the linear interpolation instability of Frankle et al. 2020
            (arXiv:1912.05671), there of the error rate, here of the loss; it is the barrier's height where both ends have one loss.
        at: the lambda with the barrier's height.
        height_interval, instability_interval: 95% bootstrap intervals: in every draw of rows the maximum is sought again.
        losses: ``L(lambda)`` of each point.
        excess: ``L(lambda)`` minus the straight line, of each point.
    """

    height: float
    instability: float
    at: float
    height_interval: tuple[float, float] | None
    instability_interval: tuple[float, float] | None
    losses: list[float]
    excess: list[float]


def barrier_of(results: Sequence[Result], resamples: int = RESAMPLES) -> Barrier:
    """The barrier of the results on one table, whose first and last points are the models themselves.

    Args:
        results: results of points with rising values, from 0 to 1.
        resamples: draws of rows; 0: no intervals.
    """
    values = np.array([result.value for result in results], dtype=np.float64)
    assert values[0] == 0 and values[-1] == 1, "the ends of the path are needed"
    nll = np.array([result.measured.nll for result in results])  # points x rows
    tokens = np.array(results[0].measured.tokens)
    weights = np.ones(nll.shape[1])
    losses, excess, instability = _path(values, nll, tokens, weights)
    drawn = [_path(values, nll, tokens, draw) for draw in (draws(nll.shape[1], resamples) if resamples else ())]
    return Barrier(
        height=float(excess.max()),
        instability=float(instability),
        at=float(values[excess.argmax()]),
        height_interval=percentiles([float(each.max()) for _, each, _ in drawn]) if drawn else None,
        instability_interval=percentiles([float(each) for _, _, each in drawn]) if drawn else None,
        losses=losses.tolist(),
        excess=excess.tolist(),
    )


def _path(values: np.ndarray, nll: np.ndarray, tokens: np.ndarray, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray, float]:
    """Losses of the points, their excess over the straight line, and the instability, of rows that are there so many times."""
    losses = nll @ weights / max(float(tokens @ weights), 1.0)
    excess = losses - ((1 - values) * losses[0] + values * losses[-1])
    return losses, excess, float(losses.max() - (losses[0] + losses[-1]) / 2)
