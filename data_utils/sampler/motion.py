"""Moving scenes: a straight track per sprite, their frames and their captions."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import permutations

import numpy as np

from .names import join_words, with_article
from .relations import Box, Thing, reading_order
from .scene import GAP, Scene, render
from .sprites import Atlas

STEPS = {"to the right": (1, 0), "to the left": (-1, 0), "down": (0, 1), "up": (0, -1)}
LEAST = 0.15  # part of the image's side that a moving sprite travels at least
_CHECKS = 48  # moments at which tracks are compared; a sprite moves at most 2 pixels between two of them at 96 pixels


@dataclass(frozen=True)
class Track:
    """Straight track of a sprite from the box ``start`` to the box ``end`` at constant speed; ``direction`` is None if it stays."""

    name: str
    start: Box
    end: Box
    direction: str | None

    def at(self, moment: float) -> Box:
        """The box at ``moment``: 0 is the start, 1 the end."""
        x, y = (round((1 - moment) * self.start[axis] + moment * self.end[axis]) for axis in (0, 1))
        return x, y, x + self.start[2] - self.start[0], y + self.start[3] - self.start[1]


@dataclass(frozen=True)
class Motion:
    """A scene and the track of each of its things (same order)."""

    scene: Scene
    tracks: tuple[Track, ...]

    def boxes(self, moment: float) -> list[Box]:
        """Every sprite's box at ``moment``, 0..1."""
        return [track.at(moment) for track in self.tracks]

    def frames(self, count: int, atlas: Atlas) -> np.ndarray:
        """``count`` frames from start to end, evenly spaced in time: count x size x size x 3, uint8."""
        moments = np.linspace(0.0, 1.0, count)
        return np.stack([render(self.scene, atlas, self.boxes(float(moment))) for moment in moments])

    def caption(self) -> str:
        """ The canonical caption, in reading order of the starts: "a tiger moves to the right and a red flag stays still"."""
        return self.captions()[0]

    def captions(self) -> list[str]:
        """Every acceptable caption: the canonical one, then the same clauses in every other order."""
        said = {track.name: f"{with_article(track.name)} {self._verb(track)}" for track in self.tracks}
        clauses = [said[thing.name] for thing in reading_order(self.scene.things)]
        return [join_words(order) for order in permutations(clauses)]

    @staticmethod
    def _verb(track: Track) -> str:
        return f"moves {track.direction}" if track.direction else "stays still"


def plan_motion(scene: Scene, rng: np.random.Generator, least: float = LEAST) -> Motion:
    """Random tracks within the image that never meet. A sprite without a free track stays, and so does one in five.

    ``least`` is the least distance of a moving sprite, as a fraction of the image's side.
    """
    tracks: list[Track] = [Track(thing.name, thing.box, thing.box, None) for thing in scene.things]
    for number in rng.permutation(len(tracks)):
        if rng.integers(5) == 0:
            continue
        others = [track for index, track in enumerate(tracks) if index != number]
        free = [track for track in _tracks(scene.things[number], scene.size, least, rng) if not _meets(track, others)]
        if free:
            tracks[number] = free[rng.integers(len(free))]
    return Motion(scene, tuple(tracks))


def _tracks(thing: Thing, size: int, least_part: float, rng: np.random.Generator) -> list[Track]:
    """A track of random length in every direction that has room for one."""
    x0, y0, x1, y1 = thing.box
    room = {"to the right": size - x1, "to the left": x0, "down": size - y1, "up": y0}
    least = max(1, round(least_part * size))
    found = []
    for direction, (dx, dy) in STEPS.items():
        if room[direction] >= least:
            way = int(rng.integers(least, room[direction] + 1))
            end = (x0 + dx * way, y0 + dy * way, x1 + dx * way, y1 + dy * way)
            found.append(Track(thing.name, thing.box, end, direction))
    return found


def _meets(track: Track, others: Sequence[Track]) -> bool:
    """Whether ``track`` comes nearer than GAP pixels to one of ``others`` at any time."""
    for moment in np.linspace(0.0, 1.0, _CHECKS + 1):
        x0, y0, x1, y1 = track.at(float(moment))
        for other in others:
            ox0, oy0, ox1, oy1 = other.at(float(moment))
            if x0 < ox1 + GAP and ox0 < x1 + GAP and y0 < oy1 + GAP and oy0 < y1 + GAP:
                return True
    return False
