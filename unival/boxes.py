"""Boxes as numbers and as text: what cells of tables, targets and metrics share."""

from __future__ import annotations

import math
from collections.abc import Sequence
from numbers import Real
from typing import Any

from unival.errors import UserError
from unival.text import REFERENCE_SEPARATOR

Box = tuple[float, float, float, float]  # left, top, right, bottom in pixels; right and bottom are where the box ends

EDGES = 4
SHOWN = 60  # characters of a cell that messages quote


def boxes_of(cell: Any, is_joined: bool) -> list[Box]:
    """The boxes in one cell of a table: four numbers, or a text of four (``10.5,20,300,211``), or a list of such.

    Args:
        is_joined: a text holds several, joined by ``&&``, as in TSV tables.

    Raises:
        UserError: the cell holds something else, or a box without an area.
    """
    if isinstance(cell, str):
        return [_parse(text) for text in (cell.split(REFERENCE_SEPARATOR) if is_joined else [cell])]
    if not isinstance(cell, list | tuple) or not cell:
        raise UserError(_expected(cell))
    if all(isinstance(part, list | tuple | str) for part in cell):
        return [_parse(part) if isinstance(part, str) else _checked(part) for part in cell]
    return [_checked(cell)]


def box_text(box: Box) -> str:
    """``10.5,20.25,300.75,211``: to a hundredth of a pixel."""
    return ",".join(f"{x:.2f}".rstrip("0").rstrip(".") for x in box)


def overlap(box: Box, other: Box) -> float:
    """Intersection over union; 0 for a box whose edges are swapped."""
    width = min(box[2], other[2]) - max(box[0], other[0])
    height = min(box[3], other[3]) - max(box[1], other[1])
    if width <= 0 or height <= 0:
        return 0.0
    areas = ((right - left) * (bottom - top) for left, top, right, bottom in (box, other))
    return width * height / (sum(areas) - width * height)


def parse_numbers(text: str) -> Box:
    """The four numbers of a text, in whatever order: what a model says may have its edges swapped.

    Raises:
        UserError: the text is not four finite numbers.
    """
    if "_" in text:  # Python would read 1_0 as 10
        raise UserError(_expected(text))
    try:
        left, top, right, bottom = map(float, text.split(","))
    except ValueError:
        raise UserError(_expected(text)) from None
    box = left, top, right, bottom
    if not all(map(math.isfinite, box)):
        raise UserError(_expected(text))
    return box


def _expected(cell: Any) -> str:
    shown = repr(cell)
    shown = shown if len(shown) <= SHOWN else f"{shown[:SHOWN]}..."
    return f"expected a box, four numbers x0,y0,x1,y1 in pixels of the image, got {shown}"


def _parse(text: str) -> Box:
    return _checked(parse_numbers(text))


def _checked(numbers: Sequence[Any]) -> Box:
    """Four finite numbers whose second corner is below and to the right of the first."""
    if len(numbers) != EDGES or not all(isinstance(x, Real) and not isinstance(x, bool) for x in numbers):
        raise UserError(_expected(numbers))
    x0, y0, x1, y1 = map(float, numbers)
    if not all(map(math.isfinite, (x0, y0, x1, y1))):
        raise UserError(_expected(numbers))
    if x0 >= x1 or y0 >= y1:
        raise UserError(f"box {x0:g},{y0:g},{x1:g},{y1:g}: expected its top left and its bottom right corner, x0 < x1 and y0 < y1")
    return x0, y0, x1, y1
