"""``unival report``: make a page and an image that show the captions of a model for images that it has never seen.

It only reads the output of the other commands: a table per split, ``fairseq-generate``'s output, the scores of `unival
score`` (``--json``, ``--per-row`) and fairseq's JSON training log. Three splits have a section of their own: the main one, the
same rows with another image's pixels (does the model look?), and unseen objects (whose names the model cannot know).
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
from unival.commands.report.reading import read_log, read_split
from unival.errors import UserError, flag

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
            flag(name), action="append", required=True, metavar="SPLIT=FILE", help=f"{meaning}; once per split"
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
        "--other-text",
        default="test_other_text",
        metavar="SPLIT",
        help="split with the same images and other texts, such as questions (default: %(default)s)",
    )
    parser.add_argument(
        "--guesses", default="guesses", metavar="SPLIT", help="split with what is guessed without looking (default: %(default)s)"
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
    parser.add_argument(
        "--examples", type=int, default=48, metavar="N", help="examples of the main part (default: %(default)s)"
    )
    parser.add_argument(
        "--title", default="What the model says about images it has never seen", help="heading of the page"
    )


def run(args: argparse.Namespace) -> int:
    """Write the page and the image; returns the exit code, 1 if ``--require-ratio`` is not met."""
    from unival.commands.report.page import html_page
    from unival.commands.report.picture import picture

    if args.examples < 1:
        raise UserError(f"--examples {args.examples}: must be at least 1")
    args.image_column = "" if args.image_column == "none" else args.image_column
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
    """The splits in the order of ``--table``; every split must have all four files."""
    files = {name: named_paths(getattr(args, name), flag(name)) for name in FILES}
    roles = {args.main: MAIN, args.swapped: SWAPPED, args.unseen: UNSEEN, args.other_text: OTHER_TEXT, args.guesses: GUESSES}
    for name, paths in files.items():
        for split in files["table"].keys() ^ paths.keys():
            raise UserError(f"split {split}: give it to --table and to {flag(name)}, or to neither")
    if args.main not in files["table"]:
        raise UserError(f"--main {args.main}: no such split; given are {', '.join(files['table'])}")
    return [
        read_split(split, roles.get(split, split), {name: paths[split] for name, paths in files.items()}, args)
        for split in files["table"]
    ]


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
