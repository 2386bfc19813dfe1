"""``unival sweep``: evaluate merged models along a path between checkpoints, on several tables, without writing them."""

import argparse
import pathlib
import sys

from unival.checkpoints.merging.points import check_method, points_of
from unival.console.merging import add_method, add_models, add_statistics, given_options
from unival.console.tables import TimeLeft, add_tables, running_of, specs_of
from unival.drawing.figures import new_figure
from unival.drawing.sweeps import summary, write
from unival.tasks.sweeping.results import Results
from unival.tasks.sweeping.sweep import Merge, Sweep

RESULTS = "results.jsonl"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    add_models(parser)
    add_method(parser)
    add_statistics(parser)
    add = parser.add_argument
    what = "the points: values of the second model's coefficient, or of --scale with task vectors; of three or more models all coefficients"
    add("--points", default="0:1:0.1", metavar="X,X,…", help=f"{what} among these with the sum 1; also FROM:TO:STEP (default: %(default)s)")
    what = f"folder for {RESULTS}, from which the same command goes on, and curves.png and report.html"
    add("--out", required=True, type=pathlib.Path, metavar="DIR", help=what)
    add("--title", default="Scores along the path between the models", help="heading of the page")
    add_tables(parser)


def run(args: argparse.Namespace) -> int:
    """Evaluate all points, and print what was found; returns the exit code."""
    points = points_of(args.method, len(args.models), given_options(args), args.coefficients, None, args.points, "--points")
    check_method(args.method, len(args.models), args.base, args.missing, args.statistics)
    specs, running = specs_of(args), running_of(args)
    new_figure(1, 1)  # matplotlib is missing now, or not at the end
    statistics = args.statistics.split(",") if args.statistics else ()
    merge = Merge(args.models, args.base, args.method, args.weights, args.missing, args.allow_unrelated, statistics)
    results = Results(args.out / RESULTS)
    found = Sweep(merge, points, specs, running).run(points, results, TimeLeft())
    lines = [*summary(found), *write(args.out, args.title, {args.method: found})]
    sys.stdout.writelines(f"{line}\n" for line in lines)
    return 0
