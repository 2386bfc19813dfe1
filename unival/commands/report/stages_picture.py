"""Draw the PNG image of a pretraining, and the curves of its page."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from unival.commands.report.content import Split, evenly
from unival.commands.report.picture import draw_example
from unival.commands.report.stages import Pretraining, StreamHistory
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

ACROSS = 3  # panels of curves side by side
EXAMPLES = 4  # of each task in the image
COLOURS = (GOOD, "#9aa4af", LINE, BAD)  # of what was trained afterwards
SHADES = ("#f6f8fa", "#e7ecf1")  # of the stages, in turn


def key_figures(report: Pretraining) -> list[tuple[str, str]]:
    """The score of every task, as (value, label)."""
    return [(f"{split.summary[split.metric]:.2f}", f"{split.name}, {display_name(split.metric)}") for split in report.splits]


def pretraining_summary(report: Pretraining) -> list[str]:
    """The key figures and what each stage gained and forgot as text."""
    lines = [f"{label}: {value}" for value, label in key_figures(report)]
    for history in report.histories():
        cells = [f"{stage.name} {cell.text}" for stage, cell in zip(report.stages, history.cells, strict=True) if cell is not None]
        lines.append(f"{history.name}, validation {display_name(history.score)}: {', '.join(cells)}")
    for run in report.afterwards:
        lines.append(f"{run.name}: validation {display_name(report.afterwards_score)} {run.points[-1][1]:.2f}")
    return lines


def curves_png(report: Pretraining) -> bytes:
    """The panels with the streams' curves."""
    rows = -(-len(report.streams) // ACROSS)
    figure = new_figure(10, 2.3 * rows, layout="constrained")
    draw_curves(report, list(figure.subplots(rows, ACROSS, squeeze=False).flat))
    return figure_png(figure, 110)


def draw_curves(report: Pretraining, panels: "Sequence[Axes]") -> None:
    """Draw a panel for each stream, with the stages in its background."""
    end = report.starts[-1] + report.stages[-1].updates
    free = list(panels)
    for name in report.streams:
        axes = free.pop(0)
        for number, (start, stage) in enumerate(zip(report.starts, report.stages, strict=True)):
            axes.axvspan(start, start + stage.updates, color=SHADES[number % 2], linewidth=0, zorder=0)
            middle, across = start + stage.updates / 2, axes.get_xaxis_transform()
            axes.text(middle, 0.97, escape_dollars(stage.name), transform=across, ha="center", va="top", fontsize=7, color=MUTED)
            points = stage.losses.get(name, ())
            axes.plot([start + update for update, _ in points], [value for _, value in points], color=LINE, linewidth=1.2)
        axes.set(xlim=(0, end), ylim=(0, None))
        axes.set_title(escape_dollars(name), fontsize=10, color=INK)
        axes.tick_params(labelsize=8)
        axes.spines[["top", "right"]].set_visible(False)
    for axes in free:
        axes.set_axis_off()


def afterwards_png(report: Pretraining) -> bytes:
    """The curves of what was trained afterwards."""
    figure = new_figure(10, 3.2, layout="constrained")
    draw_afterwards(figure.subplots(), report)
    return figure_png(figure, 110)


def draw_afterwards(axes: "Axes", report: Pretraining) -> None:
    """Draw the validation score of each run by update."""
    for number, run in enumerate(report.afterwards):
        colour = COLOURS[number % len(COLOURS)]
        axes.plot(*zip(*run.points, strict=True), color=colour, marker="o", markersize=4, label=escape_dollars(run.name))
    axes.set(xlabel="update", ylabel=display_name(report.afterwards_score), ylim=(0, None))
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="y", alpha=0.25)
    axes.legend(frameon=False, fontsize=9)


