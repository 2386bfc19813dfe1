"""The loss on the path between two models, as text and PNG."""

from collections.abc import Iterator, Mapping, Sequence

from unival.drawing.figures import BAD, INK, LINE, MUTED, escape_dollars, figure_png, new_figure
from unival.errors import counted
from unival.tasks.sweeping.barrier import Barrier
from unival.tasks.sweeping.results import Result
from unival.tasks.sweeping.table import LOSS

ACROSS = 3  # panels side by side
SOURCES = {
    "barrier": "max over lambda of L(lambda) - ((1 - lambda) L(0) + lambda L(1)); Entezari et al. 2022, arXiv:2110.06296",
    "instability": "max over lambda of L(lambda) - (L(0) + L(1)) / 2; Frankle et al. 2020, arXiv:1912.05671, there of the error rate",
}


def described(table: str, results: Sequence[Result], barrier: Barrier) -> Iterator[str]:
    """The losses of a table along the path, and the barrier."""
    yield f"{table} ({counted(len(results[0].measured.tokens), 'row')}): loss in bits per token, and what it is above the straight line"
    width = max(len(result.point) for result in results)
    for result, loss, excess in zip(results, barrier.losses, barrier.excess, strict=True):
        yield f"  {result.point:>{width}}  {loss:.4f}{_bounds(result.measured.intervals.get(LOSS))}  {excess:+.4f}"
    yield f"barrier {barrier.height:.4f}{_bounds(barrier.height_interval)} at lambda {barrier.at:g}: {SOURCES['barrier']}"
    yield f"instability {barrier.instability:.4f}{_bounds(barrier.instability_interval)}: {SOURCES['instability']}"


def _bounds(interval: tuple[float, float] | None) -> str:
    return "" if interval is None else f" [{interval[0]:.4f}, {interval[1]:.4f}]"


def barriers_png(barriers: Mapping[str, tuple[Sequence[Result], Barrier]]) -> bytes:
    """Draw a panel for every table: the losses with their intervals, the straight line between the ends, and the barrier's place."""
    across = min(ACROSS, len(barriers))
    rows = -(-len(barriers) // across)
    figure = new_figure(5 * across, 4 * rows, layout="constrained")
    panels = list(figure.subplots(rows, across, squeeze=False).flat)
    for axes in panels[len(barriers) :]:
        axes.set_axis_off()
    for axes, (table, (results, barrier)) in zip(panels, barriers.items(), strict=False):
        values = [float(result.value or 0) for result in results]
        axes.plot(values, barrier.losses, color=LINE, marker="o", markersize=4)
        bounds = [result.measured.intervals.get(LOSS) for result in results]
        if all(bounds):
            low, high = zip(*(bound for bound in bounds if bound), strict=True)
            axes.fill_between(values, low, high, color=LINE, alpha=0.12, linewidth=0)
        axes.plot([0, 1], [barrier.losses[0], barrier.losses[-1]], color=MUTED, linestyle="--")
        top = barrier.losses[values.index(barrier.at)]
        axes.plot([barrier.at] * 2, [top - barrier.height, top], color=BAD, linewidth=2)
        said = f"{table}: barrier {barrier.height:.3f}{_bounds(barrier.height_interval)}"
        axes.set_title(escape_dollars(said), fontsize=10, color=INK)
        axes.set(xlabel="lambda", ylabel="loss (bits per token)")
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(alpha=0.25)
    return figure_png(figure, 110)
