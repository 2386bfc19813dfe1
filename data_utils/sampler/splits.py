"""Held-out content: the objects, pairs of objects, places and background hues that each split may use.

The known objects are arranged in a grid. Objects in one row of the grid meet only in test, objects in one column only in
valid, all others only in training: so held-out groups are cliques and a test scene may hold more than two of them.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np

from .errors import UserError

SPLITS = ("train", "valid", "test", "test_unseen")  # their position is the split number in the seed
HUE_SECTORS = 24
PLACE_CELLS = 12  # per side of the image

Group = tuple[str, ...]


def kind_of(split: str) -> str:
    """The split whose places and hues a split uses: train, valid or test."""
    return "test" if split == "test_unseen" else split


def hues(split: str) -> tuple[int, ...]:
    """The sectors of the colour circle (0..23, 15 degrees each) that backgrounds of ``split`` are drawn from."""
    wanted = {"test": (2,), "valid": (5,), "train": (0, 1, 3, 4)}[kind_of(split)]
    return tuple(sector for sector in range(HUE_SECTORS) if sector % 6 in wanted)


def places(split: str, size: int) -> np.ndarray:
    """size x size booleans: the pixels on which the centre of a sprite may fall. The splits' places are disjoint."""
    cell = np.arange(size) * PLACE_CELLS // size
    colour = (cell[:, None] + 2 * cell[None, :]) % 5
    return {"test": colour == 0, "valid": colour == 1, "train": colour > 1}[kind_of(split)]


@dataclass(frozen=True)
class Plan:
    """Which objects meet in which split. ``rows`` and ``columns`` are the groups held out for test and for valid."""

    known: tuple[str, ...]
    unseen: tuple[str, ...]
    rows: tuple[Group, ...]
    columns: tuple[Group, ...]

    @property
    def held_out(self) -> dict[str, list[tuple[str, str]]]:
        """The pairs (each in alphabetical order) that only valid and only test show."""
        groups = {"valid": self.columns, "test": self.rows}
        return {
            split: sorted((min(pair), max(pair)) for group in members for pair in combinations(group, 2))
            for split, members in groups.items()
        }

    def names_for(self, split: str) -> tuple[str, ...]:
        """The objects that scenes of ``split`` are drawn from."""
        return self.unseen if split == "test_unseen" else self.known

    def draw(self, split: str, count: int, rng: np.random.Generator) -> list[str]:
        """``count`` different objects that may meet in ``split``, in random order."""
        if split == "test_unseen":
            return _pick(self.unseen, count, rng)
        if count == 1:
            return _pick(self.known, 1, rng)
        if split == "train":
            return self._draw_apart(count, rng)
        fitting = [group for group in (self.rows if split == "test" else self.columns) if len(group) >= count]
        return _pick(fitting[rng.integers(len(fitting))], count, rng)

    def _draw_apart(self, count: int, rng: np.random.Generator) -> list[str]:
        """Objects of which no two share a row or a column of the grid."""
        rows, columns = (rng.permutation(len(groups))[:count] for groups in (self.rows, self.columns))
        cells = zip(rows, columns, strict=True)
        drawn = [self.rows[row][column] for row, column in cells if column < len(self.rows[row])]
        return drawn if len(drawn) == count else self._draw_apart(count, rng)


def _pick(names: Sequence[str], count: int, rng: np.random.Generator) -> list[str]:
    return [names[index] for index in rng.permutation(len(names))[:count]]


def make_plan(names: Sequence[str], unseen: int, most: int, seed: int) -> Plan:
    """Set ``unseen`` of ``names`` apart and arrange the others in a grid, for scenes of at most ``most`` objects.

    Raises:
        UserError: too few objects for scenes of ``most``.
    """
    rng = np.random.default_rng([seed, len(SPLITS)])
    order = [names[index] for index in rng.permutation(len(names))]
    apart, known = order[:unseen], order[unseen:]
    width = int(np.ceil(np.sqrt(len(known))))
    rows = [tuple(known[start : start + width]) for start in range(0, len(known), width)]
    columns = [tuple(row[column] for row in rows if column < len(row)) for column in range(width)]
    if min(len(rows[0]), len(columns[0])) < most:
        raise UserError(f"--objects {len(known)}: too few to hold out scenes of {most} (give at least {most * most})")
    if unseen and unseen < most:
        raise UserError(f"--unseen-objects {unseen}: too few for scenes of {most} (give 0 or at least {most})")
    return Plan(tuple(sorted(known)), tuple(sorted(apart)), tuple(rows), tuple(columns))
