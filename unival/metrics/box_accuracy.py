"""Accuracy of boxes: does what was said overlap a reference by half?"""

from collections.abc import Sequence
from typing import Any

from unival.boxes import box_text, boxes_of, overlap, parse_numbers
from unival.metrics.base import MeanMetric

LEAST = 0.5  # intersection over union, as in the evaluation of RefCOCO


class BoxAccuracy(MeanMetric):
    """1 for a box whose intersection over union with a reference is at least a half, else 0.  Texts are ``x0,y0,x1,y1``."""

    name = "box_accuracy"
    keys = ("box_accuracy",)
    needs_words = False

    @classmethod
    def references(cls, cell: Any, is_joined: bool) -> tuple[list[str], int]:
        """The boxes of a cell."""
        return [box_text(box) for box in boxes_of(cell, is_joined)], 0

    def score(self, hypothesis: str, references: Sequence[str]) -> float:
        """1.0 or 0.0."""
        box = parse_numbers(hypothesis)
        return float(any(overlap(box, parse_numbers(reference)) >= LEAST for reference in references))
