"""Drawn sprites: a shape in a colour ("a red star"), with alpha. They need no download."""

import math
from collections.abc import Callable

import numpy as np
from PIL import Image, ImageDraw

from .sprites import Sprite, crop_visible

SIDE = 128  # pixels of a finished sprite
_OVERSAMPLING = 4  # drawn larger, then reduced, for smooth edges

COLOURS = {
    "red": (220, 30, 35),
    "orange": (250, 140, 20),
    "yellow": (250, 225, 40),
    "green": (30, 150, 50),
    "blue": (35, 70, 215),
    "purple": (125, 40, 165),
    "pink": (250, 150, 190),
    "brown": (115, 70, 35),
    "black": (20, 20, 20),
    "white": (250, 250, 250),
    "gray": (130, 130, 130),
    "turquoise": (60, 215, 205),
}

Points = list[tuple[float, float]]


def _polygon(corners: int, turn: float = 0.0, inner: float = 1.0) -> Points:
    """Corners on a circle in the unit square; every second one lies nearer the centre by the factor `inner`."""
    angles = ((turn + 360 * corner / corners) * math.pi / 180 for corner in range(corners))
    radii = (0.5 * (inner if corner % 2 else 1.0) for corner in range(corners))
    polar = zip(angles, radii, strict=True)
    return [(0.5 + radius * math.sin(angle), 0.5 - radius * math.cos(angle)) for angle, radius in polar]


def _heart() -> Points:
    points = []
    for step in range(120):
        turn = 2 * math.pi * step / 120
        x = 16 * math.sin(turn) ** 3
        y = 13 * math.cos(turn) - 5 * math.cos(2 * turn) - 2 * math.cos(3 * turn) - math.cos(4 * turn)
        points.append((0.5 + x / 34, 0.45 - y / 34))
    return points


_ARROW: Points = [(0, 0.35), (0.5, 0.35), (0.5, 0.1), (1, 0.5), (0.5, 0.9), (0.5, 0.65), (0, 0.65)]
_BOLT: Points = [(0.55, 0), (0.15, 0.55), (0.45, 0.55), (0.3, 1), (0.85, 0.38), (0.52, 0.38), (0.8, 0)]
_CROSS: Points = [
    (0.33, 0), (0.67, 0), (0.67, 0.33), (1, 0.33), (1, 0.67), (0.67, 0.67),
    (0.67, 1), (0.33, 1), (0.33, 0.67), (0, 0.67), (0, 0.33), (0.33, 0.33),
]  # fmt: skip

Draw = Callable[[ImageDraw.ImageDraw, float], None]


def _filled(points: Points) -> Draw:
    return lambda draw, side: draw.polygon([(x * side, y * side) for x, y in points], fill=255)


def _disc(draw: ImageDraw.ImageDraw, side: float, hole: tuple[float, float, float] | None = None) -> None:
    """A full circle, less a `hole` given as centre x, centre y and radius in units of the side."""
    draw.ellipse((0, 0, side - 1, side - 1), fill=255)
    if hole is not None:
        x, y, radius = hole
        draw.ellipse(((x - radius) * side, (y - radius) * side, (x + radius) * side, (y + radius) * side), fill=0)


SHAPES: dict[str, Draw] = {
    "circle": _disc,
    "square": _filled([(0, 0), (1, 0), (1, 1), (0, 1)]),
    "triangle": _filled([(0.5, 0), (1, 0.9), (0, 0.9)]),
    "diamond": _filled([(0.5, 0), (0.85, 0.5), (0.5, 1), (0.15, 0.5)]),
    "star": _filled(_polygon(10, inner=0.42)),
    "heart": _filled(_heart()),
    "cross": _filled(_CROSS),
    "hexagon": _filled(_polygon(6, turn=30)),
    "ring": lambda draw, side: _disc(draw, side, hole=(0.5, 0.5, 0.27)),
    "crescent": lambda draw, side: _disc(draw, side, hole=(0.72, 0.5, 0.42)),
    "arrow": _filled(_ARROW),
    "bolt": _filled(_BOLT),
}


def draw_shape(colour: str, shape: str) -> Sprite:
    """The sprite "`colour` `shape`", with a darker rim so that it stands out from a background of its own colour."""
    side = SIDE * _OVERSAMPLING
    mask = Image.new("L", (side, side), 0)
    SHAPES[shape](ImageDraw.Draw(mask), side)
    alpha = np.asarray(mask.resize((SIDE, SIDE), Image.Resampling.BOX))
    inside = np.asarray(Image.fromarray(alpha).resize((SIDE - 10, SIDE - 10), Image.Resampling.BOX))
    shade = np.full((SIDE, SIDE), 0.7)
    shade[5:-5, 5:-5] = 0.7 + 0.3 * (inside / 255.0)
    rgb = np.asarray(COLOURS[colour], dtype=np.float64) * shade[..., None]
    pixels = np.concatenate([np.rint(rgb).astype(np.uint8), alpha[..., None]], axis=2)
    return Sprite(f"{colour} {shape}", crop_visible(pixels), f"drawn: {colour} {shape}", drawing=True)


def all_shapes() -> list[Sprite]:
    """Every shape in every colour."""
    return [draw_shape(colour, shape) for shape in SHAPES for colour in COLOURS]
