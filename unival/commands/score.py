"""``unival score``: score the output of ``fairseq-generate`` against the references in a table, compare two, write submissions."""

import argparse
import contextlib
import functools
import pathlib
import sys
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any

from unival.data.cells import cell_errors, is_joined, warn_of_empty
from unival.data.table import TSV_SUFFIXES, Table, open_table
from unival.errors import UserError, counted
from unival.metrics import METRICS, Metric, MetricOptions, make_metrics
from unival.metrics.base import NO_OPTIONS, check_box_threshold
from unival.metrics.intervals import FIELD, RESAMPLES, SEED
from unival.metrics.score import Scores, evaluate_rows, list_some, read_outputs
from unival.metrics.submission import FORMATS, parse_target, submission
from unival.metrics.tokenize import TOKENIZERS, make_tokenizer
from unival.text import check_writable, write_json

NOTHING = "none"  # instead of metrics
REFERENCES = {"answers": ("answer", "label"), "boxes": ("box",)}  # columns of what metrics read, where a table has no captions


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    add = parser.add_argument
    add(
        "output",
        nargs="*",
        metavar="OUTPUT",
        help="fairseq-generate's output (its D- lines are read): a file, several that share the rows of one evaluation, or their folder",
    )
    add("--table", required=True, metavar="FILE", help="the table that was generated from; rows are joined by number")
    add("--columns", help="columns; the last one has the references (default: caption, else answer, label or box, by metric)")
    add("--selected-cols", metavar="N,N", help="TSV: numbers of the columns that --columns names, e.g. 2")
    add(
        "--metrics",
        default="cider,bleu,rouge_l",
        help=f"some of {','.join(METRICS)} (default: %(default)s), or {NOTHING} for a submission of a table without references",
    )
    add("--tokenizer", default="python", help=f"one of {', '.join(TOKENIZERS)} (default: %(default)s)")
    add("--cider-df", metavar="FILE", help="cider_d, spider: document frequencies, .json, .npz, or the pickle of published code")
    add("--box-threshold", type=float, default=0.5, metavar="T", help="overlap (IoU) from which a box is right (default: %(default)s)")
    add("--compare", nargs=2, metavar=("A", "B"), help="how B's scores differ from A's, of the same rows, and how surely")
    add("--resamples", type=int, default=RESAMPLES, metavar="N", help="draws of rows for 95%% intervals, 0 for none (default: %(default)s)")
    add("--seed", type=int, default=SEED, help="seed of these draws (default: %(default)s)")
    add("--json", metavar="FILE", help="also write the scores as a JSON object")
    add("--per-row", metavar="FILE", help="write the scores of every row: a JSON object by row number")
    add(
        "--submission",
        action="append",
        default=[],
        metavar="FORMAT:FILE",
        help=f"write a file for an evaluation server: {', '.join(f'{name} ({form.about})' for name, form in FORMATS.items())}",
    )
    add("--id-column", default="id", metavar="NAME", help="column with the ids of a submission (default: %(default)s)")
    add("--allow-partial", action="store_true", help="score the generated rows even if others are missing")
    add("--check", action="store_true", help="check the arguments and the references before there is an OUTPUT; score nothing")


def run(args: argparse.Namespace) -> int:
    """Score, print one line per score, write the requested files; returns the exit code."""
    names = [] if args.metrics == NOTHING else args.metrics.split(",")
    check_box_threshold("--box-threshold", args.box_threshold)
    options = MetricOptions(args.box_threshold, args.cider_df)
    metrics = make_metrics(names, make_tokenizer(args.tokenizer), options)  # missing packages are reported before files are read
    targets = [parse_target(text) for text in args.submission]
    _check_arguments(args, names)
    written = [("--json", args.json), ("--per-row", args.per_row), *(("--submission", path) for _, path in targets)]
    for option, path in written:
        if path is not None:
            check_writable(option, path)
    reader = one_reader(metrics.values()) if names else None
    columns = reference_columns(args, reader)
    if args.check:
        if targets:
            check_ids(args, columns)
        if reader is not None:
            read_references(args.table, columns, args.selected_cols, reader)
        return 0
    outputs = [[path] for path in args.compare] if args.compare else [args.output]
    texts = [read_outputs(paths) for paths in outputs]
    if targets:
        write_submissions(targets, texts[0], args, columns)
    if reader is None:
        for path in filter(None, (args.json, args.per_row)):
            write_json(path, {})
        return 0
    where = functools.partial(_where, args.table, columns, args.selected_cols)
    references = read_references(args.table, columns, args.selected_cols, reader)
    if args.compare and args.allow_partial:
        texts = [{row: text for row, text in each.items() if row in texts[0] and row in texts[1]} for each in texts]
    scores = [
        score_texts(each, references, names, args.tokenizer, args.allow_partial, f"{args.table}, ", options, " ".join(paths), where)
        for each, paths in zip(texts, outputs, strict=True)
    ]
    lines, content = _compared(scores[0], scores[1], args) if args.compare else _scored(scores[0], args)
    if args.json:
        write_json(args.json, content)
    if args.per_row:
        write_json(args.per_row, {str(row): values for row, values in scores[0].rows.items()})
    sys.stdout.writelines(f"{line}\n" for line in lines)
    return 0


