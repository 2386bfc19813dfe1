"""Exact match: whether the text equals a reference, ignoring case and the number of spaces."""

from collections.abc import Sequence

from unival.answers import plain_answer
from unival.metrics.base import MeanMetric
from unival.text import not_empty


def normalize(text: str) -> str:
    """Lower case, words separated by single spaces."""
    return " ".join(text.casefold().split())


class ExactMatch(MeanMetric):
    """1 if the text equals a reference, else 0. Texts are not tokenised, so punctuation counts; weights of answers do not."""

    name = "exact_match"
    keys = ("exact_match",)
    needs_words = False

    def form(self, text: str) -> str:
        """See :func:`normalize`."""
        return normalize(text)

    def score(self, hypothesis: str, references: Sequence[str]) -> float:
        """1.0 or 0.0."""
        return float(any(normalize(hypothesis) == normalize(plain_answer(reference)) for reference in not_empty(references)))
