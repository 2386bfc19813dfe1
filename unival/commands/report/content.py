"""What a report holds: splits with their examples, the curves of training, and the figures that page and picture show."""

import io
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from unival.errors import UserError

MAIN, SWAPPED, UNSEEN = "main", "swapped", "unseen"
FAILED_HEADING = "This model has not learnt to look at the image"
THUMBNAIL = 224  # pixels, longest side
HEADINGS = {
    MAIN: "Unseen scenes",
    SWAPPED: "Same model, another image's pixels",
    UNSEEN: "Unseen objects, reported apart",
}


@dataclass(frozen=True)
class ScoredRow:
    """One row of a split: what was shown, what people say, what the model said."""

    row: int  # row number in the table
    where: str  # the image's place, for messages: file, row and column
    load_image: Callable[[], bytes]  # its encoded bytes; called only for examples that are shown
    references: tuple[str, ...]
    hypothesis: str
    scores: Mapping[str, float]

    @property
    def is_exact(self) -> bool:
        return self.scores.get("exact_match", 0.0) >= 1.0


@dataclass(frozen=True)
class Split:
    """A split with its role in the report (``main``, ``swapped``, ``unseen`` or its own name)."""

    name: str
    role: str
    examples: tuple[ScoredRow, ...]
    summary: Mapping[str, float]


@dataclass(frozen=True)
class Curves:
    """The training log: (update, loss in bits per token) and (update, value of the validation metric)."""

    loss: tuple[tuple[int, float], ...] = ()
    valid_loss: tuple[tuple[int, float], ...] = ()
    metric: tuple[tuple[int, float], ...] = ()
    metric_name: str = ""


@dataclass(frozen=True)
class Report:
    """Everything that the page shows."""

    title: str
    metric: str  # the row score shown on every example
    splits: tuple[Split, ...]
    curves: Curves = field(default_factory=Curves)
    failure: str = ""  # why the model did not do what was asked for, and what to do; then it has another heading

    @property
    def heading(self) -> str:
        """The title, which promises a model that looks; or what is true of one that does not."""
        return FAILED_HEADING if self.failure else self.title

    def split(self, role: str) -> Split | None:
        return next((split for split in self.splits if split.role == role), None)

    @property
    def ratio(self) -> float | None:
        """Score with the right pixels over score with another image's pixels; None when a split is not there."""
        right, swapped = self.split(MAIN), self.split(SWAPPED)
        if right is None or swapped is None:
            return None
        if swapped.summary[self.metric] <= 0:
            return math.inf if right.summary[self.metric] > 0 else 0.0
        return right.summary[self.metric] / swapped.summary[self.metric]


def evenly(examples: Sequence[ScoredRow], count: int) -> list[ScoredRow]:
    """``count`` examples at even distances through a split."""
    count = min(count, len(examples))
    return [examples[i * len(examples) // count] for i in range(count)]


def key_figures(report: Report) -> list[tuple[str, str]]:
    """(value, label) of the figures on top of the page and of the picture."""
    name = display_name(report.metric)
    figures = []
    for role, label in ((MAIN, f"{name}, right pixels"), (SWAPPED, f"{name}, another image's pixels")):
        split = report.split(role)
        if split is not None:
            figures.append((f"{split.summary[report.metric]:.3f}", label))
    if report.ratio is not None:
        figures.append((format_ratio(report.ratio), "right pixels to other pixels"))
    for role, label in ((MAIN, "exactly right, unseen scenes"), (UNSEEN, "exactly right, unseen objects")):
        split = report.split(role)
        if split is not None and "exact_match" in split.summary:
            figures.append((f"{split.summary['exact_match']:.0%}", label))
    return figures


def summary_lines(report: Report) -> list[str]:
    """The key figures as text: one line each, ``label: value``."""
    return [f"{label}: {value}" for value, label in key_figures(report)]


def format_ratio(ratio: float) -> str:
    return "∞ : 1" if math.isinf(ratio) else f"{ratio:.1f} : 1"


def display_name(metric: str) -> str:
    """``cider`` -> ``CIDEr``, ``bleu4`` -> ``BLEU-4``."""
    known = {"cider": "CIDEr", "cider_d": "CIDEr-D", "rouge_l": "ROUGE-L", "meteor": "METEOR", "spice": "SPICE"}
    known["exact_match"] = "exact match"
    return known.get(metric, f"BLEU-{metric[4:]}" if metric.startswith("bleu") else metric)


def thumbnail(example: ScoredRow) -> bytes:
    """The example's image as a small JPEG; raises UserError naming file, row and column when it cannot be read."""
    from unival.modalities.pillow import read_image  # imports torch

    try:
        small = read_image(example.load_image(), 2 * THUMBNAIL).convert("RGB")
    except UserError as error:
        raise UserError(f"{example.where}: {error}") from error
    small.thumbnail((THUMBNAIL, THUMBNAIL))
    stream = io.BytesIO()
    small.save(stream, "JPEG", quality=85)
    return stream.getvalue()