def _check_arguments(args: argparse.Namespace, names: Sequence[str]) -> None:
    """Check what argparse cannot: that the arguments belong together."""
    if args.check and (args.output or args.compare):
        raise UserError("--check is for arguments without an output")
    if not args.output and not args.compare and not args.check:
        raise UserError("expected the output of fairseq-generate: files, a folder of them, or --compare A B")
    given = {" ".join(args.output): args.output, "--per-row": args.per_row, "--submission": args.submission}
    for option, is_given in {**given, f"--metrics {NOTHING}": not names}.items():
        if args.compare and is_given:
            raise UserError(f"{option} is for one output, not with --compare")
    if not names and not args.submission:
        raise UserError(f"--metrics {NOTHING} scores nothing: give metrics, or --submission FORMAT:FILE")
    for option, value, least in (("--resamples", args.resamples, 1 if args.compare else 0), ("--seed", args.seed, 0)):
        if value < least:
            raise UserError(f"{option} {value}: must be {least} or more")


def _scored(scores: Scores, args: argparse.Namespace) -> tuple[list[str], dict[str, Any]]:
    """What is printed of an output's scores, and what is written as JSON."""
    intervals = scores.intervals(args.resamples, args.seed) if args.resamples else {}
    width = max(map(len, scores.total))
    lines = [f"{name:{width}}  {value:.4f}" for name, value in scores.total.items()]
    if not intervals:
        return lines, dict(scores.total)
    bounds = (f" [{low:.4f}, {high:.4f}]" for low, high in intervals.values())
    return [line + bound for line, bound in zip(lines, bounds, strict=True)], {**scores.total, FIELD: intervals}


def _compared(a: Scores, b: Scores, args: argparse.Namespace) -> tuple[list[str], dict[str, Any]]:
    """What is printed of two outputs' scores and of their differences, and what is written as JSON."""
    found = a.differences(b, args.resamples, args.seed)
    width, places = max(map(len, found)), max(1, len(str(args.resamples)) - 1)  # p is a multiple of 1 / (resamples + 1)
    lines = [
        f"{name:{width}}  {a.total[name]:.4f} -> {b.total[name]:.4f}  {value:+.4f} [{low:+.4f}, {high:+.4f}]  p {p:.{places}f}"
        for name, (value, (low, high), p) in found.items()
    ]
    return lines, {"a": a.total, "b": b.total, "differences": {name: each._asdict() for name, each in found.items()}}


def reference_columns(args: argparse.Namespace, reader: type[Metric] | None) -> tuple[str, ...]:
    """The columns of ``--columns``; by default the one in which tables have what the metrics read.

    Raises:
        UserError: the table cannot be opened.
    """
    if args.columns is not None:
        return tuple(args.columns.split(","))
    if reader is None or not pathlib.Path(args.table).is_file():  # told when it is opened
        return ("caption",)
    if _is_tsv(args):
        try:
            return open_table(args.table, ("caption",), args.selected_cols).columns
        except UserError as error:
            how = "give --columns, the names of the columns, and --selected-cols, e.g. --columns id,answer --selected-cols 0,3"
            raise UserError(f"{error}; {how}") from error
    first = open_table(args.table)[0]
    found = next((name for name in ("caption", *REFERENCES.get(reader.reads, ())) if name in first), None)
    if found is None:
        columns = ", ".join(map(repr, first))
        how = "give --columns, and --metrics for what it holds, e.g. --columns answer --metrics vqa_score"
        raise UserError(f"{args.table}: no column 'caption' with the references; the first row has {columns}: {how}")
    if found != "caption":
        sys.stderr.write(f"the references are in column {found!r} (--columns names another one)\n")
    return (found,)


