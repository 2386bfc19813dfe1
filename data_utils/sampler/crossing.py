"""Scenes in which one sprite passes behind or in front of another, and a good part of the rear one is hidden."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from . import backgrounds
from .motion import Motion, Track
from .names import with_article
from .relations import Box, Thing
from .scene import GAP, Scene
from .sprites import VISIBLE, Atlas

LONGER_SIDE = (0.27, 0.31)  # of a sprite, as part of the image's side: three of them fit side by side
BEHIND, IN_FRONT = "behind", "in front of"
LEAST_HIDDEN = 0.35  # part of the rear sprite's visible pixels that are hidden in some frame
_LEAST_SHARED = 0.6  # of the shorter side across the way: how far the two lie on one line
_TRIES = 300
_FORWARD = {0: "to the right", 1: "down"}
_BACKWARD = {0: "to the left", 1: "up"}


@dataclass(frozen=True)
class Crossing(Motion):
    """A scene of two things, the rear one first, in which the one called ``mover`` passes the other."""

    mover: str

    @property
    def other(self) -> str:
        """The name of the thing that stays."""
        return next(thing.name for thing in self.scene.things if thing.name != self.mover)

    @property
    def depth(self) -> str:
        """How the mover passes the other: "behind" or "in front of"."""
        return BEHIND if self.scene.things[0].name == self.mover else IN_FRONT

    def captions(self) -> list[str]:
        """ Captions such as "a red flag moves to the left behind a tiger"."""
        direction = next(track.direction for track in self.tracks if track.direction)
        one, other = with_article(self.mover), with_article(self.other)
        return [
            f"{one} moves {direction} {self.depth} {other}",
            f"{one} moves {direction} and passes {self.depth} {other}",
            f"{one} passes {self.depth} {other} and moves {direction}",
            f"{one} moves {direction} {self.depth} {other} that stays still",
        ]


def plan_crossing(
    names: Sequence[str], atlas: Atlas, places: np.ndarray, sectors: Sequence[int], frames: int, rng: np.random.Generator
) -> Crossing | None:
    """A random crossing of the first of ``names`` past the second; None if there is no room.

    ``places`` (size x size booleans) marks where both centres may be at the start; ``sectors`` are the hues that the background
    may have. The rear sprite is plainly hidden in at least one of ``frames`` frames.
    """
    mover, other = names
    size = len(places)
    low, high = LONGER_SIDE
    for _ in range(_TRIES):
        drawn_sides = rng.integers(round(low * size), round(high * size) + 1, 2)
        sides = {name: int(side) for name, side in zip(names, drawn_sides, strict=True)}
        shapes = {name: atlas.pixels(name, sides[name]).shape[1::-1] for name in names}  # width, height
        drawn = _draw_way(shapes[mover], shapes[other], size, rng)
        if drawn is None:
            continue
        start, end, still, direction = drawn
        if not (_within(start, places) and _within(still, places)):
            continue
        tracks = [Track(mover, start, end, direction), Track(other, still, still, None)]
        if rng.integers(2):
            tracks.reverse()  # the mover in front
        things = tuple(Thing(track.name, track.start) for track in tracks)
        masks = [atlas.pixels(thing.name, sides[thing.name])[..., 3] >= VISIBLE for thing in things]
        if hidden(tracks, masks, size, frames) < LEAST_HIDDEN:
            continue
        colours = np.stack([atlas.colour(name) for name in names])
        background = backgrounds.draw_recipe(sectors, colours, rng)
        ordered = tuple(sides[thing.name] for thing in things)
        return Crossing(Scene(size, background, things, ordered), tuple(tracks), mover)
    return None


def _draw_way(
    mover: tuple[int, int], other: tuple[int, int], size: int, rng: np.random.Generator
) -> tuple[Box, Box, Box, str] | None:
    """Boxes of the mover at the start and at the end, box of the other, and the direction; None if there is no room."""
    axis = int(rng.integers(2))  # 0: to a side, 1: up or down
    across = 1 - axis
    least = mover[axis] + GAP
    if size - least - other[axis] < least:
        return None
    middle = int(rng.integers(least, size - least - other[axis] + 1))  # the other's upper or left edge along the way
    before = int(rng.integers(0, middle - least + 1))
    after = int(rng.integers(middle + other[axis] + GAP, size - mover[axis] + 1))
    shared = round(_LEAST_SHARED * min(mover[across], other[across]))
    edge = int(rng.integers(0, size - other[across] + 1))
    low = max(0, edge + shared - mover[across])
    high = min(size - mover[across], edge + other[across] - shared)
    if low > high:
        return None
    line = int(rng.integers(low, high + 1))

    def box(along: int, aside: int, shape: tuple[int, int]) -> Box:
        x, y = (along, aside) if axis == 0 else (aside, along)
        return x, y, x + shape[0], y + shape[1]

    first, last, still = box(before, line, mover), box(after, line, mover), box(middle, edge, other)
    if rng.integers(2):
        return first, last, still, _FORWARD[axis]
    return last, first, still, _BACKWARD[axis]


def _within(box: Box, places: np.ndarray) -> bool:
    x0, y0, x1, y1 = box
    return bool(places[y0 + (y1 - y0) // 2, x0 + (x1 - x0) // 2])


def hidden(tracks: Sequence[Track], masks: Sequence[np.ndarray], size: int, frames: int) -> float:
    """The largest part of the rear thing's visible pixels that is hidden in any of ``frames`` frames.

    ``masks`` are the visible pixels of both (H x W booleans), the rear one first.
    """
    most = 0.0
    for moment in np.linspace(0.0, 1.0, frames):
        covers = []
        for track, mask in zip(tracks, masks, strict=True):
            x0, y0, x1, y1 = track.at(float(moment))
            cover = np.zeros((size, size), dtype=bool)
            cover[y0:y1, x0:x1] = mask
            covers.append(cover)
        most = max(most, float((covers[0] & covers[1]).sum() / masks[0].sum()))
    return most
