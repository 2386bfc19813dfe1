"""Figures with matplotlib, in one style: colours, text, and their encoding as PNG."""

import io
import textwrap
from typing import TYPE_CHECKING, Literal

from unival.errors import UserError

if TYPE_CHECKING:
    from matplotlib.figure import Figure

GOOD, BAD, INK, MUTED, LINE = "#1a7f37", "#c0392b", "#1f2328", "#59636e", "#2f6fb5"


def new_figure(width: float, height: float, layout: Literal["constrained"] | None = None) -> "Figure":
    """Make a matplotlib figure that needs no display and does not use pyplot's global state; sizes are in inches."""
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError as error:
        raise UserError(
            "the report's images need matplotlib: pip install matplotlib (or the extra [eval])"
        ) from error
    figure = Figure(figsize=(width, height), layout=layout, facecolor="white")
    FigureCanvasAgg(figure)
    return figure


def figure_png(figure: "Figure", dots_per_inch: int) -> bytes:
    """Encode a figure as a PNG of 256 colours, which has a third of the bytes and no visible difference."""
    from PIL import Image

    drawn, stream = io.BytesIO(), io.BytesIO()
    figure.savefig(drawn, format="png", dpi=dots_per_inch)
    Image.open(drawn).convert("RGB").quantize(256, dither=Image.Dither.NONE).save(stream, "PNG", optimize=True)
    return stream.getvalue()


def wrapped(text: str, width: int, lines: int) -> str:
    """At most ``lines`` lines of at most ``width`` characters; an ellipsis shows that text was truncated."""
    return "\n".join(textwrap.wrap(text, width, max_lines=lines, placeholder=" …"))


def escape_dollars(text: str) -> str:
    """Escape ``$``, with which matplotlib marks mathematics."""
    return text.replace("$", r"\$")


def display_name(metric: str) -> str:
    """``cider`` -> ``CIDEr``, ``bleu4`` -> ``BLEU-4``."""
    known = {"cider": "CIDEr", "cider_d": "CIDEr-D", "rouge_l": "ROUGE-L", "meteor": "METEOR", "spice": "SPICE"}
    known |= {"exact_match": "exact match", "box_accuracy": "box accuracy", "mean_iou": "mean IoU"}
    return known.get(metric, f"BLEU-{metric[4:]}" if metric.startswith("bleu") else metric)
