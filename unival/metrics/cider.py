"""CIDEr: similarity of tf-idf weighted n-grams (Vedantam et al., 2015, arXiv:1411.5726), as coco-caption computes it.

The score that coco-caption calls CIDEr, and that papers report, is the CIDEr-D of the article (counts clipped to the
reference's, a Gaussian penalty on the difference in length) without stemming. ``cider`` and ``cider_d`` are therefore the
same formula. ``cider_d`` is the name that reward functions use; there it is commonly fitted on the training table.
"""

import math
from collections import Counter
from collections.abc import Iterable, Sequence

from unival.metrics.base import MeanMetric, Ngram, ngram_counts

ORDERS = 4  # n-grams of 1 to 4 words
SIGMA = 6.0  # width of the length penalty, in words
SCALE = 10.0


class Cider(MeanMetric):
    """CIDEr of coco-caption. ``fit`` takes document frequencies from the references: a row is a document."""

    name = "cider"
    keys = ("cider",)

    _document_frequency: Counter[Ngram] | None = None
    _log_documents = 0.0

    def fit(self, references: Iterable[Sequence[str]]) -> None:
        """Count in how many rows each n-gram occurs. With a single row every weight, hence every score, is 0."""
        frequency: Counter[Ngram] = Counter()
        documents = 0
        for texts in references:
            counts = [counts for text in texts for counts in ngram_counts(self.tokenizer(text), ORDERS)]
            frequency.update(set().union(*counts))
            documents += 1
        self._document_frequency = frequency
        self._log_documents = math.log(max(1, documents))

    def score(self, hypothesis: str, references: Sequence[str]) -> float:
        """10 x the mean over references and orders of

            exp(-(l_h - l_r)^2 / (2 sigma^2)) * sum_g min(h_g, r_g) r_g / (|h| |r|)

        where h_g and r_g are term frequency x inverse document frequency of the n-gram g, l the lengths in words.
        """
        assert self._document_frequency is not None, f"{self.name}: fit(references) comes before update()"
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
        """Per order tf-idf weights and their Euclidean norm. An n-gram in no document weighs as one in one document."""
        frequency = self._document_frequency
        assert frequency is not None
        log_n = self._log_documents
        weights = [
            {ngram: count * (log_n - math.log(max(1, frequency[ngram]))) for ngram, count in counts.items()}
            for counts in ngram_counts(words, ORDERS)
        ]
        return weights, [math.sqrt(sum(w * w for w in order.values())) for order in weights]


class CiderD(Cider):
    """The same score under the article's name."""

    name = "cider_d"
    keys = ("cider_d",)
