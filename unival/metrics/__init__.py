"""Scores of generated text: one file per family, and the one list of them all.

A metric works on raw text, tokenises as coco-caption does, and keeps statistics that sum over rows and workers
(``base.Metric``). ``score.evaluate`` walks the road that validation walks too, so both give the same number.
"""

import logging
from collections.abc import Hashable, Iterable, Mapping, Sequence
from typing import TypeVar

from unival.errors import UserError
from unival.metrics.base import MeanMetric, Metric, has_word
from unival.metrics.bleu import Bleu
from unival.metrics.cider import Cider, CiderD
from unival.metrics.exact_match import ExactMatch
from unival.metrics.meteor import Meteor
from unival.metrics.rouge import RougeL
from unival.metrics.spice import Spice
from unival.metrics.tokenize import Tokenizer, tokenize

logger = logging.getLogger(__name__)

Key = TypeVar("Key", bound=Hashable)

SHOWN = 60  # characters of a text in a message

METRICS: dict[str, type[Metric]] = {
    "cider": Cider,
    "cider_d": CiderD,
    "bleu": Bleu,
    "rouge_l": RougeL,
    "meteor": Meteor,
    "spice": Spice,
    "exact_match": ExactMatch,
}


def make_metrics(names: Sequence[str], tokenizer: Tokenizer = tokenize) -> dict[str, Metric]:
    """Metrics by name, in the order given.

    Raises:
        UserError: an unknown name, or a metric whose programs are not installed.
    """
    if "" in names:
        raise UserError(f"metrics {','.join(names)!r}: an empty name; there are {', '.join(METRICS)}")
    unknown = [name for name in names if name not in METRICS]
    if unknown:
        raise UserError(f"unknown metric {unknown[0]!r}; there are {', '.join(METRICS)}")
    return {name: METRICS[name](tokenizer) for name in dict.fromkeys(names)}


def check_words(references: Mapping[Key, Sequence[str]], metrics: Iterable[Metric], whose: str = "") -> None:
    """Before metrics that count words score: references without one do not count beside others, and are logged by their number.

    Args:
        references: of every row, by its number or key.
        whose: what messages begin with: a table, say.

    Raises:
        UserError: a row has no reference with a word: whatever is said of it would score 0.
    """
    metric = next((metric for metric in metrics if metric.needs_words), None)
    if metric is None:
        return
    left_out = 0
    for key, texts in references.items():
        wordless = [text for text in texts if not has_word(text, metric.tokenizer(text))]
        if len(wordless) == len(texts):
            raise UserError(
                f"{whose}row {key}: no reference has a letter or digit, and {metric.name} compares words:"
                f" {', '.join(repr(text[:SHOWN]) for text in wordless[:3])}; leave the row out"
            )
        left_out += len(wordless)
    if left_out:
        logger.warning("%s%d references without a letter or digit stand beside others and do not count", whose, left_out)


__all__ = ["METRICS", "MeanMetric", "Metric", "Tokenizer", "check_words", "make_metrics", "tokenize"]
