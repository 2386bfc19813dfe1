"""Drawn sprites: a simple drawing in a colour ("a red house"), with alpha. They need no download.

Each drawing has details of its own (windows, dots, stripes), so that it can be told from the others by parts as well as by its
outline: outlines alone (a square, a hexagon, a circle) are learnt last by a network that sees 40 pixels of them.
"""

import math
from collections.abc import Callable, Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

from .sprites import Sprite, crop_visible

SIDE = 128  # pixels of a finished sprite
_OVERSAMPLING = 4  # drawn larger, then reduced, for smooth edges
_RIM = 4  # pixels of the darker rim, by which a sprite stands out from a background of its own colour
_RIM_SHADE = 0.5

Colour = tuple[int, int, int]
Point = tuple[float, float]

WHITE: Colour = (250, 250, 250)  # for details only: no thing is called white or black
DARK: Colour = (25, 25, 30)
COLOURS: dict[str, Colour] = {
    "red": (215, 25, 30),
    "orange": (250, 140, 20),
    "yellow": (250, 225, 40),
    "green": (30, 150, 50),
    "blue": (35, 70, 215),
    "purple": (125, 40, 165),
    "pink": (250, 150, 190),
    "brown": (120, 70, 30),
    "gray": (130, 130, 130),
    "turquoise": (60, 215, 205),
}


class Pen:
    """Draw in a unit square, x to the right and y down, on a transparent ground."""

    def __init__(self, side: int) -> None:
        self.side = side
        self.image = Image.new("RGBA", (side, side), (0, 0, 0, 0))
        self._draw = ImageDraw.Draw(self.image)

    def area(self, colour: Colour | None, *points: Point) -> None:
        """A polygon; without a colour, a hole."""
        self._draw.polygon([(x * self.side, y * self.side) for x, y in points], fill=_fill(colour))

    def box(self, colour: Colour | None, left: float, top: float, right: float, bottom: float) -> None:
        """An upright rectangle."""
        self.area(colour, (left, top), (right, top), (right, bottom), (left, bottom))

    def disc(self, colour: Colour | None, x: float, y: float, radius: float, height: float | None = None) -> None:
        """A circle around (x, y), or an ellipse with radii ``radius`` across and ``height`` down."""
        self.wedge(colour, x, y, radius, 0, 360, height)

    def wedge(
        self, colour: Colour | None, x: float, y: float, radius: float, start: float, end: float, height: float | None = None
    ) -> None:
        """The sector of a disc between two angles, in degrees clockwise from the right."""
        down = radius if height is None else height
        bounds = ((x - radius) * self.side, (y - down) * self.side, (x + radius) * self.side - 1, (y + down) * self.side - 1)
        self._draw.pieslice(bounds, start, end, fill=_fill(colour))


def _fill(colour: Colour | None) -> tuple[int, int, int, int]:
    return (0, 0, 0, 0) if colour is None else (*colour, 255)


def _around(count: int, radius: float, x: float = 0.5, y: float = 0.5, turn: float = 0.0) -> list[Point]:
    """``count`` points on a circle, the first of them above its centre."""
    angles = [(turn + 360 * number / count) * math.pi / 180 for number in range(count)]
    return [(x + radius * math.sin(angle), y - radius * math.cos(angle)) for angle in angles]


def _ball(pen: Pen, colour: Colour) -> None:
    pen.disc(colour, 0.5, 0.5, 0.5)
    for start in (0, 120, 240):
        pen.wedge(WHITE, 0.5, 0.5, 0.5, start, start + 50)
    pen.disc(colour, 0.5, 0.5, 0.1)


def _house(pen: Pen, colour: Colour) -> None:
    pen.area(DARK, (0.5, 0), (1, 0.42), (0, 0.42))
    pen.box(colour, 0.1, 0.42, 0.9, 1)
    pen.box(WHITE, 0.18, 0.52, 0.38, 0.74)
    pen.box(WHITE, 0.62, 0.52, 0.82, 0.74)
    pen.box(DARK, 0.42, 0.62, 0.58, 1)


def _fish(pen: Pen, colour: Colour) -> None:
    pen.area(colour, (0.62, 0.5), (1, 0.2), (0.92, 0.5), (1, 0.8))
    pen.disc(colour, 0.38, 0.5, 0.38, 0.29)
    pen.box(WHITE, 0.4, 0.23, 0.47, 0.77)
    pen.box(WHITE, 0.56, 0.27, 0.62, 0.73)
    pen.disc(WHITE, 0.18, 0.42, 0.09)
    pen.disc(DARK, 0.17, 0.42, 0.045)


def _beetle(pen: Pen, colour: Colour) -> None:
    pen.disc(DARK, 0.5, 0.16, 0.24, 0.16)
    pen.disc(colour, 0.5, 0.57, 0.43)
    pen.box(DARK, 0.475, 0.16, 0.525, 1)
    for x, y in ((0.28, 0.42), (0.72, 0.42), (0.26, 0.7), (0.74, 0.7)):
        pen.disc(DARK, x, y, 0.1)


def _car(pen: Pen, colour: Colour) -> None:
    pen.area(colour, (0.2, 0.2), (0.68, 0.2), (0.86, 0.45), (1, 0.5), (1, 0.76), (0, 0.76), (0, 0.46), (0.1, 0.44))
    pen.area(WHITE, (0.26, 0.27), (0.43, 0.27), (0.43, 0.45), (0.19, 0.45))
    pen.area(WHITE, (0.5, 0.27), (0.64, 0.27), (0.76, 0.45), (0.5, 0.45))
    for x in (0.24, 0.76):
        pen.disc(DARK, x, 0.76, 0.15)
        pen.disc(WHITE, x, 0.76, 0.06)


