"""`unival report`: one page and one picture that show what a captioning model says about images it has never seen.

It only reads what the other commands wrote: a table per split, `fairseq-generate`'s output, the scores of `unival
score` (`--json`, `--per-row`) and fairseq's JSON training log. Three splits have a part of their own: the main one, the
same rows with another image's pixels (does the model look?), and unseen objects (whose names the model cannot know).
"""

import argparse
import json
import math
import pathlib
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial

from unival.errors import UserError
from unival.text import read_text

MAIN, SWAPPED, UNSEEN = "main", "swapped", "unseen"
FAILED_HEADING = "This model has not learnt to look at the image"


@dataclass(frozen=True)
class Example:
    """One row of a split: what was shown, what people say, what the model said."""

    row: int  # row number in the table
    where: str  # the image's place, for messages: file, row and column
    load_image: Callable[[], bytes]  # its encoded bytes; called only for examples that are shown
    references: tuple[str, ...]
    hypothesis: str
    scores: Mapping[str, float]

    @property
    def is_exact(self) -> bool:
        return self.scores.get("exact_match", 0.0) >= 1.0


@dataclass(frozen=True)
class Split:
    """A split with its role in the report (`main`, `swapped`, `unseen` or its own name)."""

    name: str
    role: str
    examples: tuple[Example, ...]
    summary: Mapping[str, float]


@dataclass(frozen=True)
class Curves:
    """The training log: (update, loss in bits per token) and (update, value of the validation metric)."""

    loss: tuple[tuple[int, float], ...] = ()
    valid_loss: tuple[tuple[int, float], ...] = ()
    metric: tuple[tuple[int, float], ...] = ()
    metric_name: str = ""


@dataclass(frozen=True)
class Report:
    """Everything that the page shows."""

    title: str
    metric: str  # the row score shown on every example
    splits: tuple[Split, ...]
    curves: Curves = field(default_factory=Curves)
    failure: str = ""  # why the model did not do what was asked for, and what to do; then it has another heading

    @property
    def heading(self) -> str:
        """The title, which promises a model that looks; or what is true of one that does not."""
        return FAILED_HEADING if self.failure else self.title

    def split(self, role: str) -> Split | None:
        return next((split for split in self.splits if split.role == role), None)

    @property
    def ratio(self) -> float | None:
        """Score with the right pixels over score with another image's pixels; None when a split is not there."""
        right, swapped = self.split(MAIN), self.split(SWAPPED)
        if right is None or swapped is None:
            return None
        if swapped.summary[self.metric] <= 0:
            return math.inf if right.summary[self.metric] > 0 else 0.0
        return right.summary[self.metric] / swapped.summary[self.metric]


# Reading --------------------------------------------------------------------------------------------------------


def read_json(path: pathlib.Path) -> dict:
    """A JSON object from a file; raises UserError naming the file."""
    text = read_text(path)
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path}: not JSON: {error}") from error
    if not isinstance(value, dict):
        raise UserError(f"{path}: holds a JSON {type(value).__name__}, not an object")
    return value


def read_scores(values: object, where: str) -> dict[str, float]:
    """Scores by name; raises UserError when a value is no number."""
    if not isinstance(values, dict) or not all(isinstance(value, int | float) for value in values.values()):
        raise UserError(f'{where}: expected scores by name, such as {{"cider": 1.2}}')
    return {name: float(value) for name, value in values.items()}


def read_row_scores(path: pathlib.Path) -> dict[int, dict[str, float]]:
    """Scores by row number, as `unival score --per-row` writes them."""
    rows = read_json(path)
    if not all(row.isdecimal() for row in rows):
        raise UserError(f"{path}: expected scores by row number, as `unival score --per-row` writes them")
    return {int(row): read_scores(values, f"{path}, row {row}") for row, values in rows.items()}


