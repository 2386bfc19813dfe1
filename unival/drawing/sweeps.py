"""What a sweep found, as text, PNG and page: the score of each task against the coefficient, and of one task against another."""

import itertools
import pathlib
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from unival.drawing.figures import BAD, GOOD, INK, LINE, MUTED, display_name, escape_dollars, figure_png, new_figure
from unival.drawing.pages import data_uri, load_template
from unival.errors import counted
from unival.tasks.sweeping.choice import Choice, choices
from unival.tasks.sweeping.results import Result
from unival.tasks.sweeping.table import LOSS

if TYPE_CHECKING:
    from matplotlib.axes import Axes

ACROSS = 3  # panels side by side
COLOURS = (LINE, BAD, GOOD, "#8250df", "#9a6700", MUTED)  # of sweeps
Sweeps = Mapping[str, Sequence[Result]]  # by their names


def write(out: pathlib.Path, title: str, sweeps: Sweeps) -> list[str]:
    """Write ``curves.png`` and ``report.html``; returns lines that say where they are."""
    out.mkdir(parents=True, exist_ok=True)
    picture = curves_png(title, sweeps)
    (out / "curves.png").write_bytes(picture)
    (out / "report.html").write_text(page(title, sweeps, picture), encoding="utf-8")
    return [f"picture: {out / 'curves.png'}", f"page: {out / 'report.html'}"]


# Text -------------------------------------------------------------------------------------------------------------------------


def summary(results: Sequence[Result]) -> Iterator[str]:
    """The scores of all points of a sweep, a block for each table, and what validation chooses."""
    for table, part in dict.fromkeys((result.table, result.part) for result in results):
        mine = of_table(results, table, part)
        yield f"{table} ({part}, {counted(len(mine[0].measured.tokens), 'row')}): {mine[0].metric}, loss in bits per token"
        width = max(len(result.point) for result in mine)
        for result in mine:
            yield f"  {result.point:>{width}}  {scored(result)}  {result.measured.scores[LOSS]:.4f}"
    yield from chosen(results)


def chosen(results: Sequence[Result]) -> Iterator[str]:
    """What validation chooses, a line each."""
    found = choices(results)
    for choice in found:
        tests = ", ".join(f"{test.table} {test.metric} {scored(test)}" for test in choice.tests)
        yield f"chosen for {choice.name}: {results[0].coefficient} {choice.point} (validation: {choice.said}); test: {tests}"
    if not found:
        yield "no validation table (--valid): nothing is chosen, since the best of several scores on a test table is too high"


def scored(result: Result) -> str:
    """The score with its interval."""
    bounds = result.measured.intervals.get(result.metric)
    return f"{result.score:.4f}" + (f" [{bounds[0]:.4f}, {bounds[1]:.4f}]" if bounds else "")


def of_table(results: Sequence[Result], table: str, part: str) -> list[Result]:
    """The results on a table."""
    return [result for result in results if (result.table, result.part) == (table, part)]


# Figure -----------------------------------------------------------------------------------------------------------------------


