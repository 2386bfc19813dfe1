"""The barrier of a path, against its formula worked out by hand."""

import pytest

from unival.tasks.sweeping.barrier import barrier_of
from unival.tasks.sweeping.results import Result
from unival.tasks.sweeping.table import Measured


def path(*losses, tokens):
    """Results of points at even distances; ``losses``: of each row, summed over its tokens, point by point."""
    return [
        Result("a", "test", f"{i}", "lambda", i / (len(losses) - 1), {}, Measured({}, {}, list(map(float, nll)), list(tokens)), "loss")
        for i, nll in enumerate(losses)
    ]


def test_formula():
    """Losses per token 1, 3, 2.5, 3 of five tokens: the straight line at 1/3 is 5/3, so the barrier is 4/3; the instability 3 - 2."""
    found = barrier_of(path((2, 3), (7, 8), (5, 7.5), (8, 7), tokens=(2, 3)), resamples=0)
    assert found.losses == pytest.approx([1, 3, 2.5, 3])
    assert found.excess == pytest.approx([0, 4 / 3, 1 / 6, 0])
    assert (found.height, found.at, found.instability) == pytest.approx((4 / 3, 1 / 3, 1))
    assert found.height_interval is None


def test_interval():
    """Rows that are all alike leave nothing to chance; of rows that differ the interval is as wide as theirs."""
    alike = barrier_of(path(*([loss] * 9 for loss in (2, 8, 4)), tokens=[2] * 9), resamples=50)
    assert alike.height_interval == pytest.approx((2.5, 2.5)) and alike.instability_interval == pytest.approx((2.5, 2.5))
    differ = barrier_of(path([2] * 100, [4] * 50 + [12] * 50, [4] * 100, tokens=[2] * 100), resamples=300)
    low, high = differ.height_interval
    error = 2 / 10  # of a mean of 100 rows with standard deviation 2
    assert differ.height == pytest.approx(2.5)
    assert (low, high) == pytest.approx((2.5 - 1.96 * error, 2.5 + 1.96 * error), abs=0.08)


def test_a_path_downhill_has_no_barrier():
    assert barrier_of(path([6], [3], [1], tokens=[1]), resamples=5).height == 0
