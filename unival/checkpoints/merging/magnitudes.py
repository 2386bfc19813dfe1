"""Exact ranks of magnitudes among many values that are read in slices: which one is the k-th largest, without sorting or keeping them.

The bits of a float32 that is not negative, read as an integer, order as the numbers do.  One pass counts the upper 16 bits, a second
the lower 16 bits of those values whose upper bits are the ones looked for.
"""

from collections.abc import Callable, Hashable
from dataclasses import dataclass, field

import torch
from torch import Tensor

UPPER, LOWER = 1 << 15, 1 << 16  # numbers of values that the two halves of the bits can have


@dataclass
class _Counts:
    upper: Tensor = field(default_factory=lambda: torch.zeros(UPPER, dtype=torch.int64))
    looked_for: list[tuple[int, int]] = field(default_factory=list)  # upper bits, and the rank among the values that have them
    lower: dict[int, Tensor] = field(default_factory=dict)


class Magnitudes:
    """Thresholds of magnitudes for any number of sets of values.

    Args:
        ranks: function of the number of values in a set: the ranks that are looked for, counted from the largest value, from 1.
    """

    passes = 2

    def __init__(self, ranks: Callable[[int], list[int]]):
        self.ranks = ranks
        self.sets: dict[Hashable, _Counts] = {}

    def observe(self, place: Hashable, values: Tensor, number: int) -> None:
        """Read some values of the set ``place`` in pass ``number`` (0 or 1)."""
        counts = self.sets.setdefault(place, _Counts())
        bits = values.abs().float().reshape(-1).view(torch.int32)
        upper = bits >> 16
        if number == 0:
            counts.upper += torch.bincount(upper, minlength=UPPER)
            return
        if not counts.looked_for:
            self._find_upper(counts)
        for half in {half for half, _ in counts.looked_for}:
            found = torch.bincount(bits[upper == half] & (LOWER - 1), minlength=LOWER)
            counts.lower[half] = counts.lower[half] + found if half in counts.lower else found

    def _find_upper(self, counts: _Counts) -> None:
        from_top = counts.upper.flip(0).cumsum(0)
        for rank in self.ranks(int(from_top[-1])):
            place = int(torch.searchsorted(from_top, rank))
            before = int(from_top[place - 1]) if place else 0
            counts.looked_for.append((UPPER - 1 - place, rank - before))

    def thresholds(self, place: Hashable) -> list[float]:
        """The magnitudes of the ranks that are looked for, of the set ``place``."""
        counts = self.sets[place]
        found = []
        for half, rank in counts.looked_for:
            from_top = counts.lower[half].flip(0).cumsum(0)
            low = LOWER - 1 - int(torch.searchsorted(from_top, rank))
            found.append(float(torch.tensor((half << 16) | low, dtype=torch.int32).view(torch.float32)))
        return found


def largest(share: float) -> Callable[[int], list[int]]:
    """Look for the smallest of the largest ``share`` of the values (at least one)."""
    return lambda count: [max(int(share * count), 1)]
