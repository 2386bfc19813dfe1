"""``unival score``: score the output of ``fairseq-generate`` against the references in a table."""

import argparse
import contextlib
import json
import os
import pathlib
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence

from unival.data.cells import cell_errors, is_joined, warn_of_empty
from unival.data.table import open_table
from unival.errors import UserError
from unival.metrics import METRICS, Metric, make_metrics
from unival.metrics.base import NO_OPTIONS, MetricOptions
from unival.metrics.score import Scores, evaluate_rows, list_some, read_generated
from unival.metrics.tokenize import TOKENIZERS, make_tokenizer


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    add = parser.add_argument
    add("output", metavar="OUTPUT", help="fairseq-generate's output (its D- lines are read)")
    add("--table", required=True, metavar="FILE", help="the table that was generated from; rows are joined by number")
    add("--columns", default="caption", help="columns; the last one has the references (default: %(default)s)")
    add("--selected-cols", metavar="N,N", help="TSV: numbers of the columns that --columns names, e.g. 2")
    add("--metrics", default="cider,bleu,rouge_l", help=f"some of {','.join(METRICS)} (default: %(default)s)")
    add("--tokenizer", default="python", help=f"one of {', '.join(TOKENIZERS)} (default: %(default)s)")
    add("--box-threshold", type=float, default=0.5, metavar="T", help="overlap (IoU) from which a box is right (default: %(default)s)")
    add("--json", metavar="FILE", help="also write the scores as a JSON object")
    add("--per-row", metavar="FILE", help="write the scores of every row: a JSON object by row number")
    add("--allow-partial", action="store_true", help="score the generated rows even if others are missing")


def run(args: argparse.Namespace) -> int:
    """Score, print one line per score, write the requested files; returns the exit code."""
    names = args.metrics.split(",")
    options = MetricOptions(args.box_threshold)
    metrics = make_metrics(names, make_tokenizer(args.tokenizer), options)  # missing packages are reported before files are read
    for path in filter(None, (args.json, args.per_row)):
        _check_writable(path)
    columns = tuple(args.columns.split(","))
    references = read_references(args.table, columns, args.selected_cols, one_reader(metrics.values()))
    scores = score_file(args.output, references, names, args.tokenizer, args.allow_partial, f"{args.table}, ", options)
    if args.json:
        _write_json(args.json, scores.total)
    if args.per_row:
        _write_json(args.per_row, {str(row): values for row, values in scores.rows.items()})
    width = max(map(len, scores.total))
    sys.stdout.writelines(f"{name:{width}}  {value:.4f}\n" for name, value in scores.total.items())
    return 0


def one_reader(metrics: Iterable[Metric]) -> type[Metric]:
    """A metric that reads the references for all of them.

    Raises:
        UserError: they compare different things, such as texts and boxes.
    """
    first, *others = metrics
    for other in others:
        if other.reads != first.reads:
            raise UserError(f"{first.name} compares {first.reads}, {other.name} {other.reads}: score them one after the other")
    return type(first)


def read_references(
    table: str, columns: Sequence[str], selected_cols: str | None = None, metric: type[Metric] = Metric
) -> dict[int, list[str]]:
    """Read the references of a table, from the last of ``columns``: row number -> references.

    Args:
        metric: a metric that uses the references; it parses them (as texts, as boxes).

    Raises:
        UserError: the table or a column cannot be read (see ``open_table``); a cell has only blank texts.
    """
    rows = open_table(table, columns=columns, selected_cols=selected_cols)
    column = columns[-1]
    references, empty = {}, 0
    for i in range(len(rows)):
        with cell_errors(rows, i, column), _naming_columns(column):
            references[i], blank = metric.references(rows[i][column], is_joined(rows))
        empty += blank
    warn_of_empty(empty, rows)
    return references


@contextlib.contextmanager
def _naming_columns(column: str) -> Iterator[None]:
    """Add the option that chooses the column to errors of its cells."""
    try:
        yield
    except UserError as error:
        raise UserError(f"{error} (--columns names the column of the references, here {column!r})") from error


def score_file(
    output: str,
    references: Mapping[int, Sequence[str]],
    metrics: Sequence[str],
    tokenizer: str = "python",
    allow_partial: bool = False,
    whose: str = "",
    options: MetricOptions = NO_OPTIONS,
) -> Scores:
    """Score generated rows against the references with the same row numbers.

    With ``allow_partial`` only rows on both sides are scored, but document frequencies are still those of all references.
    Messages about rows of the table start with ``whose``.

    Raises:
        UserError: a row is on one side only (unless ``allow_partial``), or reading or scoring fails.
    """
    hypotheses = {row: text for row, (text, _) in sorted(read_generated(output).items())}
    missing = [row for row in references if row not in hypotheses]
    unknown = [row for row in hypotheses if row not in references]
    if unknown and (not allow_partial or len(unknown) == len(hypotheses)):
        raise UserError(
            f"{output}: {len(unknown)} generated rows are not in the table, which has {len(references)} rows: "
            f"{list_some(unknown)}; is it the table that was generated from?"
        )
    if missing and not allow_partial:
        raise UserError(
            f"{output}: {len(missing)} of the table's {len(references)} rows were not generated: {list_some(missing)} "
            "(--allow-partial scores the others)"
        )
    both = [row for row in hypotheses if row in references]
    if missing or unknown:
        found = f"{len(missing)} rows of the table were not generated, {len(unknown)} generated rows are not in it"
        sys.stderr.write(f"scoring {len(both)} rows: {found}\n")
    pairs = {row: hypotheses[row] for row in both}, {row: references[row] for row in both}
    return evaluate_rows(*pairs, metrics, tokenizer, fit_on=references, whose=whose, options=options)


def _check_writable(path: str) -> None:
    file = pathlib.Path(path).absolute()
    folder = next(parent for parent in file.parents if parent.exists())
    if file.is_dir() or not folder.is_dir() or not os.access(folder, os.W_OK):
        reason = "is a folder" if file.is_dir() else f"{folder} is not a folder that can be written to"
        raise UserError(f"{path}: cannot be written: {reason}")


def _write_json(path: str, value: object) -> None:
    file = pathlib.Path(path)
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(value, indent=1) + "\n", encoding="utf-8")
    except OSError as error:
        raise UserError(f"{file}: cannot be written: {error.strerror}") from error