def draw_histories(axes: "Axes", report: Pretraining, histories: Sequence[StreamHistory]) -> None:
    """Draw the table of what each stage gained and forgot."""
    axes.set_axis_off()
    axes.set(xlim=(-1.6, len(report.stages)), ylim=(len(histories) + 0.2, -0.9))
    for column, stage in enumerate(report.stages):
        axes.text(column + 0.5, -0.5, escape_dollars(stage.name), ha="center", va="center", fontsize=10, color=MUTED)
    for row, history in enumerate(histories):
        axes.axhline(row, color="#d1d9e0", linewidth=0.8)
        label = f"{history.name}, {display_name(history.score)}{' (lower is better)' if history.is_loss else ''}"
        axes.text(-1.6, row + 0.5, escape_dollars(label), va="center", fontsize=9, color=INK)
        for column, cell in enumerate(history.cells):
            if cell is None:
                axes.text(column + 0.5, row + 0.5, "–", ha="center", va="center", color=MUTED)
                continue
            axes.text(column + 0.42, row + 0.5, cell.text, ha="right", va="center", fontsize=11, color=INK if cell.is_trained else MUTED)
            if cell.change is not None:
                colour = GOOD if history.gain(cell) >= 0 else BAD
                axes.text(column + 0.47, row + 0.5, f"{cell.change:+.2f}", va="center", fontsize=9, color=colour)


def pretraining_picture(report: Pretraining) -> bytes:
    """Draw the PNG: every stream's curve, what each stage gained and forgot, what came afterwards, and examples of every task."""
    histories = report.histories()
    curve_rows = -(-len(report.streams) // ACROSS)
    heights = [0.75, 1.9 * curve_rows, 0.45 + max(2.6, 0.36 * len(histories))]
    figure = new_figure(13, sum(heights) + 3.15 * len(report.splits) + 0.3)
    whole = figure.get_figheight()
    tops = [1 - sum(heights[:number]) / whole for number in range(4)]
    stages = " → ".join(stage.name for stage in report.stages)
    figure.text(0.5, 1 - 0.25 / whole, escape_dollars(report.title), ha="center", va="center", fontsize=19, fontweight="bold", color=INK)
    said = f"{stages}: training loss of every stream, in bits per token, by update"
    figure.text(0.5, 1 - 0.55 / whole, escape_dollars(said), ha="center", va="center", fontsize=11, color=MUTED)
    places = {"left": 0.04, "right": 0.985, "wspace": 0.12, "hspace": 0.45}
    curves = figure.add_gridspec(curve_rows, ACROSS, top=tops[1] - 0.1 / whole, bottom=tops[2] + 0.35 / whole, **places)
    draw_curves(report, [figure.add_subplot(curves[place]) for place in range(curve_rows * ACROSS)])
    bottom, height = tops[3] + 0.4 / whole, (heights[2] - 0.75) / whole
    if histories:
        draw_histories(figure.add_axes((0.02, bottom, 0.58 if report.afterwards else 0.96, height)), report, histories)
    if report.afterwards:
        draw_afterwards(figure.add_axes((0.67, bottom, 0.315, height)), report)
    each = 3.15 / whole
    for number, split in enumerate(report.splits):
        draw_split(figure, split, tops[3] - number * each, each)
    return figure_png(figure, 90)


def draw_split(figure: "Figure", split: Split, top: float, height: float) -> None:
    """Draw a few examples of a task side by side, between ``top`` and ``top - height``, in parts of the figure."""
    inch = 1 / figure.get_figheight()
    said = f"{split.name}: {display_name(split.metric)} {split.summary[split.metric]:.2f}"
    figure.text(0.02, top - 0.12 * inch, escape_dollars(wrapped(said, 90, 1)), va="center", fontsize=12, fontweight="bold", color=INK)
    grid = figure.add_gridspec(1, EXAMPLES, left=0.02, right=0.98, top=top - 0.75 * inch, bottom=top - height + 0.85 * inch, wspace=0.14)
    for place, example in enumerate(evenly(split.examples, EXAMPLES)):
        draw_example(figure.add_subplot(grid[place]), example, split.metric)
