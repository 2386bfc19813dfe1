"""How a report looks: the self-contained HTML page and the PNG picture of `unival report`.

Everything that comes from files (captions, names, titles) is escaped; images go into the page as small JPEG data URIs.
Examples are taken at even distances through a split, never chosen by their score.
"""

import base64
import html
import io
import math
import textwrap
from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

from unival.commands.report import MAIN, SWAPPED, UNSEEN, Curves, Example, Report, Split
from unival.errors import UserError

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

GOOD, BAD, INK, MUTED, LINE = "#1a7f37", "#c0392b", "#1f2328", "#59636e", "#2f6fb5"
THUMBNAIL = 224  # pixels, longest side
PICTURE_ROWS, PICTURE_COLUMNS = 3, 4

STYLE = """
:root { color-scheme: light; }
body { font: 15px/1.45 system-ui, sans-serif; color: #1f2328; background: #f6f8fa; margin: 0; }
main { max-width: 1180px; margin: 0 auto; padding: 24px; }
h1 { font-size: 26px; margin: 0 0 4px; } h2 { font-size: 19px; margin: 36px 0 4px; }
p { margin: 4px 0 12px; color: #59636e; max-width: 78ch; }
.tiles { display: flex; flex-wrap: wrap; gap: 12px; margin: 18px 0; }
.tile { background: #fff; border: 1px solid #d1d9e0; border-radius: 8px; padding: 12px 18px; min-width: 150px; }
.tile b { display: block; font-size: 28px; line-height: 1.2; } .tile span { color: #59636e; font-size: 13px; }
.panel { background: #fff; border: 1px solid #d1d9e0; border-radius: 8px; padding: 14px; overflow-x: auto; }
.panel img { max-width: 100%; display: block; }
table { border-collapse: collapse; } th, td { padding: 5px 14px 5px 0; text-align: right; white-space: nowrap; }
th:first-child, td:first-child { text-align: left; } thead th { border-bottom: 1px solid #d1d9e0; }
td { font-variant-numeric: tabular-nums; }
.grid { display: grid; grid-template-columns: repeat(auto-fill, minmax(212px, 1fr)); gap: 14px; }
.card { background: #fff; border: 1px solid #d1d9e0; border-top: 4px solid #9aa4af; border-radius: 8px; padding: 10px; }
.card.right { border-top-color: #1a7f37; } .card.wrong { border-top-color: #c0392b; }
.card img { width: 100%; aspect-ratio: 1; object-fit: contain; background: #eef1f4; border-radius: 4px; }
.said { font-weight: 600; margin: 8px 0 4px; } .right .said { color: #1a7f37; } .wrong .said { color: #c0392b; }
.card ul { margin: 0; padding-left: 18px; color: #59636e; font-size: 13px; }
.foot { display: flex; justify-content: space-between; color: #59636e; font-size: 12px; margin-top: 6px; }
.failure { color: #c0392b; font-weight: 600; }
footer { color: #59636e; font-size: 13px; margin-top: 36px; }
"""

EXPLAINED = {
    MAIN: "Scenes that training never showed. A caption is right (green) when it equals a reference word for word.",
    SWAPPED: "The same model and the same references, but every row is shown the picture of another row. A model that "
    "looks describes that other picture and scores low here; one that recites likely sentences scores the same.",
    UNSEEN: "Objects that training never showed, whose names (or combinations of a colour and a shape) a model trained from "
    "scratch has never read: low scores are expected. These rows are not part of the figures of the main split.",
}
HEADINGS = {
    MAIN: "Unseen scenes",
    SWAPPED: "Same model, another image's pixels",
    UNSEEN: "Unseen objects, reported apart",
}


