"""Metrics of generated text: one file per family, and ``METRICS``, the list of them.

A metric takes raw text, tokenises it as coco-caption does, and computes statistics that are summed over rows and workers
(``base.Metric``). Validation and ``score.evaluate`` use the same metrics, so both give the same number.
"""

import logging
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from typing import TypeVar

from unival.errors import UserError, counted, unknown
from unival.metrics import document_frequency
from unival.metrics.accuracy import Accuracy
from unival.metrics.base import NO_OPTIONS, SHOWN, MeanMetric, Metric, MetricOptions, has_word
from unival.metrics.bleu import Bleu
from unival.metrics.box_accuracy import BoxAccuracy
from unival.metrics.cider import Cider, CiderD
from unival.metrics.exact_match import ExactMatch
from unival.metrics.meteor import Meteor
from unival.metrics.rouge import RougeL
from unival.metrics.spice import Spice
from unival.metrics.spider import Spider
from unival.metrics.tokenize import Tokenizer, tokenize
from unival.metrics.vqa import VqaAccuracy, VqaScore
from unival.text import not_empty

logger = logging.getLogger(__name__)

Key = TypeVar("Key", bound=Hashable)

METRICS: dict[str, type[Metric]] = {
    "cider": Cider,
    "cider_d": CiderD,
    "bleu": Bleu,
    "rouge_l": RougeL,
    "meteor": Meteor,
    "spice": Spice,
    "spider": Spider,
    "exact_match": ExactMatch,
    "box_accuracy": BoxAccuracy,
    "vqa_accuracy": VqaAccuracy,
    "vqa_score": VqaScore,
    "accuracy": Accuracy,
}


def make_metrics(names: Sequence[str], tokenizer: Tokenizer = tokenize, options: MetricOptions = NO_OPTIONS) -> dict[str, Metric]:
    """Create metrics by name.

    Args:
        names: keys of ``METRICS``; a repeated name counts once.
        tokenizer: how the metrics split texts into words.
        options: their settings.

    Returns:
        Name -> metric, in the order of ``names``.

    Raises:
        UserError: unknown name, a metric whose programs are not installed, or document frequencies that no metric takes or that cannot be
            read.
    """
    if "" in names:
        raise UserError(f"metrics {','.join(names)!r}: empty name; choose from {', '.join(METRICS)}")
    others = [name for name in names if name not in METRICS]
    if others:
        raise UserError(unknown("metric", others[0], METRICS))
    if options.cider_df is not None:
        takers = [name for name in METRICS if METRICS[name].takes_cider_df]
        if not set(takers) & set(names):
            raise UserError(f"{options.cider_df}: document frequencies are for {' and '.join(takers)}; the metrics are {', '.join(names)}")
        document_frequency.read(options.cider_df)
    return {name: METRICS[name](tokenizer, options) for name in dict.fromkeys(names)}


def check_references(
    references: Mapping[Key, Sequence[str]],
    metrics: Iterable[Metric],
    whose: str = "",
    where: Callable[[Key], str] | None = None,
) -> None:
    """Check that the metrics can use the references of every row.

    Where a metric compares words, every row needs a reference with one; those without are ignored where there are others, which is logged.

    Args:
        references: row number or key -> references of the row.
        metrics: the metrics that will be computed.
        whose: prefix of the messages, such as the table.
        where: names the place of a row, with file, line and column where it has them (default: the prefix and its key).

    Raises:
        UserError: a metric refuses the references of a row (:meth:`Metric.refusal`), or none of them has a word, so that anything
            would score 0.
    """
    metrics = list(metrics)
    where = where or (lambda key: f"{whose}row {key}")
    for key, texts in references.items():
        reason = next(filter(None, (metric.refusal(texts) for metric in metrics)), None)
        if reason is not None:
            raise UserError(f"{where(key)}: {reason} (the value is {_shown(texts)})")
    metric = next((metric for metric in metrics if metric.needs_words), None)
    if metric is None:
        return
    left_out = 0
    for key, texts in references.items():
        written = not_empty(texts)
        wordless = [text for text in written if not has_word(text, metric.tokenizer(text))]
        if len(wordless) == len(written):
            raise UserError(
                f"{where(key)}: no reference has a letter or digit, and {metric.name} compares words:"
                f" {', '.join(repr(text[:SHOWN]) for text in wordless[:3])}; leave the row out"
            )
        left_out += len(wordless)
    if left_out:
        logger.warning("%signoring %s without a letter or digit (their rows have others)", whose, counted(left_out, "reference"))


def _shown(texts: Sequence[str]) -> str:
    shown = repr(list(texts))
    return shown if len(shown) <= SHOWN else f"{shown[:SHOWN]}..."


__all__ = ["METRICS", "MeanMetric", "Metric", "MetricOptions", "Tokenizer", "check_references", "make_metrics", "tokenize"]
