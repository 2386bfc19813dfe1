"""Backgrounds: plain, gradient, noise or texture, in colours of given hue sectors."""

import colorsys
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image

from .splits import HUE_SECTORS

KINDS = ("plain", "gradient", "noise", "texture")
TEXTURES = ("stripes", "checks", "dots", "waves")
_SATURATION = (0.25, 0.85)  # never grey, so that the hue of a background is defined
_VALUE = (0.4, 1.0)
_CONTRAST = 90.0  # distance in RGB (0..255 each) that is enough between a sprite's mean colour and its background
_TRIES = 8


@dataclass(frozen=True)
class Background:
    """Parameters of a background: kind, two colours (RGB, 0..255) of one hue sector, and a seed for details."""

    kind: str
    colours: tuple[tuple[int, int, int], tuple[int, int, int]]
    sector: int
    seed: int


def draw_recipe(sectors: Sequence[int], avoid: np.ndarray, rng: np.random.Generator) -> Background:
    """A random recipe in one of ``sectors``, with colours far from those in ``avoid`` (n x 3, 0..255)."""
    kind = KINDS[rng.integers(len(KINDS))]
    best, best_distance = None, -1.0
    for _ in range(_TRIES):
        sector = int(sectors[int(rng.integers(len(sectors)))])
        colours = (_colour(sector, rng), _colour(sector, rng))
        found = float(np.sqrt(((np.asarray(colours)[:, None] - avoid[None]) ** 2).sum(-1)).min())
        if found > best_distance:
            best, best_distance = (sector, colours), found
        if found >= _CONTRAST:
            break
    assert best is not None, "no background was tried"
    return Background(kind, best[1], best[0], int(rng.integers(2**31)))


def _colour(sector: int, rng: np.random.Generator) -> tuple[int, int, int]:
    hue, saturation, value = rng.random(3)
    red, green, blue = colorsys.hsv_to_rgb(
        (sector + 0.1 + 0.8 * hue) / HUE_SECTORS,
        _SATURATION[0] + saturation * (_SATURATION[1] - _SATURATION[0]),
        _VALUE[0] + value * (_VALUE[1] - _VALUE[0]),
    )
    return round(255 * red), round(255 * green), round(255 * blue)


def paint(background: Background, size: int) -> np.ndarray:
    """Draw ``background``: size x size x 3, uint8."""
    rng = np.random.default_rng(background.seed)
    first, second = (np.asarray(colour, dtype=np.float32) for colour in background.colours)
    if background.kind == "plain":
        return np.broadcast_to(first.astype(np.uint8), (size, size, 3)).copy()
    weights = {"gradient": _gradient, "noise": _noise, "texture": _texture}[background.kind](size, rng)[..., None]
    return np.rint(first + (second - first) * weights).astype(np.uint8)


def _grid(size: int) -> tuple[np.ndarray, np.ndarray]:
    """Columns and rows from -0.5 to 0.5, to be broadcast to size x size."""
    line = np.linspace(-0.5, 0.5, size, dtype=np.float32)
    return line[None, :], line[:, None]


def _slope(size: int, rng: np.random.Generator) -> np.ndarray:
    """Position of every pixel along a random direction, about -0.7 to 0.7: size x size."""
    angle = rng.random() * 2 * np.pi
    x, y = _grid(size)
    return x * np.float32(np.cos(angle)) + y * np.float32(np.sin(angle))


def _gradient(size: int, rng: np.random.Generator) -> np.ndarray:
    return np.clip(_slope(size, rng) + 0.5, 0.0, 1.0)


def _noise(size: int, rng: np.random.Generator) -> np.ndarray:
    """Smooth noise with fine grain."""
    cells = int(rng.integers(3, 9))
    coarse = Image.fromarray(rng.integers(0, 256, (cells, cells), dtype=np.uint8))
    clouds = np.asarray(coarse.resize((size, size), Image.Resampling.BICUBIC), dtype=np.float32)
    grain = rng.integers(0, 256, (size, size), dtype=np.uint8)
    return (0.8 * clouds + 0.2 * grain) / np.float32(255)


def _texture(size: int, rng: np.random.Generator) -> np.ndarray:
    """A regular pattern; only a third of the way to the second colour, so that sprites stay easy to see."""
    kind = TEXTURES[rng.integers(len(TEXTURES))]
    repeats = float(rng.uniform(5, 12))
    x, y = _grid(size)
    if kind == "stripes":
        pattern = (_slope(size, rng) * repeats) % 1.0 < 0.5
    elif kind == "checks":
        pattern = ((x * repeats) % 1.0 < 0.5) ^ ((y * repeats) % 1.0 < 0.5)
    elif kind == "dots":
        pattern = ((x * repeats) % 1.0 - 0.5) ** 2 + ((y * repeats) % 1.0 - 0.5) ** 2 < 0.09
    else:
        pattern = (y * repeats + 0.35 * np.sin(x * (4 * np.pi))) % 1.0 < 0.5
    return pattern.astype(np.float32) * np.float32(0.35)
