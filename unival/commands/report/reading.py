"""Read the content of a report from files: tables, generated texts, scores and the training log."""

import json
import pathlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING

from unival.boxes import box_text, boxes_of, parse_numbers
from unival.commands.report.content import GENERATED_COLOUR, REFERENCE_COLOUR, Curves, ScoredRow, Split
from unival.errors import UserError, counted, kind_of
from unival.metrics.intervals import FIELD
from unival.text import read_text

if TYPE_CHECKING:
    from unival.data.table import Table


@dataclass(frozen=True)
class View:
    """How the rows of a split are shown.

    Attributes:
        image: column of the image; "": none is shown.
        text: column of the text that goes with the image, such as a question, or of a box; "": there is none.
        reference: column of the references.
        metric: the score of each example.
        boxes: references and generated texts are boxes, to be drawn on the images.
        selected_cols: of TSV tables, the numbers of these columns.
        media_root: folder that image paths are relative to; None: that of the table.
    """

    image: str
    text: str
    reference: str
    metric: str
    boxes: bool
    selected_cols: str | None
    media_root: pathlib.Path | None


def read_json(path: pathlib.Path) -> dict:
    """Read a JSON object from a file.

    Raises:
        UserError: the file cannot be read, or is not a JSON object; it is named.
    """
    text = read_text(path)
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path}: not JSON: {error}") from error
    if not isinstance(value, dict):
        raise UserError(f"{path}: holds {kind_of(value)}, not a JSON object")
    return value


def parse_scores(values: object, where: str) -> dict[str, float]:
    """Check scores by name.

    Raises:
        UserError: a value is not a number.
    """
    if not isinstance(values, dict) or not all(isinstance(value, int | float) for value in values.values()):
        raise UserError(f'{where}: expected scores by name, such as {{"cider": 1.2}}')
    return {name: float(value) for name, value in values.items()}


def without_intervals(summary: Mapping[str, object]) -> dict[str, object]:
    """The scores in what ``unival score --json`` writes, which has their intervals as well."""
    return {name: value for name, value in summary.items() if name != FIELD}


def read_row_scores(path: pathlib.Path) -> dict[int, dict[str, float]]:
    """Read the scores of every row, as ``unival score --per-row`` writes them."""
    rows = read_json(path)
    if not all(row.isdecimal() for row in rows):
        raise UserError(f"{path}: expected scores by row number, as `unival score --per-row` writes them")
    return {int(row): parse_scores(values, f"{path}, row {row}") for row, values in rows.items()}


def read_log(path: pathlib.Path, metric: str) -> Curves:
    """Read the curves from fairseq's ``--log-format json --log-file``.

    fairseq adds a handler for the file in every epoch, so that later epochs are logged several times: equal lines are counted
    once. Lines that are not JSON objects (the configuration, warnings) are ignored.
    """
    records = read_records(path)
    valid_metric = points(records, "valid_num_updates", f"valid_{metric}")
    within_epochs = points(records, "num_updates", "loss")
    by_epoch = points(records, "train_num_updates", "train_loss")  # a short run may have no lines within its epochs
    return Curves(
        loss=max(within_epochs, by_epoch, key=len),
        valid_loss=points(records, "valid_num_updates", "valid_loss"),
        metric=valid_metric,
        metric_name=metric if valid_metric else "",
    )


def read_records(path: pathlib.Path) -> list[dict[str, object]]:
    """The JSON objects of a log, each once."""
    lines = dict.fromkeys(read_text(path).split("\n"))
    return [record for record in map(parse_record, lines) if record is not None]


def parse_record(line: str) -> dict[str, object] | None:
    """The JSON object in a line of the log; None if there is none."""
    try:
        record = json.loads(line)
    except ValueError:
        return None
    return record if isinstance(record, dict) else None


def points(records: Iterable[Mapping[str, object]], x: str, y: str) -> tuple[tuple[int, float], ...]:
    """The points (x, y) of records that have both, in order of x; numbers are strings in fairseq's log."""
    found = {int(float(str(record[x]))): float(str(record[y])) for record in records if x in record and y in record}
    return tuple(sorted(found.items()))


def read_references(cell: object, table: "Table", row: int, view: View) -> tuple[str, ...]:
    """The references of a row as texts: ``x0,y0,x1,y1`` of boxes.

    Raises:
        UserError: the cell holds something else; it is named.
    """
    from unival.data.cells import cell_errors, cell_references, is_joined

    if not view.boxes:
        return tuple(cell_references(cell, table, row, view.reference)[0])
    with cell_errors(table, row, view.reference):
        return tuple(map(box_text, boxes_of(cell, is_joined(table))))


def read_split(name: str, role: str, files: Mapping[str, pathlib.Path], view: View) -> Split:
    """Read a split from its four files.

    Args:
        name: the split's name, for messages.
        role: its part in the report.
        files: path of the ``table``, ``generated``, ``summary`` and ``per_row`` file.
        view: columns, media root, metric.

    Raises:
        UserError: a file or column is missing, or the files do not belong together.
    """
    from unival.data.cells import decode_media
    from unival.data.table import open_table
    from unival.metrics.score import read_generated

    columns = tuple(filter(None, (view.image, view.text, view.reference)))
    table = open_table(files["table"], columns, view.selected_cols, view.media_root)
    generated = read_generated(files["generated"])
    if max(generated) >= len(table):
        raise UserError(
            f"{files['generated']}: row {max(generated)}, but {files['table']} has {counted(len(table), 'row')}: not its output"
        )
    scores = read_row_scores(files["per_row"])
    missing = next((row for row in generated if row not in scores), None)
    if missing is not None:
        raise UserError(
            f"{files['per_row']}: no scores of row {missing}, which {files['generated']} has: not of the same run"
        )
    summary = parse_scores(without_intervals(read_json(files["summary"])), str(files["summary"]))
    if view.metric not in summary:
        raise UserError(f"{files['summary']}: no {view.metric}; there are {', '.join(summary)} (choose with --metric)")
    examples = []
    for row, (text, _) in sorted(generated.items()):
        record = table[row]
        references = read_references(record[view.reference], table, row, view)
        load = partial(decode_media, record[view.image], table, row, view.image) if view.image else None
        example = ScoredRow(row, table.where(row, view.image), load, references, text, scores[row])
        asked = record[view.text] if view.text else ""
        if isinstance(asked, list) and all(isinstance(value, int | float) for value in asked):
            example = replace(example, boxes=tuple((box, REFERENCE_COLOUR) for box in boxes_of(asked, False)))
        elif view.text:
            example = replace(example, asked=str(asked))
        if view.boxes:
            drawn = [*((reference, REFERENCE_COLOUR) for reference in references), (text, GENERATED_COLOUR)]
            example = replace(example, boxes=tuple((parse_numbers(said), colour) for said, colour in drawn))
        examples.append(replace(example, id=str(record.get("id", row))))
    return Split(name, role, tuple(examples), summary, view.metric)
