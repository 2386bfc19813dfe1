"""BLEU-1 to BLEU-4 of a corpus (Papineni et al., 2002), with the conventions of coco-caption."""

import math
from collections import Counter
from collections.abc import Mapping, Sequence

from unival.metrics.base import Metric, Ngram, ngram_counts

ORDERS = 4
# coco-caption's guards against division by zero; they change scores only beyond the published digits.
SMALL, TINY = 1e-9, 1e-15


class Bleu(Metric):
    """Clipped n-gram precision with a brevity penalty for the closest reference length (the shorter one in a tie)."""

    name = "bleu"
    keys = tuple(f"bleu{n}" for n in range(1, ORDERS + 1))

    def update(self, hypothesis: str, references: Sequence[str]) -> dict[str, float]:
        """Lengths, and per order the number of n-grams and of matches (clipped to the largest count in a reference)."""
        words = self.tokenizer(hypothesis)
        tokenized = self.tokenized(references)
        statistics = {
            "bleu_length": float(len(words)),
            "bleu_reference_length": float(min((len(r) for r in tokenized), key=lambda r: (abs(r - len(words)), r))),
        }
        for n, counts in enumerate(ngram_counts(words, ORDERS), start=1):
            most: Counter[Ngram] = Counter()
            for reference in tokenized:
                most |= ngram_counts(reference, ORDERS)[n - 1]
            statistics[f"bleu_correct{n}"] = float((counts & most).total())
            statistics[f"bleu_total{n}"] = float(counts.total())
        return statistics

    def compute(self, statistics: Mapping[str, float]) -> dict[str, float]:
        """BLEU-n = brevity penalty x geometric mean of the precisions of orders 1 to n."""
        ratio = (statistics["bleu_length"] + TINY) / (statistics["bleu_reference_length"] + SMALL)
        penalty = math.exp(1 - 1 / ratio) if ratio < 1 else 1.0
        product = 1.0
        scores = {}
        for n, key in enumerate(self.keys, start=1):
            product *= (statistics[f"bleu_correct{n}"] + TINY) / (statistics[f"bleu_total{n}"] + SMALL)
            scores[key] = penalty * product ** (1 / n)
        return scores
