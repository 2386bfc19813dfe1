"""Spatial relations between things, decided from their boxes, only where they are unambiguous."""

from collections.abc import Sequence
from dataclasses import dataclass

Box = tuple[int, int, int, int]  # x0, y0, x1, y1 in pixels: x0 <= x < x1, y0 <= y < y1

RATIO = 1.5  # the distance along the named axis is at least so many times the distance across it
LEFT, RIGHT, ABOVE, BELOW = "to the left of", "to the right of", "above", "below"
RELATIONS = (LEFT, RIGHT, ABOVE, BELOW)
OPPOSITE = {LEFT: RIGHT, RIGHT: LEFT, ABOVE: BELOW, BELOW: ABOVE}


@dataclass(frozen=True)
class Thing:
    """A named object and the box that bounds its visible pixels."""

    name: str
    box: Box


def centre(box: Box) -> tuple[float, float]:
    """The middle of a box, in pixels."""
    return (box[0] + box[2]) / 2, (box[1] + box[3]) / 2


def relation(one: Box, other: Box) -> str | None:
    """What ``one`` is to ``other`` ("to the left of", ...), or None if that is ambiguous.

    The boxes must be separate along the axis of the relation, and their centres much further apart along it than across it.
    """
    (x, y), (other_x, other_y) = centre(one), centre(other)
    across, down = abs(x - other_x), abs(y - other_y)
    if across >= RATIO * down and (one[2] <= other[0] or other[2] <= one[0]):
        return LEFT if x < other_x else RIGHT
    if down >= RATIO * across and (one[3] <= other[1] or other[3] <= one[1]):
        return ABOVE if y < other_y else BELOW
    return None


def half(box: Box, size: int) -> str | None:
    """The half of an image of ``size`` pixels that holds all of ``box``: "left", "right", or None for neither."""
    if 2 * box[2] <= size:
        return "left"
    return "right" if 2 * box[0] >= size else None


def reading_order(things: Sequence[Thing]) -> list[Thing]:
    """From the upper left to the lower right: of two side by side the left one first, of two stacked the upper one."""
    return sorted(things, key=lambda thing: (sum(centre(thing.box)), thing.name))
