"""The self-contained HTML page of a pretraining, from the template ``pretraining.html``."""

from unival.commands.report.content import GENERATED_COLOUR, REFERENCE_COLOUR, evenly
from unival.commands.report.page import template
from unival.commands.report.stages import Pretraining
from unival.commands.report.stages_picture import afterwards_png, curves_png, key_figures
from unival.drawing.pages import data_uri


def pretraining_page(report: Pretraining, count: int) -> str:
    """Make the page as text, with ``count`` examples of each task."""
    return template("pretraining.html").render(
        report=report,
        title=report.title,
        figures=key_figures(report),
        curves=data_uri(curves_png(report), "image/png"),
        histories=report.histories(),
        afterwards=data_uri(afterwards_png(report), "image/png") if report.afterwards else "",
        sections=[(split, evenly(split.examples, count)) for split in report.splits],
        colours=(GENERATED_COLOUR, REFERENCE_COLOUR),
    )
