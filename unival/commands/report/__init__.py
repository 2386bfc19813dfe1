"""``unival report``: make a page and an image that show the captions of a model for images that it has never seen.

It only reads the output of the other commands: a table per split, ``fairseq-generate``'s output, the scores of `unival
score`` (``--json``, ``--per-row`) and fairseq's JSON training log. Three splits have a section of their own: the main one, the
same rows with another image's pixels (does the model look?), and unseen objects (whose names the model cannot know).

With ``--stage`` it is the report of a pretraining: every stream's curve over all stages, what each stage forgot and gained, examples of
every task (a split each, with ``--view``), and the curves of what was trained afterwards.

With ``--sweep`` it is the report of `unival sweep`'s results, several of them in one figure.
"""

import argparse
import pathlib
import sys
from collections.abc import Sequence
from dataclasses import replace

from unival.commands.report.content import (
    GUESSES,
    MAIN,
    OTHER_TEXT,
    SWAPPED,
    UNSEEN,
    Curves,
    Report,
    Split,
    summary_lines,
)
from unival.commands.report.reading import View, read_log, read_split
from unival.commands.report.stages import Pretraining, read_afterwards, read_stage
from unival.errors import UserError, counted, flag

FILES = {
    "table": "the table that was captioned",
    "generated": "fairseq-generate's output",
    "summary": "the scores that `unival score --json` wrote",
    "per_row": "the scores that `unival score --per-row` wrote",
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of ``unival report``."""
    parser.add_argument(
        "--out", required=True, type=pathlib.Path, metavar="DIR", help="folder for report.html and report.png"
    )
    for name, meaning in FILES.items():
        parser.add_argument(
            flag(name), action="append", metavar="SPLIT=FILE", help=f"{meaning}; once per split"
        )
    parser.add_argument(
        "--log", type=pathlib.Path, metavar="FILE", help="training log of --log-format json --log-file FILE"
    )
    add_split_arguments(parser)
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
        "--image-column", default="image", metavar="NAME", help="column of the image, or none to show none (default: %(default)s)"
    )
    parser.add_argument("--text-column", default="", metavar="NAME", help="column of the text that goes with the image, such as a question")
    parser.add_argument(
        "--reference-column", default="caption", metavar="NAME", help="column of the references (default: %(default)s)"
    )
    parser.add_argument("--boxes", action="store_true", help="references and generated texts are boxes, to be drawn on the images")
    parser.add_argument(
        "--selected-cols", metavar="N,N", help="TSV tables: numbers of the image, the text (if any) and the reference column, e.g. 4,2"
    )
    parser.add_argument(
        "--media-root", type=pathlib.Path, metavar="DIR", help="folder that image paths are relative to"
    )
    add_stage_arguments(parser)
    parser.add_argument(
        "--sweep", action="append", default=[], metavar="NAME=FILE", help="the report is of results of `unival sweep`; may be repeated"
    )
    parser.add_argument(
        "--examples", type=int, default=48, metavar="N", help="examples of the main part (default: %(default)s)"
    )
    parser.add_argument(
        "--title", default="What the model says about images it has never seen", help="heading of the page"
    )


def add_split_arguments(parser: argparse.ArgumentParser) -> None:
    """The names of the splits that a report has parts for."""
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
        "--other-text",
        default="test_other_text",
        metavar="SPLIT",
        help="split with the same images and other texts, such as questions (default: %(default)s)",
    )
    parser.add_argument(
        "--guesses", default="guesses", metavar="SPLIT", help="split with what is guessed without looking (default: %(default)s)"
    )


def add_stage_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of the report of a pretraining."""
    parser.add_argument(
        "--stage", action="append", default=[], metavar="NAME=FILE", help="the report is of a pretraining: log of a stage, once per stage"
    )
    parser.add_argument(
        "--view",
        action="append",
        default=[],
        metavar="SPLIT=IMAGE,TEXT,REFERENCE,METRIC",
        help="columns and score of a split where they are not those of the options for all, e.g. regions=image,text,box,box_accuracy "
        "(boxes are drawn) or sounds=,,caption,cider",
    )
    parser.add_argument(
        "--after", action="append", default=[], metavar="NAME=FILE", help="with --stage: log of a run that follows; may be repeated"
    )
    parser.add_argument(
        "--after-metric", default="cider", metavar="NAME", help="score of the runs of --after (default: %(default)s)"
    )
    parser.add_argument("--note", default="", metavar="TEXT", help="with --stage: what else is to be said at the top of the page")


def run(args: argparse.Namespace) -> int:
    """Write the page and the image; returns the exit code, 1 if ``--require-ratio`` is not met."""
    if args.examples < 1:
        raise UserError(f"--examples {args.examples}: must be at least 1")
    if args.sweep:
        return run_sweeps(args)
    for name in FILES:
        if getattr(args, name) is None:
            raise UserError(f"give {flag(name)}: {FILES[name]}")
    args.image_column = "" if args.image_column == "none" else args.image_column
    return run_pretraining(args) if args.stage else run_splits(args)


def run_sweeps(args: argparse.Namespace) -> int:
    """Write the page and the image of sweeps."""
    from unival.drawing import sweeps
    from unival.tasks.sweeping.results import of_one_sweep, read_results

    others = [name for name in (*FILES, "stage", "log") if getattr(args, name)]
    if others:
        raise UserError(f"{flag(others[0])}: is not for the report of sweeps")
    found = {}
    for name, path in named_paths(args.sweep, "--sweep").items():
        read = read_results(path)
        if not read:
            raise UserError(f"--sweep {name}={path}: the file has no results")
        found[name] = of_one_sweep(read)
        if len(found[name]) < len(read):
            left = counted(len(read) - len(found[name]), "result")
            sys.stderr.write(f"{path}: left out {left} of other models, tables or settings than the newest\n")
    places = sweeps.write(args.out, args.title, found)
    lines = [line for name, results in found.items() for line in (f"{name}:", *sweeps.summary(results))]
    sys.stdout.write("\n".join([*lines, *places]) + "\n")
    return 0


def run_pretraining(args: argparse.Namespace) -> int:
    """Write the page and the image of a pretraining."""
    from unival.commands.report.stages_page import pretraining_page
    from unival.commands.report.stages_picture import pretraining_picture, pretraining_summary

    stages = tuple(read_stage(name, path) for name, path in named_paths(args.stage, "--stage").items())
    after = tuple(read_afterwards(name, path, args.after_metric) for name, path in named_paths(args.after, "--after").items())
    report = Pretraining(args.title, stages, tuple(read_splits(args)), after, args.after_metric, args.note)
    write(args.out, pretraining_page(report, args.examples), pretraining_picture(report), pretraining_summary(report))
    return 0


def run_splits(args: argparse.Namespace) -> int:
    """Write the page and the image of a task; returns the exit code."""
    from unival.commands.report.page import html_page
    from unival.commands.report.picture import picture

    tables = named_paths(args.table, "--table")
    if args.main not in tables:
        raise UserError(f"--main {args.main}: no such split; given are {', '.join(tables)}")
    for name, value in (("after", args.after), ("note", args.note)):
        if value:
            raise UserError(f"--{name}: is for the report of a pretraining, which --stage asks for")
    report = Report(
        title=args.title,
        metric=args.metric,
        splits=tuple(read_splits(args)),
        curves=read_log(args.log, args.metric) if args.log else Curves(),
    )
    report = replace(report, failure=ratio_failure(report, args.require_ratio, args.advice))
    write(args.out, html_page(report, args.examples), picture(report), summary_lines(report))
    if report.failure:
        sys.stderr.write(report.failure + "\n")
    return 1 if report.failure else 0


def write(out: pathlib.Path, page: str, image: bytes, summary: Sequence[str]) -> None:
    """Write both files, and say what is in them and where they are."""
    out.mkdir(parents=True, exist_ok=True)
    (out / "report.html").write_text(page, encoding="utf-8")
    (out / "report.png").write_bytes(image)
    places = [f"page: {out / 'report.html'}", f"picture: {out / 'report.png'}"]
    sys.stdout.write("\n".join([*summary, *places]) + "\n")


def read_splits(args: argparse.Namespace) -> list[Split]:
    """The splits in the order of ``--table``; every split must have all four files."""
    files = {name: named_paths(getattr(args, name), flag(name)) for name in FILES}
    roles = {args.main: MAIN, args.swapped: SWAPPED, args.unseen: UNSEEN, args.other_text: OTHER_TEXT, args.guesses: GUESSES}
    for name, paths in files.items():
        for split in files["table"].keys() ^ paths.keys():
            raise UserError(f"split {split}: give it to --table and to {flag(name)}, or to neither")
    views = read_views(args, list(files["table"]))
    return [
        read_split(split, roles.get(split, split), {name: paths[split] for name, paths in files.items()}, views[split])
        for split in files["table"]
    ]


def read_views(args: argparse.Namespace, splits: Sequence[str]) -> dict[str, View]:
    """How each split is shown: by the options for all, or by its ``--view``."""
    root = args.media_root
    common = View(args.image_column, args.text_column, args.reference_column, args.metric, args.boxes, args.selected_cols, root)
    views = dict.fromkeys(splits, common)
    for value in args.view:
        split, _, said = value.partition("=")
        parts = said.split(",")
        if len(parts) != 4 or not parts[2] or not parts[3]:
            raise UserError(f"--view {value}: expected SPLIT=IMAGE,TEXT,REFERENCE,METRIC, for example captions=image,,caption,cider")
        if split not in views:
            raise UserError(f"--view {value}: no split {split}; given are {', '.join(splits)}")
        image, text, reference, metric = parts
        views[split] = View(image, text, reference, metric, metric == "box_accuracy", args.selected_cols, root)
    return views


def named_paths(values: Sequence[str], option: str) -> dict[str, pathlib.Path]:
    """Parse ``["test=a.txt"]`` to ``{"test": Path("a.txt")}``."""
    paths: dict[str, pathlib.Path] = {}
    for value in values:
        name, equals, path = value.partition("=")
        if not name or not equals or not path:
            raise UserError(f"{option} {value}: expected SPLIT=FILE, for example test=generate-test.txt")
        if name in paths:
            raise UserError(f"{option} {value}: split {name} is given twice")
        paths[name] = pathlib.Path(path)
    return paths


def ratio_failure(report: Report, required: float | None, advice: str = "") -> str:
    """The message, with ``advice``, if the required ratio is not reached; empty if it is, or if none is required."""
    if required is None:
        return ""
    ratio = report.ratio
    if ratio is None:
        raise UserError(f"--require-ratio {required:g}: needs the main split and the one with another image's pixels")
    if ratio >= required:
        return ""
    return (
        f"The model scores only {ratio:.2f} times as high with the right pixels as with another image's "
        f"({required:g} times is required): it has not learnt to look. {advice or 'Train longer.'}"
    )
