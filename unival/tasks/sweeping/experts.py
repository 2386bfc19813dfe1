"""Choose the models that are worth merging, by their scores on a validation table."""

from collections.abc import Sequence
from dataclasses import dataclass

from unival.checkpoints.merging.points import Point
from unival.tasks.sweeping.choice import is_better
from unival.tasks.sweeping.results import Result, Results
from unival.tasks.sweeping.sweep import Sweep, Told


@dataclass(frozen=True)
class Experts:
    """What was chosen.

    Attributes:
        numbers: places of the chosen models among all, in their order.
        alone: the results of the models alone.
        soups: results of the averages that a greedy soup tried, in order; empty without.
    """

    numbers: list[int]
    alone: list[Result]
    soups: list[Result]


def best_experts(sweep: Sweep, count: int, told: Told) -> Experts:
    """The ``count`` models with the best scores, as expert language models are chosen for a task (Jang et al. 2023, arXiv:2302.03202)."""
    alone = _alone(sweep, told)
    return Experts(sorted(_ranked(alone)[:count]), alone, [])


def greedy_soup(sweep: Sweep, told: Told) -> Experts:
    """Greedy soup (Wortsman et al. 2022, arXiv:2203.05482): from the best model on, in the order of their scores, each model joins the
    average if the average is not worse with it."""
    alone = _alone(sweep, told)
    first, *others = _ranked(alone)
    chosen, best, soups = [first], alone[first], []
    for number in others:
        found = _evaluate(sweep, [*chosen, number], told)
        soups.append(found)
        if not is_better(best, found):
            chosen, best = [*chosen, number], found
    return Experts(sorted(chosen), alone, soups)


def _alone(sweep: Sweep, told: Told) -> list[Result]:
    return [_evaluate(sweep, [number], told) for number in range(len(sweep.models))]


def _evaluate(sweep: Sweep, numbers: Sequence[int], told: Told) -> Result:
    """The result of the average of some models."""
    names = [sweep.models[number].name for number in numbers]
    coefficients = [1 / len(numbers) if number in numbers else 0.0 for number in range(len(sweep.models))]
    (result,) = sweep.run([Point(" + ".join(names), None, coefficients)], Results(None), told)
    return result


def _ranked(results: Sequence[Result]) -> list[int]:
    """Places of results, the best first; of equal ones the earlier one first."""
    return sorted(range(len(results)), key=lambda place: sum(is_better(other, results[place]) for other in results))
