"""Files in the formats that the evaluation servers of benchmarks take."""

import pathlib
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from unival.errors import UserError

SHOWN = 60  # characters of an id that messages quote


@dataclass(frozen=True)
class Format:
    """A JSON list with an object per row.

    Attributes:
        id: name of the id's field.
        text: name of the text's field.
        is_file: whether an id is the name of an image file, else it is an integer.
        about: whose format it is.
    """

    id: str
    text: str
    is_file: bool
    about: str


FORMATS = {
    "coco": Format("image_id", "caption", False, "captions of COCO and VizWiz"),
    "nocaps": Format("image_id", "caption", False, "captions of NoCaps"),
    "vqa": Format("question_id", "answer", False, "answers of VQA and OK-VQA"),
    "vizwiz": Format("image", "answer", True, "answers of VizWiz"),
}


def parse_target(text: str) -> tuple[str, str]:
    """Split ``FORMAT:FILE``.

    Raises:
        UserError: the format is unknown, or there is no file.
    """
    name, mark, path = text.partition(":")
    if name not in FORMATS or not path:
        known = ", ".join(f"{name} ({known.about})" for name, known in FORMATS.items())
        raise UserError(f"--submission {text!r}: expected FORMAT:FILE with one of the formats {known}")
    return name, path


def submission(name: str, texts: Mapping[int, str], ids: Mapping[int, Any], where: Callable[[int], str]) -> list[dict[str, Any]]:
    """The content of a file.

    Args:
        name: a key of ``FORMATS``.
        texts: row number -> generated text.
        ids: row number -> id as the table has it.
        where: names the place of a row's id in messages.

    Raises:
        UserError: an id is not what the format takes, or two rows have the same.
    """
    form = FORMATS[name]
    rows: dict[Any, int] = {}
    for row in texts:
        value = _parse_id(form, ids[row], where(row))
        if value in rows:
            raise UserError(f"{where(row)}: has the id {value!r} of row {rows[value]}; a submission has one {form.text} per {form.id}")
        rows[value] = row
    return [{form.id: value, form.text: texts[row]} for value, row in rows.items()]


def _parse_id(form: Format, value: Any, where: str) -> int | str:
    if form.is_file:
        if isinstance(value, str) and pathlib.PurePosixPath(value).suffix:
            return pathlib.PurePosixPath(value).name
        expected = "the name of an image file"
    else:
        if isinstance(value, int) and not isinstance(value, bool):
            return value
        if isinstance(value, str) and re.fullmatch(r"[0-9]{1,18}", value.strip()):
            return int(value)
        expected = "an integer"
    raise UserError(f"{where}: {form.id} must be {expected}, got {str(value)[:SHOWN]!r} (--id-column says which column has the ids)")
