"""The self-contained HTML page of a report, from the template ``page.html``.

Everything that comes from files (captions, names, titles) is escaped by the template engine; images go into the page as small JPEG data
URIs.  Examples are taken at even distances through a split, never chosen by their score.
"""

import jinja2

from unival.commands.report.content import (
    GENERATED_COLOUR,
    GUESSES,
    HEADINGS,
    MAIN,
    OTHER_TEXT,
    REFERENCE_COLOUR,
    SWAPPED,
    UNSEEN,
    Report,
    ScoredRow,
    evenly,
    key_figures,
    thumbnail,
)
from unival.commands.report.picture import curve_png
from unival.drawing.pages import data_uri, load_template

EXPLAINED = {
    MAIN: "Scenes that training never showed. A caption is right (green) when it equals a reference word for word.",
    SWAPPED: "The same model and the same references, but every row is shown the image of another row. A model that "
    "looks describes that other image and scores low here; one that recites likely sentences scores the same.",
    UNSEEN: "Objects that training never showed, whose names (or combinations of a colour and a shape) a model trained from "
    "scratch has never read: low scores are expected. These rows are not part of the figures of the main split.",
    OTHER_TEXT: "The same images with the text of another row about them, which is answered differently, and the references of before. A "
    "model that reads what it is asked answers the other text and scores low here.",
}


def html_page(report: Report, count: int) -> str:
    """Make the page as text, with ``count`` examples of the main split and half as many of the others."""
    sections = [
        (split, evenly(split.examples, count if split.role == MAIN else max(count // 2, 1)))
        for split in report.splits
        if split.role != GUESSES
    ]
    return template("page.html").render(
        report=report,
        title=report.heading,
        captions=sum(len(split.examples) for split in report.splits),
        figures=key_figures(report),
        curves=data_uri(curve_png(report.curves), "image/png") if report.curves.loss else "",
        metrics=list(dict.fromkeys(key for split in report.splits for key in split.summary)),
        sections=sections,
        headings=HEADINGS,
        explained=EXPLAINED,
        no_verdict=(SWAPPED, OTHER_TEXT),
        colours=(GENERATED_COLOUR, REFERENCE_COLOUR),
    )


def template(name: str) -> jinja2.Template:
    """Load a template of this package."""
    return load_template(__package__, name, thumbnail_uri=thumbnail_uri)


def thumbnail_uri(example: ScoredRow) -> str:
    """The data URI of an example's image as a small JPEG."""
    return data_uri(thumbnail(example), "image/jpeg")
