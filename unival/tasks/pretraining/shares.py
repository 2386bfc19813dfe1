"""Balancing: the share of each stream in the rows of a stage.

======================  ================================================================================
``proportional``        a stream's rows, at most its ``cap``, of the rows of all
``equal``               the same for all
``{temperature: t}``    proportional shares to the power 1 / t, divided by their sum (1: proportional)
``weights``             the stream's ``weight``, divided by the sum
======================  ================================================================================
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

KINDS = ("proportional", "equal", "weights")


@dataclass(frozen=True)
class Balancing:
    """How shares follow from rows and weights: one of ``KINDS``, or ``temperature`` with a number."""

    kind: str = "proportional"
    temperature: float = 1.0

    def __str__(self) -> str:
        return f"temperature: {self.temperature:g}" if self.kind == "temperature" else self.kind


def shares(balancing: Balancing, rows: Sequence[int], weights: Sequence[float]) -> list[float]:
    """The share of each stream; they add up to 1.

    Args:
        balancing: how.
        rows: rows of each stream, those above its ``cap`` not counted.
        weights: of each stream; some are above 0.
    """
    amounts: Sequence[float] = {"equal": [1.0] * len(rows), "weights": weights}.get(balancing.kind, rows)
    if balancing.kind == "temperature":
        amounts = [(count / sum(rows)) ** (1 / balancing.temperature) for count in rows]
    total = sum(amounts)
    return [amount / total for amount in amounts]


def moving(before: Sequence[float], after: Sequence[float], updates: int) -> Callable[[int], list[float]]:
    """Shares that go from some to others in so many updates, linearly; called with the number of updates done."""

    def at(done: int) -> list[float]:
        part = min(done / updates, 1.0)
        return [first * (1 - part) + last * part for first, last in zip(before, after, strict=True)]

    return at
