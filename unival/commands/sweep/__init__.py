"""``unival sweep``: evaluate merged models along a path between checkpoints, on several tables, without writing them."""

import argparse
import pathlib
import sys

from unival.checkpoints.merging.points import check_method, points_of
from unival.console.merging import add_method, add_models, given_options
from unival.console.tables import TimeLeft, add_tables, check_numbers, named, options_by_table, tables_of
from unival.drawing.figures import new_figure
from unival.drawing.sweeps import summary, write
from unival.errors import UserError
from unival.hub import usable_device
from unival.tasks.sweeping.results import Results
from unival.tasks.sweeping.sweep import Merge, Running, Sweep
from unival.tasks.sweeping.table import TableSpec

RESULTS = "results.jsonl"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    add_models(parser)
    add_method(parser)
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
    check_method(args.method, len(args.models), args.base, args.missing)
    check_numbers({"--batch-size": (args.batch_size, 1), "--num-workers": (args.num_workers, 0), "--resamples": (args.resamples, 0)})
    specs = specs_of(args)
    new_figure(1, 1)  # matplotlib is missing now, or not at the end
    merge = Merge(args.models, args.base, args.method, args.weights, args.missing, args.allow_unrelated)
    running = Running(args.batch_size, args.num_workers, usable_device(args.device), True, args.resamples)
    results = Results(args.out / RESULTS)
    found = Sweep(merge, points, specs, running).run(results, TimeLeft())
    lines = [*summary(found), *write(args.out, args.title, {args.method: found})]
    sys.stdout.writelines(f"{line}\n" for line in lines)
    return 0


def specs_of(args: argparse.Namespace) -> list[TableSpec]:
    """The tables, those for validation first.

    Raises:
        UserError: an argument names no table or model.
    """
    tables = tables_of(args.table)
    names = list(tables)
    valid = named("--valid", args.valid, "FILE", names)
    metrics = named("--metric", args.metric, "SCORE", names)
    like = named("--of", args.of, "MODEL", names)
    options = options_by_table(args.set, names)
    for name, model in like.items():
        if model not in args.models:
            raise UserError(f"--of {name}={model}: must be one of the models, {', '.join(args.models)}")
    return [
        TableSpec(name, part, paths[name], like.get(name, args.models[0]), options[name], metrics.get(name))
        for part, paths in (("valid", valid), ("test", tables))
        for name in names
        if name in paths
    ]
