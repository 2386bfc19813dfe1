"""Place sprites on a background so that their relations are unambiguous, and draw them."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from . import backgrounds
from .relations import RATIO, Box, Thing
from .sprites import Atlas

# The longer side of a sprite, from and to, as part of the image's side, by number of sprites in the scene.
LONGER_SIDE = {1: (0.45, 0.65), 2: (0.36, 0.47), 3: (0.28, 0.34), 4: (0.25, 0.29)}
MOST = max(LONGER_SIDE)
GAP = 2  # pixels at least between two sprites
_TRIES = 200


@dataclass(frozen=True)
class Scene:
    """Layout of an image: its side in pixels, and for every thing its box and the longer side of its sprite."""

    size: int
    background: backgrounds.Background
    things: tuple[Thing, ...]
    sides: tuple[int, ...]


def compose(
    names: Sequence[str], atlas: Atlas, size: int, places: np.ndarray, sectors: Sequence[int], rng: np.random.Generator
) -> Scene:
    """A scene with one sprite of each of ``names``.

    The first of them has an unambiguous relation (left, right, above or below) to each of the others; no two overlap. ``places``
    (size x size booleans) says where centres may fall, ``sectors`` which hues the background may have.
    """
    things, sides = _place(names, atlas, size, places, rng)
    colours = np.stack([atlas.colour(name) for name in names])
    return Scene(size, backgrounds.draw_recipe(sectors, colours, rng), tuple(things), tuple(sides))


class Looks(Protocol):
    """Source of the sprites of an image: an Atlas, or animated sprites at one time."""

    def pixels(self, name: str, side: int) -> np.ndarray:
        """The sprite called ``name``, H x W x 4 uint8."""


def render(scene: Scene, atlas: Looks, boxes: Sequence[Box] | None = None) -> np.ndarray:
    """The image: size x size x 3, uint8. ``boxes`` moves the sprites elsewhere (same box sizes, later ones on top)."""
    image = backgrounds.paint(scene.background, scene.size)
    for thing, side, box in zip(scene.things, scene.sides, boxes or [thing.box for thing in scene.things], strict=True):
        x0, y0, x1, y1 = box
        sprite = atlas.pixels(thing.name, side).astype(np.uint16)
        assert sprite.shape[:2] == (y1 - y0, x1 - x0), f"{thing.name}: its box is {box}, its sprite {sprite.shape[:2]}"
        alpha = sprite[..., 3:]
        below = image[y0:y1, x0:x1].astype(np.uint16)
        image[y0:y1, x0:x1] = (sprite[..., :3] * alpha + below * (255 - alpha) + 127) // 255
    return image


def _place(
    names: Sequence[str], atlas: Atlas, size: int, places: np.ndarray, rng: np.random.Generator
) -> tuple[list[Thing], list[int]]:
    low, high = LONGER_SIDE[len(names)]
    for _ in range(_TRIES):
        sides = [int(side) for side in rng.integers(round(low * size), round(high * size) + 1, len(names))]
        things: list[Thing] = []
        for name, side in zip(names, sides, strict=True):
            height, width = atlas.pixels(name, side).shape[:2]
            allowed = _allowed(things, width, height, places, sideways=bool(rng.integers(2)))
            spots = np.flatnonzero(allowed)
            if not len(spots):
                break
            y, x = divmod(int(spots[rng.integers(len(spots))]), allowed.shape[1])
            things.append(Thing(name, (x, y, x + width, y + height)))
        if len(things) == len(names):
            return things, sides
    raise AssertionError(f"no room for {', '.join(names)} at {size} pixels in {_TRIES} tries")


def _allowed(things: Sequence[Thing], width: int, height: int, places: np.ndarray, sideways: bool) -> np.ndarray:
    """Where the upper left corner of a width x height box may go: (size - height + 1) x (size - width + 1) booleans."""
    size = len(places)
    top, left = height // 2, width // 2
    allowed = places[top : top + size - height + 1, left : left + size - width + 1].copy()
    x, y = np.arange(allowed.shape[1])[None, :], np.arange(allowed.shape[0])[:, None]
    for number, thing in enumerate(things):
        x0, y0, x1, y1 = thing.box
        apart_x = (x >= x1 + GAP) | (x + width + GAP <= x0)
        apart_y = (y >= y1 + GAP) | (y + height + GAP <= y0)
        if number:
            allowed &= apart_x | apart_y
            continue
        across = np.abs(2 * x + width - x0 - x1)  # twice the distance of the centres
        down = np.abs(2 * y + height - y0 - y1)
        allowed &= (apart_x & (across >= RATIO * down)) if sideways else (apart_y & (down >= RATIO * across))
    return allowed