def evenly(examples: Sequence[Example], count: int) -> list[Example]:
    """`count` examples at even distances through a split."""
    count = min(count, len(examples))
    return [examples[i * len(examples) // count] for i in range(count)]


# The page -------------------------------------------------------------------------------------------------------


def html_page(report: Report, count: int) -> str:
    """The whole page as text, with `count` examples of the main split and half as many of the others."""
    captions = sum(len(split.examples) for split in report.splits)
    parts = [
        f"<h1>{html.escape(report.heading)}</h1>",
        *([f'<p class="failure">{html.escape(report.failure)}</p>'] if report.failure else []),
        f"<p>{len(report.splits)} splits, {captions} generated captions.</p>",
        '<div class="tiles">' + "".join(tile(value, label) for value, label in key_figures(report)) + "</div>",
    ]
    if report.curves.loss:
        picture = data_uri(curve_png(report.curves), "image/png")
        parts.append(f'<h2>Training</h2><div class="panel"><img alt="Loss by update" src="{picture}"></div>')
    parts += ["<h2>Scores</h2>", f'<div class="panel">{score_table(report)}</div>']
    for split in report.splits:
        shown = evenly(split.examples, count if split.role == MAIN else max(count // 2, 1))
        heading = HEADINGS.get(split.role, f"Split {split.name}")
        parts.append(f"<h2>{html.escape(heading)}</h2>")
        parts.append(
            f"<p>{html.escape(EXPLAINED.get(split.role, ''))} Shown: {len(shown)} of {len(split.examples)}.</p>"
        )
        parts.append(
            '<div class="grid">' + "".join(card(example, split.role, report.metric) for example in shown) + "</div>"
        )
    parts.append("<footer>Examples stand at even distances through each split; none was chosen by its score.</footer>")
    head = f'<meta charset="utf-8"><title>{html.escape(report.heading)}</title><style>{STYLE}</style>'
    head += '<meta name="viewport" content="width=device-width, initial-scale=1">'
    body = "\n".join(parts)
    return f'<!doctype html>\n<html lang="en"><head>{head}</head><body><main>\n{body}\n</main></body></html>\n'


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
    """The key figures as text: one line each, `label: value`."""
    return [f"{label}: {value}" for value, label in key_figures(report)]


def format_ratio(ratio: float) -> str:
    return "∞ : 1" if math.isinf(ratio) else f"{ratio:.1f} : 1"


def display_name(metric: str) -> str:
    """`cider` -> `CIDEr`, `bleu4` -> `BLEU-4`."""
    known = {"cider": "CIDEr", "cider_d": "CIDEr-D", "rouge_l": "ROUGE-L", "meteor": "METEOR", "spice": "SPICE"}
    known["exact_match"] = "exact match"
    return known.get(metric, f"BLEU-{metric[4:]}" if metric.startswith("bleu") else metric)


def tile(value: str, label: str) -> str:
    return f'<div class="tile"><b>{html.escape(value)}</b><span>{html.escape(label)}</span></div>'


def score_table(report: Report) -> str:
    """One row per split, one column per metric."""
    metrics = list(dict.fromkeys(key for split in report.splits for key in split.summary))
    head = "".join(f"<th>{html.escape(display_name(metric))}</th>" for metric in metrics)
    rows = []
    for split in report.splits:
        cells = "".join(
            f"<td>{split.summary[metric]:.3f}</td>" if metric in split.summary else "<td></td>" for metric in metrics
        )
        label = HEADINGS.get(split.role, split.name)
        rows.append(
            f"<tr><td>{html.escape(label)} ({html.escape(split.name)})</td><td>{len(split.examples)}</td>{cells}</tr>"
        )
    return f"<table><thead><tr><th>split</th><th>rows</th>{head}</tr></thead><tbody>{''.join(rows)}</tbody></table>"


def card(example: Example, role: str, metric: str) -> str:
    """One example of the page; with swapped pixels neither right nor wrong is shown, since both would mislead."""
    verdict = "" if role == SWAPPED else " right" if example.is_exact else " wrong"
    mark = {"": "", " right": "✓ ", " wrong": "✗ "}[verdict]
    references = "".join(f"<li>{html.escape(reference)}</li>" for reference in example.references[:5])
    source = data_uri(thumbnail(example), "image/jpeg")
    score = f"{display_name(metric)} {example.scores[metric]:.2f}" if metric in example.scores else ""
    return (
        f'<div class="card{verdict}"><img alt="" src="{source}">'
        f'<div class="said">{mark}{html.escape(example.hypothesis) or "(nothing)"}</div><ul>{references}</ul>'
        f'<div class="foot"><span>row {example.row}</span><span>{html.escape(score)}</span></div></div>'
    )


def data_uri(content: bytes, kind: str) -> str:
    return f"data:{kind};base64,{base64.b64encode(content).decode('ascii')}"


def thumbnail(example: Example) -> bytes:
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


# The picture ----------------------------------------------------------------------------------------------------


def new_figure(width: float, height: float, layout: Literal["constrained"] | None = None) -> "Figure":
    """A matplotlib figure that draws without a display and leaves the user's pyplot state alone; sizes in inches."""
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError as error:
        raise UserError(
            "the report's pictures need matplotlib: pip install matplotlib (or the extra [eval])"
        ) from error
    figure = Figure(figsize=(width, height), layout=layout, facecolor="white")
    FigureCanvasAgg(figure)
    return figure


def figure_png(figure: "Figure", dots_per_inch: int) -> bytes:
    """The figure as a PNG of 256 colours: a third of the bytes, and the eye sees no difference."""
    from PIL import Image

    drawn, stream = io.BytesIO(), io.BytesIO()
    figure.savefig(drawn, format="png", dpi=dots_per_inch)
    Image.open(drawn).convert("RGB").quantize(256, dither=Image.Dither.NONE).save(stream, "PNG", optimize=True)
    return stream.getvalue()


def curve_png(curves: Curves) -> bytes:
    figure = new_figure(10, 3.2, layout="constrained")
    draw_curves(figure.subplots(), curves)
    return figure_png(figure, 110)


def draw_curves(axes: "Axes", curves: Curves) -> None:
    """Loss in bits per token on the left axis, the validation metric on the right one."""
    axes.plot(*zip(*curves.loss, strict=True), color=LINE, label="training loss")
    if curves.valid_loss:
        axes.plot(
            *zip(*curves.valid_loss, strict=True),
            color=LINE,
            linestyle="--",
            marker="o",
            markersize=3,
            label="validation loss",
        )
    axes.set(xlabel="update", ylabel="loss (bits per token)")
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="y", alpha=0.25)
    handles, labels = axes.get_legend_handles_labels()
    if curves.metric:
        twin = axes.twinx()
        name = f"validation {display_name(curves.metric_name)}"
        twin.plot(*zip(*curves.metric, strict=True), color=GOOD, marker="o", markersize=3, label=name)
        twin.set(ylabel=display_name(curves.metric_name), ylim=(0, None))
        twin.spines["top"].set_visible(False)
        more = twin.get_legend_handles_labels()
        handles, labels = handles + more[0], labels + more[1]
    axes.legend(handles, labels, frameon=False, loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=3, fontsize=9)


def picture(report: Report) -> bytes:
    """The PNG: key figures, training curve, right against other pixels, and a grid of examples."""
    figure = new_figure(13, 15.4)
    colour = BAD if report.failure else INK
    title = figure.text(0.5, 0.978, plain(report.heading), ha="center", va="center", fontsize=20, fontweight="bold", color=colour)
    title.set_fontsize(20 * min(1, 0.96 * figure.bbox.width / title.get_window_extent().width))
    draw_key_figures(figure, report)
    if report.failure:
        reason = plain(wrapped(report.failure, 180, 3))
        figure.text(0.5, 0.895, reason, ha="center", va="center", fontsize=9, color=BAD)
    left, right = figure.add_axes((0.055, 0.735, 0.53, 0.125)), figure.add_axes((0.69, 0.735, 0.285, 0.14))
    if report.curves.loss:
        draw_curves(left, report.curves)
    else:
        left.set_axis_off()
    draw_bars(right, report.splits, report.metric)
    main = report.split(MAIN) or report.splits[0]
    note = f"{HEADINGS[MAIN]}: rows at even distances, none chosen by its score"
    figure.text(0.5, 0.69, note, ha="center", va="center", fontsize=13, color=MUTED)
    places = {"left": 0.02, "right": 0.98, "top": 0.645, "bottom": 0.055, "wspace": 0.14, "hspace": 0.52}
    grid = figure.add_gridspec(PICTURE_ROWS, PICTURE_COLUMNS, **places)
    for place, example in enumerate(evenly(main.examples, PICTURE_ROWS * PICTURE_COLUMNS)):
        draw_example(figure.add_subplot(grid[place]), example, report.metric)
    return figure_png(figure, 90)


def draw_key_figures(figure: "Figure", report: Report) -> None:
    """The figures of `key_figures` side by side under the title."""
    figures = key_figures(report)
    for place, (value, label) in enumerate(figures):
        across = (place + 0.5) / len(figures)
        figure.text(across, 0.940, value, ha="center", va="center", fontsize=21, fontweight="bold", color=INK)
        figure.text(across, 0.918, label, ha="center", va="center", fontsize=11, color=MUTED)


def draw_bars(axes: "Axes", splits: Sequence[Split], metric: str) -> None:
    labels = {MAIN: "right pixels", SWAPPED: "another image's\npixels", UNSEEN: "unseen\nobjects"}
    values = [split.summary[metric] for split in splits]
    colours = {MAIN: GOOD, SWAPPED: BAD}
    bars = axes.bar(
        range(len(splits)), values, color=[colours.get(split.role, "#9aa4af") for split in splits], width=0.6
    )
    axes.bar_label(bars, [f"{value:.2f}" for value in values], padding=2)
    axes.set_xticks(range(len(splits)), [labels.get(split.role, split.name) for split in splits], fontsize=9)
    axes.set(ylabel=display_name(metric), ylim=(0, max([*values, 0.01]) * 1.15))
    axes.spines[["top", "right"]].set_visible(False)


def draw_example(axes: "Axes", example: Example, metric: str) -> None:
    """The image, above it what the model said, below it the first reference and the score."""
    from PIL import Image

    axes.imshow(Image.open(io.BytesIO(thumbnail(example))), interpolation="bilinear")
    axes.set_axis_off()
    mark, colour = ("✓", GOOD) if example.is_exact else ("✗", BAD)
    said = plain(wrapped(f"{mark} {example.hypothesis or '(nothing)'}", 32, 2))
    axes.set_title(said, color=colour, fontsize=12, fontweight="bold")
    first = example.references[0] if example.references else ""
    score = f"\n{display_name(metric)} {example.scores[metric]:.2f}" if metric in example.scores else ""
    below = plain(wrapped(f"reference: {first}", 42, 2)) + score
    axes.text(0.5, -0.03, below, transform=axes.transAxes, ha="center", va="top", fontsize=10, color=MUTED)


def wrapped(text: str, width: int, lines: int) -> str:
    """At most `lines` lines of at most `width` characters; what is cut off shows as an ellipsis."""
    return "\n".join(textwrap.wrap(text, width, max_lines=lines, placeholder=" …"))


def plain(text: str) -> str:
    """matplotlib reads `$…$` as mathematics; captions are not."""
    return text.replace("$", r"\$")
