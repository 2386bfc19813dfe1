"""Accuracy of boxes and how much they overlap: intersection over union (IoU) with the best reference."""

from collections.abc import Mapping, Sequence
from typing import Any

from unival.boxes import box_text, boxes_of, overlap, parse_numbers
from unival.metrics.base import MeanMetric


class BoxAccuracy(MeanMetric):
    """Acc@t, the share of boxes whose IoU with a reference is at least ``t`` (a half by default, as for RefCOCO), and the mean IoU.

    Texts are ``x0,y0,x1,y1``.
    """

    name = "box_accuracy"
    keys = ("box_accuracy", "mean_iou")
    reads = "boxes"
    needs_words = False

    @classmethod
    def references(cls, cell: Any, is_joined: bool) -> tuple[list[str], int]:
        """The boxes of a cell."""
        return [box_text(box) for box in boxes_of(cell, is_joined)], 0

    def score(self, hypothesis: str, references: Sequence[str]) -> float:
        """IoU with the reference that overlaps most; 0 without a box, which is an answer that was rejected."""
        if not hypothesis.strip():
            return 0.0
        box = parse_numbers(hypothesis)
        return max(overlap(box, parse_numbers(reference)) for reference in references)

    def statistics(self, score: float) -> dict[str, float]:
        """The row's hit or miss, its IoU, and a count of one."""
        return {**super().statistics(float(score >= self.options.box_threshold)), f"{self.name}_iou": score}

    def compute(self, statistics: Mapping[str, float]) -> dict[str, float]:
        """Means over rows; 0 if there are none."""
        count = statistics[f"{self.name}_count"]
        return {**super().compute(statistics), "mean_iou": statistics[f"{self.name}_iou"] / count if count else 0.0}
