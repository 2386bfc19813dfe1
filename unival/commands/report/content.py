"""The content of a report: splits with their examples, the curves of training, and the key figures."""

import io
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from unival.boxes import Box
from unival.drawing.figures import display_name
from unival.errors import UserError

if TYPE_CHECKING:
    from PIL.Image import Image as Picture

MAIN, SWAPPED, UNSEEN, OTHER_TEXT, GUESSES = "main", "swapped", "unseen", "other text", "guesses"
FAILED_HEADING = "This model has not learnt to look at the image"
THUMBNAIL = 224  # pixels, longest side
FRAMES = 4  # of a video that are shown
HEADINGS = {
    MAIN: "Unseen scenes",
    SWAPPED: "Same model, another image's pixels",
    UNSEEN: "Unseen objects, reported apart",
    OTHER_TEXT: "Same model and images, another text",
    GUESSES: "Guesses of somebody who does not look",
}
RIGHT = ("exact_match", "accuracy", "vqa_score", "box_accuracy")  # scores that are 1 where a row is right
GENERATED_COLOUR, REFERENCE_COLOUR = "#e4007c", "#0090ff"  # of boxes


@dataclass(frozen=True)
class ScoredRow:
    """One row of a split: its image, references and generated caption, with scores."""

    row: int  # row number in the table
    where: str  # file, row and column of the image, for messages
    load_image: Callable[[], bytes] | None  # returns its encoded bytes; called only for examples that are shown; None: there is none
    references: tuple[str, ...]
    hypothesis: str
    scores: Mapping[str, float]
    id: str = ""
    asked: str = ""  # the text that goes with the image, such as a question
    boxes: tuple[tuple[Box, str], ...] = ()  # what is drawn on the image, with its colour

    @property
    def is_right(self) -> bool:
        return any(self.scores.get(name, 0.0) >= 1.0 for name in RIGHT)


@dataclass(frozen=True)
class Split:
    """A split with its role in the report (``main``, ``swapped``, ``unseen`` or its own name) and the score of each example."""

    name: str
    role: str
    examples: tuple[ScoredRow, ...]
    summary: Mapping[str, float]
    metric: str = ""


@dataclass(frozen=True)
class Curves:
    """The training log: (update, loss in bits per token) and (update, value of the validation metric)."""

    loss: tuple[tuple[int, float], ...] = ()
    valid_loss: tuple[tuple[int, float], ...] = ()
    metric: tuple[tuple[int, float], ...] = ()
    metric_name: str = ""


@dataclass(frozen=True)
class Report:
    """All that the page shows."""

    title: str
    metric: str  # the score that is shown for every example
    splits: tuple[Split, ...]
    curves: Curves = field(default_factory=Curves)
    failure: str = ""  # why the required ratio is not reached, and what to do; changes the heading

    @property
    def heading(self) -> str:
        """The title, or another heading if the model does not look at the image."""
        return FAILED_HEADING if self.failure else self.title

    def split(self, role: str) -> Split | None:
        return next((split for split in self.splits if split.role == role), None)

    @property
    def ratio(self) -> float | None:
        """Score with the right pixels divided by that with another image's pixels; None if a split is missing."""
        right, swapped = self.split(MAIN), self.split(SWAPPED)
        if right is None or swapped is None:
            return None
        if swapped.summary[self.metric] <= 0:
            return math.inf if right.summary[self.metric] > 0 else 0.0
        return right.summary[self.metric] / swapped.summary[self.metric]


    @property
    def changed(self) -> float | None:
        """The share of rows that are answered differently when they are asked otherwise; None if the split is missing."""
        right, other = self.split(MAIN), self.split(OTHER_TEXT)
        if right is None or other is None:
            return None
        said = {example.id: example.hypothesis for example in right.examples}
        pairs = [(said[example.id], example.hypothesis) for example in other.examples if example.id in said]
        return sum(one != another for one, another in pairs) / len(pairs) if pairs else None


def evenly(examples: Sequence[ScoredRow], count: int) -> list[ScoredRow]:
    """``count`` examples at even distances through a split."""
    count = min(count, len(examples))
    return [examples[i * len(examples) // count] for i in range(count)]


def key_figures(report: Report) -> list[tuple[str, str]]:
    """The key figures, at the top of the page and of the image, as (value, label)."""
    name = display_name(report.metric)
    figures = []
    labels = {MAIN: "right pixels", SWAPPED: "another image's pixels", OTHER_TEXT: "another text", GUESSES: "without looking"}
    for role, label in labels.items():
        split = report.split(role)
        if split is not None:
            figures.append((f"{split.summary[report.metric]:.3f}", f"{name}, {label}"))
    if report.ratio is not None:
        figures.append((format_ratio(report.ratio), "right pixels to other pixels"))
    if report.changed is not None:
        figures.append((f"{report.changed:.0%}", "say something else when asked otherwise"))
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


def film(content: bytes) -> "Picture | None":
    """A few frames of an animated image in two rows, from the first to the last one; None: there is one frame only."""
    from PIL import Image

    with Image.open(io.BytesIO(content)) as file:
        count = getattr(file, "n_frames", 1)
        if count < 2:
            return None
        frames = []
        for place in range(FRAMES):
            file.seek(round(place * (count - 1) / (FRAMES - 1)))
            frames.append(file.convert("RGB"))
    width, height = frames[0].size
    strip = Image.new("RGB", (2 * width + 2, FRAMES // 2 * (height + 2) - 2), "white")
    for place, frame in enumerate(frames):
        strip.paste(frame, (place % 2 * (width + 2), place // 2 * (height + 2)))
    return strip


def thumbnail(example: ScoredRow) -> bytes:
    """The example's image as a small JPEG, with its boxes.

    Raises:
        UserError: it cannot be read; names file, row and column.
    """
    from PIL import ImageDraw

    from unival.modalities.pillow import read_sized_image  # imports torch

    assert example.load_image is not None, f"{example.where}: has no image"
    try:
        content = example.load_image()
        read, full = read_sized_image(content, 2 * THUMBNAIL)
        small = read.convert("RGB") if example.boxes else film(content) or read.convert("RGB")
    except UserError as error:
        raise UserError(f"{example.where}: {error}") from error
    if example.boxes:  # small images are enlarged, so that lines are not broader than things
        scale = THUMBNAIL / max(small.size)
        small = small.resize((round(small.width * scale), round(small.height * scale)))
    small.thumbnail((THUMBNAIL, THUMBNAIL))
    pen = ImageDraw.Draw(small)
    for box, colour in example.boxes:
        left, top, right, bottom = (round(x * small.width / full[0]) for x in box)
        pen.rectangle((min(left, right), min(top, bottom), max(left, right), max(top, bottom)), outline=colour, width=3)
    stream = io.BytesIO()
    small.save(stream, "JPEG", quality=85)
    return stream.getvalue()
