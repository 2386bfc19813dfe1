"""Choose among points by their scores on validation tables, and find what the chosen ones score in the test."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from unival.tasks.sweeping.results import Result
from unival.tasks.sweeping.table import LOSS

LOWER = (LOSS,)  # scores of which less is better
ALL = "all tables"


@dataclass(frozen=True)
class Choice:
    """A point that was chosen.

    Attributes:
        name: what for: a table, or all together.
        point: name of the point.
        said: its score in validation, in words.
        tests: its results on test tables.
    """

    name: str
    point: str
    said: str
    tests: tuple[Result, ...]


def choices(results: Sequence[Result]) -> list[Choice]:
    """The best point of each table with a validation table, and the best for all of these together.

    Together, points are compared by the mean of what share of the best score of any point they have on each table; a share of the loss
    is the best loss divided by the point's.  Of equal points the first one is chosen.
    """
    valid: dict[str, dict[str, Result]] = {}
    for result in results:
        if result.part == "valid":
            valid.setdefault(result.table, {})[result.point] = result
    tests = [result for result in results if result.part == "test"]
    found = []
    shares: dict[str, list[float]] = {}
    for table, points in valid.items():
        best = best_of(points)
        tested = tuple(result for result in tests if (result.table, result.point) == (table, best.point))
        found.append(Choice(table, best.point, f"{best.metric} {best.score:.4f}", tested))
        for name, result in points.items():
            shares.setdefault(name, []).append(share(result, best))
    if len(found) > 1:
        name = max(shares, key=lambda point: sum(shares[point]))
        mean = sum(shares[name]) / len(found)
        tested = tuple(result for result in tests if result.point == name)
        found.append(Choice(ALL, name, f"{mean:.1%} of the best scores on average", tested))
    return found


def best_of(points: Mapping[str, Result]) -> Result:
    """The best of the results of one table; the first one of equal ones."""
    best, *others = points.values()
    for result in others:
        best = result if is_better(result, best) else best
    return best


def is_better(a: Result, b: Result) -> bool:
    """Whether a result's score is better than another one's on the same table."""
    return a.score < b.score if a.metric in LOWER else a.score > b.score


def share(result: Result, best: Result) -> float:
    """The share of the best score that a point has, from 0 to 1."""
    ours, theirs = (best, result) if result.metric in LOWER else (result, best)
    return ours.score / theirs.score if theirs.score else 1.0
