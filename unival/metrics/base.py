"""Base classes of metrics: statistics per row that can be summed, and scores computed from the sums."""

import functools
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from unival.errors import UserError
from unival.metrics.tokenize import Tokenizer, tokenize
from unival.text import is_weighted_answer, references_of

SHOWN = 60  # characters of a text that messages quote

Ngram = tuple[str, ...]


@dataclass(frozen=True)
class MetricOptions:
    """Settings of metrics.

    Attributes:
        box_threshold: intersection over union from which a box is right.
        cider_df: file with document frequencies for CIDEr-D; None: those of the references that are scored.
    """

    box_threshold: float = 0.5
    cider_df: str | None = None

    def __post_init__(self) -> None:
        check_box_threshold("box_threshold", self.box_threshold)


def check_box_threshold(option: str, value: float) -> None:
    """Check an overlap from which a box is right.

    Raises:
        UserError: it is out of range; names the option.
    """
    if not 0 < value <= 1:
        raise UserError(f"{option} {value:g}: must be an intersection over union (IoU), above 0 and at most 1")


NO_OPTIONS = MetricOptions()


class Metric:
    """A score of generated texts against references.

    The statistics of a row are numbers that are summed over rows, batches and workers: ``compute`` of the sum over all rows is
    the score of the corpus, ``compute`` of one row's statistics is the score of that row. Their names start with the
    metric's own name, so the statistics of several metrics fit in one dict.

    Attributes:
        name: key in ``METRICS``.
        keys: names of the scores that ``compute`` returns.
        reads: what its references are, which decides how they are read from a table.
        needs_words: whether the metric compares words, so that a reference without a word is useless.
        takes_cider_df: whether it uses :attr:`MetricOptions.cider_df`.
    """

    name: ClassVar[str]
    keys: ClassVar[tuple[str, ...]]
    reads: ClassVar[str] = "texts"
    needs_words: ClassVar[bool] = True
    takes_cider_df: ClassVar[bool] = False

    def __init__(self, tokenizer: Tokenizer = tokenize, options: MetricOptions = NO_OPTIONS) -> None:
        self.tokenizer = tokenizer
        self.options = options

    def tokenized(self, references: Sequence[str]) -> list[tuple[str, ...]]:
        """Tokenise references; those without a word (blank or punctuation only) are dropped if there are others."""
        tokenized = [self.tokenizer(reference) for reference in references]
        pairs = zip(references, tokenized, strict=True)
        return [words for reference, words in pairs if has_word(reference, words)] or tokenized

    @classmethod
    def references(cls, cell: Any, is_joined: bool) -> tuple[list[str], int]:
        """The references in one cell of a table, and how many are blank and left out.

        Args:
            is_joined: a text holds several, joined by ``&&``, as in TSV tables.

        Raises:
            UserError: the cell holds none, or answers with weights.
        """
        if isinstance(cell, Mapping) or (isinstance(cell, str) and is_weighted_answer(cell)):
            raise UserError("answers with weights, where a metric compares texts: use vqa_score or accuracy")
        return references_of(cell, is_joined)

    def refusal(self, references: Sequence[str]) -> str | None:
        """Why a row with these references cannot be scored; None if it can. Asked for every row before the first is scored."""
        weighted = next(filter(is_weighted_answer, references), None)
        if weighted is None or not self.needs_words:
            return None
        return f"{weighted[:SHOWN]!r} has a weight, and {self.name} compares texts: use vqa_score or accuracy"

    def form(self, text: str) -> str | None:
        """How the metric writes a text to compare it as a whole, for equality; None: it compares parts of texts."""
        return None

    def fit(self, references: Iterable[Sequence[str]]) -> None:
        """Compute statistics of the whole table from its references, row by row, before ``update``. Does nothing by default."""

    def update(self, hypothesis: str, references: Sequence[str]) -> dict[str, float]:
        """Statistics of one row, to be summed. ``references`` has at least one text."""
        raise NotImplementedError

    def update_all(self, rows: Sequence[tuple[str, Sequence[str]]]) -> list[dict[str, float]]:
        """Statistics of many rows, given as (hypothesis, references); overridden where one call for all is cheaper, as in SPICE."""
        return [self.update(hypothesis, references) for hypothesis, references in rows]

    def compute(self, statistics: Mapping[str, float]) -> dict[str, float]:
        """Scores from statistics or sums of statistics: one value per name in ``keys``."""
        raise NotImplementedError


class MeanMetric(Metric):
    """A metric with one score per row, averaged over rows. Its statistics are ``<name>_sum`` and ``<name>_count``."""

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
        """The mean over rows; 0 if there are none."""
        count = statistics[f"{self.name}_count"]
        return {self.name: statistics[f"{self.name}_sum"] / count if count else 0.0}


def has_word(text: str, tokens: Sequence[str]) -> bool:
    """Whether a text with these tokens has a word: ``?!`` is a token, but has no letter or digit."""
    return bool(tokens) and any(map(str.isalnum, text))


@functools.lru_cache(maxsize=1 << 10)
def ngram_counts(tokens: tuple[str, ...], longest: int = 4) -> tuple[Counter[Ngram], ...]:
    """How often each n-gram occurs, one Counter per order 1 ... ``longest``. Cached: read-only."""
    return tuple(Counter(zip(*(tokens[i:] for i in range(n)), strict=False)) for n in range(1, longest + 1))
