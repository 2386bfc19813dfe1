"""CIDEr: similarity of tf-idf weighted n-grams (Vedantam et al., 2015, arXiv:1411.5726), as coco-caption computes it.

What coco-caption calls CIDEr, and what papers report, is CIDEr-D of the article (counts clipped to those of the
reference, Gaussian penalty on the difference in length) without stemming, so ``cider`` and ``cider_d`` are the same
formula. ``cider_d`` is the name that reward functions use, commonly with the document frequencies of another corpus, which it may take from
a file (:attr:`MetricOptions.cider_df`, :mod:`unival.metrics.document_frequency`).
"""

import math
from collections.abc import Iterable, Sequence

from unival.metrics import document_frequency
from unival.metrics.base import MeanMetric, Ngram, ngram_counts
from unival.metrics.document_frequency import ORDERS, DocumentFrequency

SIGMA = 6.0  # width of the length penalty, in words
SCALE = 10.0


class Cider(MeanMetric):
    """CIDEr as in coco-caption. ``fit`` computes document frequencies from the references; a row is a document."""

    name = "cider"
    keys = ("cider",)

    _frequency: DocumentFrequency | None = None

    def fit(self, references: Iterable[Sequence[str]]) -> None:
        """Count in how many rows each n-gram occurs. With a single row all weights, and therefore all scores, are 0."""
        self._frequency = document_frequency.count([self.tokenizer(text) for text in texts] for texts in references)

    def score(self, hypothesis: str, references: Sequence[str]) -> float:
        """10 x the mean over references and orders of

            exp(-(l_h - l_r)^2 / (2 sigma^2)) * sum_g min(h_g, r_g) r_g / (|h| |r|)

        where h_g and r_g are the tf-idf weights of n-gram g in hypothesis and reference, and l_h and l_r their lengths in words.
        """
        assert self._frequency is not None, f"{self.name}: fit(references) must be called before update()"
        words = self.tokenizer(hypothesis)
        weights, norms = self._weigh(words)
        total = 0.0
        tokenized = self.tokenized(references)
        for reference_words in tokenized:
            reference_weights, reference_norms = self._weigh(reference_words)
            penalty = math.exp(-((len(words) - len(reference_words)) ** 2) / (2 * SIGMA**2))
            for n in range(ORDERS):
                norm = norms[n] * reference_norms[n]
                if norm:
                    there = reference_weights[n]
                    overlap = sum(min(w, there[g]) * there[g] for g, w in weights[n].items() if g in there)
                    total += penalty * overlap / norm
        return SCALE * total / (ORDERS * len(tokenized))

    def _weigh(self, words: tuple[str, ...]) -> tuple[list[dict[Ngram, float]], list[float]]:
        """Tf-idf weights and their Euclidean norm, per order. An unseen n-gram weighs the same as one in a single document."""
        assert self._frequency is not None
        frequency, documents = self._frequency
        log_n = math.log(max(1, documents))
        weights = [
            {ngram: count * (log_n - math.log(max(1, frequency.get(ngram, 0)))) for ngram, count in counts.items()}
            for counts in ngram_counts(words, ORDERS)
        ]
        return weights, [math.sqrt(sum(w * w for w in order.values())) for order in weights]


class CiderD(Cider):
    """The same score as ``Cider``, under the article's name; document frequencies may come from a file."""

    name = "cider_d"
    keys = ("cider_d",)
    takes_cider_df = True

    def fit(self, references: Iterable[Sequence[str]]) -> None:
        """Read the file of document frequencies; without one, count in the references."""
        if self.options.cider_df is None:
            super().fit(references)
        else:
            self._frequency = document_frequency.read(self.options.cider_df)