def curves_png(title: str, sweeps: Sweeps) -> bytes:
    """Draw a panel for every pair of tables, whose axes are their scores, then one for every table, then the loss of all."""
    tables = list(dict.fromkeys(result.table for results in sweeps.values() for result in results))
    pairs = list(itertools.combinations(tables, 2))
    with_loss = any(result.metric != LOSS for results in sweeps.values() for result in results)
    panels = len(pairs) + len(tables) + with_loss * len(tables)
    rows = -(-panels // ACROSS)
    figure = new_figure(4.4 * min(ACROSS, panels), 3.9 * rows + 0.5, layout="constrained")
    figure.suptitle(escape_dollars(title), fontsize=14, fontweight="bold", color=INK)
    axes = list(figure.subplots(rows, min(ACROSS, panels), squeeze=False).flat)
    free = iter(axes)
    for first, second in pairs:
        draw_pair(next(free), sweeps, first, second)
    for table in tables:
        draw_table(next(free), sweeps, table, None)
    for table in tables if with_loss else ():
        draw_table(next(free), sweeps, table, LOSS)
    for left in free:
        left.set_axis_off()
    return figure_png(figure, 110)


def draw_pair(axes: "Axes", sweeps: Sweeps, first: str, second: str) -> None:
    """Draw the scores of two tables against each other, as figure 2 of the UnIVAL paper; ends and choices are labelled."""
    for colour, (name, results) in zip(itertools.cycle(COLOURS), sweeps.items(), strict=False):
        ours, theirs = ({result.point: result for result in of_table(results, table, "test")} for table in (first, second))
        points = [point for point in ours if point in theirs]
        if not points:
            continue
        x, y = [ours[point].score for point in points], [theirs[point].score for point in points]
        line = "-" if results[0].value is not None else "none"
        axes.plot(x, y, color=colour, marker="o", markersize=4, linestyle=line, label=escape_dollars(name))
        marked = {points[0], points[-1], *(choice.point for choice in choices(results))}
        for point in marked:
            place = (ours[point].score, theirs[point].score)
            axes.annotate(escape_dollars(point), place, xytext=(4, 4), textcoords="offset points", fontsize=8, color=MUTED)
        axes.set(xlabel=_axis(first, ours[points[0]].metric), ylabel=_axis(second, theirs[points[0]].metric))
    _finish(axes, f"{second} against {first}", len(sweeps))


def draw_table(axes: "Axes", sweeps: Sweeps, table: str, metric: str | None) -> None:
    """Draw the scores of a table against the coefficient: in the test with intervals, in validation dashed, and what is chosen."""
    label = ""
    for colour, (name, results) in zip(itertools.cycle(COLOURS), sweeps.items(), strict=False):
        for part, style in (("test", "-"), ("valid", "--")):
            mine = of_table(results, table, part)
            if not mine:
                continue
            places = _places(axes, mine)
            key = metric or mine[0].metric
            values = [result.measured.scores[key] for result in mine]
            shown = escape_dollars(name) if part == "test" else None
            axes.plot(places, values, style, color=colour, marker="o", markersize=3, label=shown)
            bounds = [result.measured.intervals.get(key) for result in mine]
            if part == "test" and all(bounds):
                low, high = zip(*(bound for bound in bounds if bound), strict=True)
                axes.fill_between(places, low, high, color=colour, alpha=0.12, linewidth=0)
            label, across = _axis(table, key), mine[0].coefficient
            axes.set(xlabel=across, ylabel=label)
        choice = next((choice for choice in choices(results) if choice.name == table), None)
        if choice is not None and metric is None and choice.tests:
            mine = of_table(results, table, "test")
            place = _places(axes, mine)[[result.point for result in mine].index(choice.point)]
            axes.plot([place], [choice.tests[0].score], marker="*", markersize=13, color=colour)
    _finish(axes, label, len(sweeps))


def _places(axes: "Axes", results: Sequence[Result]) -> list[float]:
    """Where points are on the axis: their values, or side by side with their names."""
    values = [result.value for result in results if result.value is not None]
    if len(values) == len(results):
        return values
    axes.set_xticks(range(len(results)), [escape_dollars(result.point) for result in results], fontsize=6, rotation=90)
    return [float(number) for number in range(len(results))]


def _axis(table: str, metric: str) -> str:
    unit = "loss (bits per token)" if metric == LOSS else display_name(metric)
    return escape_dollars(f"{table}: {unit}")


def _finish(axes: "Axes", title: str, count: int) -> None:
    axes.set_title(escape_dollars(title), fontsize=10, color=INK)
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(alpha=0.25)
    axes.tick_params(labelsize=8)
    if count > 1 and axes.get_legend_handles_labels()[0]:
        axes.legend(frameon=False, fontsize=8)


# Page -------------------------------------------------------------------------------------------------------------------------


def page(title: str, sweeps: Sweeps, picture: bytes) -> str:
    """Make the page as text."""
    return load_template(__package__, "sweeps.html").render(
        title=title,
        figures=figures(sweeps),
        curves=data_uri(picture, "image/png"),
        sections=[(name, list(chosen(results)), blocks(results)) for name, results in sweeps.items()],
        has_valid=any(result.part == "valid" for results in sweeps.values() for result in results),
    )


def figures(sweeps: Sweeps) -> list[tuple[str, str]]:
    """What the chosen points score in the test, as (value, label)."""
    found = []
    for name, results in sweeps.items():
        for choice in choices(results):
            of = f"{name}, " if len(sweeps) > 1 else ""
            found += [(f"{test.score:.3f}", _label(of, results[0].coefficient, choice, test)) for test in choice.tests]
    return found


def _label(of: str, coefficient: str, choice: Choice, test: Result) -> str:
    return f"{of}{test.table} {display_name(test.metric)} with the {coefficient} {choice.point} chosen for {choice.name}"


def blocks(results: Sequence[Result]) -> list[tuple[str, list[str], list[tuple[str, list[str]]]]]:
    """A table of scores for each table of data: heading, names of scores, and the scores of each point."""
    found = []
    for table, part in dict.fromkeys((result.table, result.part) for result in results):
        mine = of_table(results, table, part)
        names = list(mine[0].measured.scores)
        rows = [(result.point, [f"{result.measured.scores[name]:.4f}" for name in names]) for result in mine]
        found.append((f"{table}, {part} ({counted(len(mine[0].measured.tokens), 'row')})", names, rows))
    return found
