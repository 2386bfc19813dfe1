"""ROUGE-L (Lin and Och, 2004): F-score of the longest common subsequence, as coco-caption computes it."""

from collections.abc import Sequence

from unival.metrics.base import MeanMetric

BETA = 1.2  # weight of recall


class RougeL(MeanMetric):
    """F-score of the best precision and the best recall over the references, which may be of different references."""

    name = "rouge_l"
    keys = ("rouge_l",)

    def score(self, hypothesis: str, references: Sequence[str]) -> float:
        """(1 + beta^2) P R / (R + beta^2 P), between 0 and 1."""
        # coco-caption splits at single spaces, so that an empty text has one empty word.
        words = self.tokenizer(hypothesis) or ("",)
        precision = recall = 0.0
        for reference_words in self.tokenized(references):
            reference_words = reference_words or ("",)
            common = longest_common_subsequence(words, reference_words)
            precision = max(precision, common / len(words))
            recall = max(recall, common / len(reference_words))
        if not precision or not recall:
            return 0.0
        return (1 + BETA**2) * precision * recall / (recall + BETA**2 * precision)


def longest_common_subsequence(a: Sequence[str], b: Sequence[str]) -> int:
    """Length of the longest sequence of words that both contain in this order."""
    row = [0] * (len(b) + 1)
    for word in a:
        diagonal = 0
        for j, other in enumerate(b, start=1):
            above = row[j]
            row[j] = diagonal + 1 if word == other else max(above, row[j - 1])
            diagonal = above
    return row[-1]