def read_log(path: pathlib.Path, metric: str) -> Curves:
    """The curves of fairseq's `--log-format json --log-file`.

    fairseq adds a handler to the file in every epoch, so later epochs stand there several times: equal lines count
    once. Lines that are not JSON objects (the configuration, warnings) are left out.
    """
    lines = dict.fromkeys(read_text(path).split("\n"))
    records = [record for record in map(parse_record, lines) if record is not None]
    valid_metric = points(records, "valid_num_updates", f"valid_{metric}")
    within_epochs = points(records, "num_updates", "loss")
    by_epoch = points(records, "train_num_updates", "train_loss")  # a short run has more epochs than lines within them
    return Curves(
        loss=max(within_epochs, by_epoch, key=len),
        valid_loss=points(records, "valid_num_updates", "valid_loss"),
        metric=valid_metric,
        metric_name=metric if valid_metric else "",
    )


def parse_record(line: str) -> dict[str, object] | None:
    """The JSON object that a line of the log holds, if it holds one."""
    try:
        record = json.loads(line)
    except ValueError:
        return None
    return record if isinstance(record, dict) else None


def points(records: Iterable[Mapping[str, object]], x: str, y: str) -> tuple[tuple[int, float], ...]:
    """(x, y) of the records that have both, in order of x; numbers are strings in fairseq's log."""
    found = {int(float(str(record[x]))): float(str(record[y])) for record in records if x in record and y in record}
    return tuple(sorted(found.items()))


def read_split(name: str, role: str, files: Mapping[str, pathlib.Path], args: argparse.Namespace) -> Split:
    """A split from its four files.

    Args:
        name: the split's name, for messages.
        role: its part in the report.
        files: path of the `table`, `generated`, `summary` and `per_row` file.
        args: the command's arguments: columns, media root, metric.

    Raises:
        UserError: a file or column is missing, or the files do not belong together.
    """
    from unival.data.cells import cell_references, decode_media
    from unival.data.table import open_table
    from unival.metrics.score import read_generated

    columns = (args.image_column, args.reference_column)
    table = open_table(files["table"], columns, args.selected_cols, args.media_root)
    generated = read_generated(files["generated"])
    if max(generated) >= len(table):
        raise UserError(
            f"{files['generated']}: row {max(generated)}, but {files['table']} has {len(table)} rows: not its output"
        )
    scores = read_row_scores(files["per_row"])
    missing = next((row for row in generated if row not in scores), None)
    if missing is not None:
        raise UserError(
            f"{files['per_row']}: no scores of row {missing}, which {files['generated']} has: not of the same run"
        )
    summary = read_scores(read_json(files["summary"]), str(files["summary"]))
    if args.metric not in summary:
        raise UserError(f"{files['summary']}: no {args.metric}; there are {', '.join(summary)} (choose with --metric)")
    examples = []
    for row, (text, _) in sorted(generated.items()):
        record = table[row]
        references, _ = cell_references(record[args.reference_column], table, row, args.reference_column)
        load = partial(decode_media, record[args.image_column], table, row, args.image_column)
        examples.append(Example(row, table.where(row, args.image_column), load, tuple(references), text, scores[row]))
    return Split(name, role, tuple(examples), summary)


# The command ----------------------------------------------------------------------------------------------------

