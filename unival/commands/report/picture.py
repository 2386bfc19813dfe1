"""Draw the PNG image of a report and the curves of its page with matplotlib."""

import io
from collections.abc import Sequence
from typing import TYPE_CHECKING

from unival.commands.report.content import (
    GUESSES,
    HEADINGS,
    MAIN,
    OTHER_TEXT,
    SWAPPED,
    UNSEEN,
    Curves,
    Report,
    ScoredRow,
    Split,
    evenly,
    key_figures,
    thumbnail,
)
from unival.drawing.figures import (
    BAD,
    GOOD,
    INK,
    LINE,
    MUTED,
    display_name,
    escape_dollars,
    figure_png,
    new_figure,
    wrapped,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

PICTURE_ROWS, PICTURE_COLUMNS = 3, 4


def curve_png(curves: Curves) -> bytes:
    figure = new_figure(10, 3.2, layout="constrained")
    draw_curves(figure.subplots(), curves)
    return figure_png(figure, 110)


def draw_curves(axes: "Axes", curves: Curves) -> None:
    """Draw the loss in bits per token on the left axis, and the validation metric on the right one."""
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
    """Draw the PNG: key figures, training curve, scores of right and other pixels, and a grid of examples."""
    figure = new_figure(13, 15.4)
    colour = BAD if report.failure else INK
    title = figure.text(0.5, 0.978, escape_dollars(report.heading), ha="center", va="center", fontsize=20, fontweight="bold", color=colour)
    title.set_fontsize(20 * min(1, 0.96 * figure.bbox.width / title.get_window_extent().width))
    draw_key_figures(figure, report)
    if report.failure:
        reason = escape_dollars(wrapped(report.failure, 180, 3))
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
    """Draw the key figures side by side under the title."""
    figures = key_figures(report)
    for place, (value, label) in enumerate(figures):
        across = (place + 0.5) / len(figures)
        figure.text(across, 0.940, value, ha="center", va="center", fontsize=21, fontweight="bold", color=INK)
        figure.text(across, 0.926, wrapped(label, 150 // len(figures), 2), ha="center", va="top", fontsize=11, color=MUTED)


def draw_bars(axes: "Axes", splits: Sequence[Split], metric: str) -> None:
    labels = {MAIN: "right pixels", SWAPPED: "another image's\npixels", UNSEEN: "unseen\nobjects"}
    labels |= {OTHER_TEXT: "another\ntext", GUESSES: "without\nlooking"}
    values = [split.summary[metric] for split in splits]
    colours = {MAIN: GOOD, SWAPPED: BAD}
    bars = axes.bar(
        range(len(splits)), values, color=[colours.get(split.role, "#9aa4af") for split in splits], width=0.6
    )
    axes.bar_label(bars, [f"{value:.2f}" for value in values], padding=2)
    axes.set_xticks(range(len(splits)), [labels.get(split.role, split.name) for split in splits], fontsize=9)
    axes.set(ylabel=display_name(metric), ylim=(0, max([*values, 0.01]) * 1.15))
    axes.spines[["top", "right"]].set_visible(False)


def draw_example(axes: "Axes", example: ScoredRow, metric: str) -> None:
    """Draw an image, with the generated caption above it and the first reference and the score below it."""
    from PIL import Image

    if example.load_image is not None:
        axes.imshow(Image.open(io.BytesIO(thumbnail(example))), interpolation="bilinear")
    axes.set_axis_off()
    mark, colour = ("✓", GOOD) if example.is_right else ("✗", BAD)
    said = escape_dollars(wrapped(f"{mark} {example.hypothesis or '(nothing)'}", 32, 2))
    axes.set_title(said, color=colour, fontsize=12, fontweight="bold")
    first = example.references[0] if example.references else ""
    score = f"\n{display_name(metric)} {example.scores[metric]:.2f}" if metric in example.scores else ""
    asked = f"{wrapped(example.asked, 42, 2)}\n" if example.asked else ""
    below = escape_dollars(asked + wrapped(f"reference: {first}", 42, 2)) + score
    axes.text(0.5, -0.03, below, transform=axes.transAxes, ha="center", va="top", fontsize=10, color=MUTED)
