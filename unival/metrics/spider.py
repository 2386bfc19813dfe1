"""SPIDEr: the mean of CIDEr-D and SPICE, which is reported for captions of audio (Liu et al., 2017, arXiv:1612.00370)."""

from collections.abc import Iterable, Sequence

from unival.errors import UserError
from unival.metrics.base import NO_OPTIONS, MeanMetric, MetricOptions
from unival.metrics.cider import CiderD
from unival.metrics.spice import Spice
from unival.metrics.tokenize import Tokenizer, tokenize


class Spider(MeanMetric):
    """(CIDEr-D + SPICE) / 2 per row, averaged over rows."""

    name = "spider"
    keys = ("spider",)
    takes_cider_df = True

    def __init__(self, tokenizer: Tokenizer = tokenize, options: MetricOptions = NO_OPTIONS) -> None:
        super().__init__(tokenizer, options)
        try:
            self._spice = Spice(tokenizer, options)
        except UserError as error:
            reason = str(error).replace("leave spice out", "leave spider out")
            raise UserError(f"SPIDEr is the mean of CIDEr-D and SPICE; {reason}") from None
        self._cider = CiderD(tokenizer, options)

    def fit(self, references: Iterable[Sequence[str]]) -> None:
        """Get the document frequencies of CIDEr-D."""
        cider = CiderD(self.tokenizer, self.options)  # a copy of this metric, for another split, keeps its own
        cider.fit(references)
        self._cider = cider

    def score(self, hypothesis: str, references: Sequence[str]) -> float:
        """The score of one row."""
        return (self._cider.score(hypothesis, references) + self._spice.score(hypothesis, references)) / 2

    def update_all(self, rows: Sequence[tuple[str, Sequence[str]]]) -> list[dict[str, float]]:
        """Statistics of all rows, from one run of SPICE's program."""
        spice = [self._spice.compute(row)["spice"] for row in self._spice.update_all(rows)]
        return [self.statistics((self._cider.score(*row) + value) / 2) for row, value in zip(rows, spice, strict=True)]
