"""Sprites: cut-outs with alpha and a name, a choice of sprites that differ clearly, and their resized copies."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from PIL import Image

from .names import contain

VISIBLE = 48  # alpha (0..255) from which a pixel counts as part of the sprite: boxes bound these pixels
_FEATURE_SIDE = 16  # pixels; two sprites are compared as thumbnails of this side
# Tried in turn as the least distance between two sprites: root mean square over a thumbnail, 0..1.
_DISTANCES = (0.26, 0.24, 0.22, 0.20, 0.18, 0.16, 0.14, 0.12, 0.10, 0.08, 0.06)


@dataclass(frozen=True)
class Sprite:
    """A cut-out: ``pixels`` are H x W x 4 (RGBA, uint8), cropped to what is visible; ``source`` says where it came from."""

    name: str
    pixels: np.ndarray
    source: str
    drawing: bool = False


def crop_visible(pixels: np.ndarray) -> np.ndarray:
    """The part of H x W x 4 ``pixels`` that bounds every pixel with alpha >= VISIBLE; 0 x 0 x 4 when none is."""
    rows, columns = (np.flatnonzero((pixels[..., 3] >= VISIBLE).any(axis)) for axis in (1, 0))
    if not len(rows):
        return pixels[:0, :0]
    return pixels[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]


def resize(pixels: np.ndarray, side: int) -> np.ndarray:
    """``pixels`` (H x W x 4) with the longer side of the visible part as near to ``side`` pixels as a resize gets."""
    return crop_visible(np.asarray(Image.fromarray(pixels).resize(fit(pixels, side), Image.Resampling.LANCZOS)))


def feature(sprite: Sprite) -> np.ndarray:
    """Feature of a sprite for comparison: a thumbnail in its aspect ratio, premultiplied RGB and alpha, 0..1."""
    image = Image.fromarray(sprite.pixels).convert("RGBa")
    small = np.asarray(image.resize(fit(sprite.pixels, _FEATURE_SIDE), Image.Resampling.BOX))
    canvas = np.zeros((_FEATURE_SIDE, _FEATURE_SIDE, 4), dtype=np.float64)
    top, left = ((_FEATURE_SIDE - side) // 2 for side in small.shape[:2])
    canvas[top : top + small.shape[0], left : left + small.shape[1]] = small / 255.0
    return canvas


def fit(pixels: np.ndarray, side: int) -> tuple[int, int]:
    """Width and height with the longer one ``side`` and the aspect ratio of ``pixels``."""
    height, width = pixels.shape[:2]
    scale = side / max(height, width)
    return max(1, round(width * scale)), max(1, round(height * scale))


def distance(one: np.ndarray, other: np.ndarray) -> float:
    """Distance of two features, 0..1; mirror images have distance 0."""
    return min(float(np.sqrt(np.mean((one - view) ** 2))) for view in (other, other[:, ::-1]))


def choose(candidates: Sequence[Sprite], count: int) -> list[Sprite]:
    """At most ``count`` of ``candidates`` (best first) that differ to the eye, with names that do not contain one another.

    Takes in turn every candidate at least some distance from all that were taken, and lowers that distance until
    there are enough.
    """
    features = [feature(sprite) for sprite in candidates]
    taken: list[int] = []
    for least in _DISTANCES:
        for number, sprite in enumerate(candidates):
            if len(taken) == count:
                return [candidates[index] for index in sorted(taken)]
            if any(number == index or contain(sprite.name, candidates[index].name) for index in taken):
                continue
            if all(distance(features[number], features[index]) >= least for index in taken):
                taken.append(number)
    return [candidates[index] for index in sorted(taken)]


@dataclass
class Atlas:
    """Sprites by name, with a cache of resized copies."""

    sprites: Sequence[Sprite]
    _resized: dict[tuple[str, int], np.ndarray] = field(default_factory=dict, repr=False)

    def __post_init__(self) -> None:
        self._by_name = {sprite.name: sprite for sprite in self.sprites}
        assert len(self._by_name) == len(self.sprites), "two sprites have one name"

    def pixels(self, name: str, side: int) -> np.ndarray:
        """The sprite called ``name``, H x W x 4 uint8 with the longer side about ``side`` pixels."""
        key = (name, side)
        if key not in self._resized:
            self._resized[key] = resize(self._by_name[name].pixels, side)
        return self._resized[key]

    def colour(self, name: str) -> np.ndarray:
        """The mean visible colour of a sprite: 3 floats, 0..255."""
        pixels = self.pixels(name, 16).reshape(-1, 4).astype(np.float64)
        return (pixels[:, :3] * pixels[:, 3:]).sum(0) / pixels[:, 3].sum()
