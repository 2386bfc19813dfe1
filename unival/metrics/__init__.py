"""Scores of generated text: one file per family, and the one list of them all.

A metric works on raw text, tokenises as coco-caption does, and keeps statistics that sum over rows and workers
(`base.Metric`). `score.evaluate` walks the road that validation walks too, so both give the same number.
"""

import logging
from collections.abc import Iterable, Sequence

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
    unknown = [name for name in names if name not in METRICS]
    if unknown:
        raise UserError(f"unknown metric {unknown[0]!r}; there are {', '.join(METRICS)}")
    return {name: METRICS[name](tokenizer) for name in dict.fromkeys(names)}


def warn_of_wordless(references: Iterable[Sequence[str]], whose: str = "", tokenizer: Tokenizer = tokenize) -> None:
    """Log how many references have no word, if there are any; see :meth:`Metric.tokenized`."""
    wordless = sum(not has_word(text, tokenizer(text)) for texts in references for text in texts)
    if wordless:
        logger.warning("%s%d references without a word (punctuation alone, say) do not count beside others", whose, wordless)


__all__ = ["METRICS", "MeanMetric", "Metric", "Tokenizer", "make_metrics", "tokenize", "warn_of_wordless"]