def _boat(pen: Pen, colour: Colour) -> None:
    pen.area(WHITE, (0.47, 0.06), (0.47, 0.62), (0.05, 0.62))
    pen.area(colour, (0.53, 0.03), (0.98, 0.62), (0.53, 0.62))
    pen.box(DARK, 0.46, 0, 0.54, 0.7)
    pen.area(colour, (0, 0.66), (1, 0.66), (0.8, 1), (0.2, 1))
    for x in (0.3, 0.5, 0.7):
        pen.disc(WHITE, x, 0.81, 0.07)


def _flower(pen: Pen, colour: Colour) -> None:
    for x, y in _around(6, 0.3):
        pen.disc(colour, x, y, 0.2)
    pen.disc(WHITE, 0.5, 0.5, 0.19)
    for x, y in _around(5, 0.1):
        pen.disc(DARK, x, y, 0.035)


def _butterfly(pen: Pen, colour: Colour) -> None:
    for side in (-1, 1):
        pen.disc(colour, 0.5 + 0.26 * side, 0.3, 0.24, 0.27)
        pen.disc(colour, 0.5 + 0.21 * side, 0.72, 0.19, 0.22)
        pen.disc(WHITE, 0.5 + 0.29 * side, 0.3, 0.1)
        pen.disc(WHITE, 0.5 + 0.22 * side, 0.74, 0.07)
    pen.disc(DARK, 0.5, 0.5, 0.07, 0.4)


def _umbrella(pen: Pen, colour: Colour) -> None:
    pen.box(DARK, 0.47, 0.4, 0.53, 0.94)
    pen.box(DARK, 0.32, 0.94, 0.53, 1)
    pen.wedge(colour, 0.5, 0.52, 0.5, 180, 360)
    for start in (216, 288):
        pen.wedge(WHITE, 0.5, 0.52, 0.5, start, start + 36)


def _mushroom(pen: Pen, colour: Colour) -> None:
    pen.area(WHITE, (0.38, 0.5), (0.62, 0.5), (0.7, 1), (0.3, 1))
    pen.wedge(colour, 0.5, 0.55, 0.5, 180, 360, 0.55)
    for x, y, radius in ((0.5, 0.16, 0.09), (0.24, 0.36, 0.09), (0.76, 0.36, 0.09), (0.5, 0.43, 0.07)):
        pen.disc(WHITE, x, y, radius)


def _cup(pen: Pen, colour: Colour) -> None:
    pen.disc(colour, 0.75, 0.5, 0.25)
    pen.disc(None, 0.75, 0.5, 0.14)
    pen.area(colour, (0, 0.1), (0.75, 0.1), (0.68, 0.95), (0.07, 0.95))
    pen.area(WHITE, (0.02, 0.36), (0.73, 0.36), (0.72, 0.48), (0.03, 0.48))
    pen.area(WHITE, (0.04, 0.6), (0.71, 0.6), (0.7, 0.72), (0.05, 0.72))


def _target(pen: Pen, colour: Colour) -> None:
    for radius, ring in ((0.5, colour), (0.37, WHITE), (0.25, colour), (0.1, WHITE)):
        pen.disc(ring, 0.5, 0.5, radius)


def _flag(pen: Pen, colour: Colour) -> None:
    pen.box(DARK, 0, 0, 0.08, 1)
    pen.box(colour, 0.08, 0.03, 1, 0.65)
    pen.box(WHITE, 0.3, 0.03, 0.42, 0.65)
    pen.box(WHITE, 0.08, 0.28, 1, 0.4)


def _star(pen: Pen, colour: Colour) -> None:
    def points(outer: float, inner: float) -> list[Point]:
        tips, dents = _around(5, outer, y=0.53), _around(5, inner, y=0.53, turn=36)
        return [point for pair in zip(tips, dents, strict=True) for point in pair]

    pen.area(colour, *points(0.53, 0.27))
    pen.area(DARK, *points(0.27, 0.12))


Drawing = Callable[[Pen, Colour], None]
SHAPES: dict[str, Drawing] = {
    "ball": _ball,
    "house": _house,
    "fish": _fish,
    "beetle": _beetle,
    "car": _car,
    "boat": _boat,
    "flower": _flower,
    "butterfly": _butterfly,
    "umbrella": _umbrella,
    "mushroom": _mushroom,
    "cup": _cup,
    "target": _target,
    "flag": _flag,
    "star": _star,
}


def draw_shape(colour: str, shape: str) -> Sprite:
    """The sprite "``colour`` ``shape``", with a darker rim."""
    pen = Pen(SIDE * _OVERSAMPLING)
    SHAPES[shape](pen, COLOURS[colour])
    reduced = pen.image.convert("RGBa").resize((SIDE, SIDE), Image.Resampling.BOX).convert("RGBA")
    alpha = np.asarray(reduced.getchannel("A"))
    padded = Image.fromarray(np.pad(alpha, _RIM))  # what lies outside the square is not part of it
    inside = np.asarray(padded.filter(ImageFilter.MinFilter(2 * _RIM + 1)))[_RIM:-_RIM, _RIM:-_RIM]
    shade = _RIM_SHADE + (1 - _RIM_SHADE) * (inside / 255.0)
    rgb = np.asarray(reduced, dtype=np.float64)[..., :3] * shade[..., None]
    pixels = np.concatenate([np.rint(rgb).astype(np.uint8), alpha[..., None]], axis=2)
    return Sprite(f"{colour} {shape}", crop_visible(pixels), f"drawn: {colour} {shape}", drawing=True)


def all_shapes(names: Sequence[str] = tuple(SHAPES)) -> list[Sprite]:
    """Every shape in every colour."""
    return [draw_shape(colour, shape) for shape in names for colour in COLOURS]
