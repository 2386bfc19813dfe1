"""Self-contained HTML pages in one frame, ``frame.html``; what comes from files is escaped by the template engine."""

import base64
import importlib.resources
from collections.abc import Callable

import jinja2

from unival.drawing.figures import display_name


def load_template(package: str | None, name: str, **filters: Callable[..., str]) -> jinja2.Template:
    """Load a template: values are escaped, and undefined names are errors.

    Args:
        package: the package that has it, and templates that it includes; the frame is found besides.
        name: name of its file.
        filters: functions that it uses, besides ``display_name``.
    """

    def source(file: str) -> str:
        places = [importlib.resources.files(each).joinpath(file) for each in (package or __package__, __package__)]
        return next(place for place in places if place.is_file()).read_text(encoding="utf-8")

    environment = jinja2.Environment(
        loader=jinja2.FunctionLoader(source),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters.update(display_name=display_name, **filters)
    return environment.get_template(name)


def data_uri(content: bytes, kind: str) -> str:
    """The data URI of bytes; ``kind`` is their MIME type."""
    return f"data:{kind};base64,{base64.b64encode(content).decode('ascii')}"