FILES = {
    "table": "the table that was captioned",
    "generated": "fairseq-generate's output",
    "summary": "the scores that `unival score --json` wrote",
    "per_row": "the scores that `unival score --per-row` wrote",
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `unival report`."""
    parser.add_argument(
        "--out", required=True, type=pathlib.Path, metavar="DIR", help="folder for report.html and report.png"
    )
    for name, meaning in FILES.items():
        flag = f"--{name.replace('_', '-')}"
        parser.add_argument(
            flag, action="append", required=True, metavar="SPLIT=FILE", help=f"{meaning}; once per split"
        )
    parser.add_argument(
        "--log", type=pathlib.Path, metavar="FILE", help="training log of --log-format json --log-file FILE"
    )
    parser.add_argument("--main", default="test", metavar="SPLIT", help="split of the main part (default: %(default)s)")
    parser.add_argument(
        "--swapped",
        default="test_swapped",
        metavar="SPLIT",
        help="split with another image's pixels (default: %(default)s)",
    )
    parser.add_argument(
        "--unseen", default="test_unseen", metavar="SPLIT", help="split of unseen objects (default: %(default)s)"
    )
    parser.add_argument(
        "--metric", default="cider", help="score of each example and of the comparison (default: %(default)s)"
    )
    parser.add_argument(
        "--require-ratio", type=float, metavar="R", help="fail unless right pixels score R times another image's pixels"
    )
    parser.add_argument(
        "--advice", default="", metavar="TEXT", help="what to do when --require-ratio is not met; goes into the message and the page"
    )
    parser.add_argument(
        "--image-column", default="image", metavar="NAME", help="column of the image (default: %(default)s)"
    )
    parser.add_argument(
        "--reference-column", default="caption", metavar="NAME", help="column of the references (default: %(default)s)"
    )
    parser.add_argument(
        "--selected-cols", metavar="N,N", help="TSV tables: numbers of the image and the reference column, e.g. 4,2"
    )
    parser.add_argument(
        "--media-root", type=pathlib.Path, metavar="DIR", help="folder that image paths are relative to"
    )
    parser.add_argument(
        "--examples", type=int, default=48, metavar="N", help="examples of the main part (default: %(default)s)"
    )
    parser.add_argument(
        "--title", default="What the model says about images it has never seen", help="heading of the page"
    )


def run(args: argparse.Namespace) -> int:
    """Writes the page and the picture; returns 1 when `--require-ratio` is not met."""
    from unival.commands.report.page import html_page, picture, summary_lines

    if args.examples < 1:
        raise UserError(f"--examples {args.examples}: must be at least 1")
    report = Report(
        title=args.title,
        metric=args.metric,
        splits=tuple(read_splits(args)),
        curves=read_log(args.log, args.metric) if args.log else Curves(),
    )
    report = replace(report, failure=ratio_failure(report, args.require_ratio, args.advice))
    page, image = html_page(report, args.examples), picture(report)
    args.out.mkdir(parents=True, exist_ok=True)
    (args.out / "report.html").write_text(page, encoding="utf-8")
    (args.out / "report.png").write_bytes(image)
    places = [f"page: {args.out / 'report.html'}", f"picture: {args.out / 'report.png'}"]
    sys.stdout.write("\n".join([*summary_lines(report), *places]) + "\n")
    if report.failure:
        sys.stderr.write(report.failure + "\n")
    return 1 if report.failure else 0


def read_splits(args: argparse.Namespace) -> list[Split]:
    """The splits in the order of `--table`; every split must have all four files."""
    files = {name: named_paths(getattr(args, name), f"--{name.replace('_', '-')}") for name in FILES}
    roles = {args.main: MAIN, args.swapped: SWAPPED, args.unseen: UNSEEN}
    for name, paths in files.items():
        for split in files["table"].keys() ^ paths.keys():
            raise UserError(f"split {split}: give it to --table and to --{name.replace('_', '-')}, or to neither")
    if args.main not in files["table"]:
        raise UserError(f"--main {args.main}: no such split; given are {', '.join(files['table'])}")
    return [
        read_split(split, roles.get(split, split), {name: paths[split] for name, paths in files.items()}, args)
        for split in files["table"]
    ]


def named_paths(values: Sequence[str], flag: str) -> dict[str, pathlib.Path]:
    """`["test=a.txt"]` -> `{"test": Path("a.txt")}`."""
    paths: dict[str, pathlib.Path] = {}
    for value in values:
        name, equals, path = value.partition("=")
        if not name or not equals or not path:
            raise UserError(f"{flag} {value}: expected SPLIT=FILE, for example test=generate-test.txt")
        if name in paths:
            raise UserError(f"{flag} {value}: split {name} is given twice")
        paths[name] = pathlib.Path(path)
    return paths


def ratio_failure(report: Report, required: float | None, advice: str = "") -> str:
    """A sentence that says what it means that the demand is not met, with ``advice``; nothing when it is, or when there is none."""
    if required is None:
        return ""
    ratio = report.ratio
    if ratio is None:
        raise UserError(f"--require-ratio {required:g}: needs the main split and the one with another image's pixels")
    if ratio >= required:
        return ""
    return (
        f"The model scores only {ratio:.2f} times as high with the right pixels as with another image's "
        f"({required:g} times was asked for): it has not learnt to look. {advice or 'Train longer.'}"
    )