def _is_tsv(args: argparse.Namespace) -> bool:
    return pathlib.Path(args.table).suffix.lower() in TSV_SUFFIXES


def check_ids(args: argparse.Namespace, columns: Sequence[str]) -> Table:
    """The table, whose first row has the ids of a submission.

    Raises:
        UserError: it has not.
    """
    table = open_table(args.table, columns if _is_tsv(args) else (args.id_column,), args.selected_cols)
    _check_id(table, 0, args.id_column)
    return table


def _check_id(table: Table, row: int, column: str) -> Any:
    record = table[row]
    if column not in record:
        columns = ", ".join(record)
        raise UserError(f"{table.where(row)}: no column {column!r} with the ids (--id-column) among {columns} (--columns)")
    return record[column]


def write_submissions(
    targets: Sequence[tuple[str, str]], texts: Mapping[int, str], args: argparse.Namespace, columns: Sequence[str]
) -> None:
    """Write generated texts with the ids of their rows in the formats of evaluation servers.

    Raises:
        UserError: the table has no such ids, or rows that were not generated (unless ``--allow-partial``).
    """
    table = check_ids(args, columns)
    rows = match_rows(texts, range(len(table)), args.allow_partial, " ".join(args.output))
    ids = {row: _check_id(table, row, args.id_column) for row in rows}
    said = {row: texts[row] for row in rows}
    contents = [(path, submission(name, said, ids, functools.partial(table.where, column=args.id_column))) for name, path in targets]
    for path, content in contents:
        write_json(path, content)


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


def _where(table: str, columns: Sequence[str], selected_cols: str | None, row: int) -> str:
    """The place of a row's references."""
    return open_table(table, columns=columns, selected_cols=selected_cols).where(row, columns[-1])


def score_file(
    output: str,
    references: Mapping[int, Sequence[str]],
    metrics: Sequence[str],
    tokenizer: str = "python",
    allow_partial: bool = False,
    whose: str = "",
    options: MetricOptions = NO_OPTIONS,
) -> Scores:
    """Score the rows in a file of generated texts. See :func:`score_texts`."""
    return score_texts(read_outputs([output]), references, metrics, tokenizer, allow_partial, whose, options, str(output))


def score_texts(
    texts: Mapping[int, str],
    references: Mapping[int, Sequence[str]],
    metrics: Sequence[str],
    tokenizer: str,
    allow_partial: bool,
    whose: str,
    options: MetricOptions,
    output: str,
    where: Callable[[int], str] | None = None,
) -> Scores:
    """Score generated rows against the references with the same row numbers.

    With ``allow_partial`` only rows on both sides are scored, but document frequencies are still those of all references.
    Messages about rows of the table start with ``whose`` (or name their place by ``where``), those about generated rows with ``output``.

    Raises:
        UserError: a row is on one side only (unless ``allow_partial``), or scoring fails.
    """
    both = match_rows(texts, references, allow_partial, output)
    pairs = {row: texts[row] for row in both}, {row: references[row] for row in both}
    return evaluate_rows(*pairs, metrics, tokenizer, fit_on=references, whose=whose, options=options, where=where)


def match_rows(texts: Mapping[int, str], rows: Collection[int], allow_partial: bool, output: str) -> list[int]:
    """The generated rows that the table has.

    Raises:
        UserError: the table or the output lacks a row that the other has (unless ``allow_partial``), or they share none.
    """
    missing = [row for row in rows if row not in texts]
    unknown = [row for row in texts if row not in rows]
    if unknown and (not allow_partial or len(unknown) == len(texts)):
        raise UserError(
            f"{output}: not in the table, which has {counted(len(rows), 'row')}: {counted(len(unknown), 'generated row')}, "
            f"{list_some(unknown)}; is it the table that was generated from?"
        )
    if missing and not allow_partial:
        raise UserError(
            f"{output}: not generated: {len(missing):,} of the table's {counted(len(rows), 'row')}: {list_some(missing)} "
            "(--allow-partial scores the others)"
        )
    both = [row for row in texts if row in rows]
    if missing or unknown:
        others = f"not {len(missing):,} of the table that were not generated, nor {len(unknown):,} that are not in it"
        sys.stderr.write(f"scoring {counted(len(both), 'row')}, {others}\n")
    return both
