"""What a metric is: statistics of one row that can be summed, and scores computed from the sums."""

import functools
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import ClassVar

from unival.metrics.tokenize import Tokenizer, tokenize

Ngram = tuple[str, ...]


class Metric:
    """A score of generated texts against references.

    The statistics of a row are numbers that sum over rows, batches and workers: ``compute`` of the sum over all rows is
    the score of the corpus, ``compute`` of one row's statistics is the score of that row. Their names begin with the
    metric's own, so the statistics of several metrics fit in one dict.

    Attributes:
        name: as in METRICS.
        keys: names of the scores that ``compute`` returns.
        needs_words: whether words are compared, so that references without one cannot be scored by.
    """

    name: ClassVar[str]
    keys: ClassVar[tuple[str, ...]]
    needs_words: ClassVar[bool] = True

    def __init__(self, tokenizer: Tokenizer = tokenize) -> None:
        self.tokenizer = tokenizer

    def tokenized(self, references: Sequence[str]) -> list[tuple[str, ...]]:
        """References as tokens; those without a word (blank ones, punctuation alone) do not count beside others."""
        tokenized = [self.tokenizer(reference) for reference in references]
        pairs = zip(references, tokenized, strict=True)
        return [words for reference, words in pairs if has_word(reference, words)] or tokenized

    def fit(self, references: Iterable[Sequence[str]]) -> None:
        """Learn what the score needs to know of the whole table: its references, row by row. Nothing by default."""

    def update(self, hypothesis: str, references: Sequence[str]) -> dict[str, float]:
        """The summable statistics of one row. ``references`` holds at least one text."""
        raise NotImplementedError

    def update_all(self, rows: Sequence[tuple[str, Sequence[str]]]) -> list[dict[str, float]]:
        """The statistics of many (hypothesis, references); overridden where a call is expensive, as for SPICE."""
        return [self.update(hypothesis, references) for hypothesis, references in rows]

    def compute(self, statistics: Mapping[str, float]) -> dict[str, float]:
        """Scores from (sums of) statistics: one value per name in ``keys``."""
        raise NotImplementedError


class MeanMetric(Metric):
    """A metric of one score per row, averaged over rows. Its statistics are ``<name>_sum`` and ``<name>_count``."""

    def score(self, hypothesis: str, references: Sequence[str]) -> float:
        """The score of one row."""
        raise NotImplementedError

    def update(self, hypothesis: str, references: Sequence[str]) -> dict[str, float]:
        """The row's score and a count of one."""
        return self.statistics(self.score(hypothesis, references))

    def statistics(self, score: float) -> dict[str, float]:
        """Statistics of a row with this score."""
        return {f"{self.name}_sum": score, f"{self.name}_count": 1.0}

    def compute(self, statistics: Mapping[str, float]) -> dict[str, float]:
        """The mean over rows; 0 for no rows."""
        count = statistics[f"{self.name}_count"]
        return {self.name: statistics[f"{self.name}_sum"] / count if count else 0.0}


def has_word(text: str, tokens: Sequence[str]) -> bool:
    """Whether tokens are left of a text, and a letter or digit is among them: ``?!`` is a token as well."""
    return bool(tokens) and any(map(str.isalnum, text))


@functools.lru_cache(maxsize=1 << 10)
def ngram_counts(tokens: tuple[str, ...], longest: int = 4) -> tuple[Counter[Ngram], ...]:
    """How often each n-gram occurs, one Counter per order 1 ... ``longest``. Cached: read-only."""
    return tuple(Counter(zip(*(tokens[i:] for i in range(n)), strict=False)) for n in range(1, longest + 1))
