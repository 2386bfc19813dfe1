"""``unival sweep``: evaluate merged models along a path between checkpoints, on several tables, without writing them."""

import argparse
import pathlib
import sys
from collections.abc import Iterator, Sequence

from unival.checkpoints.merging.methods import METHODS
from unival.checkpoints.merging.points import check_method, points_of
from unival.console.merging import add_method, add_models, given_options
from unival.console.tables import TimeLeft, add_tables, check_numbers, named, options_by_table, tables_of
from unival.errors import UserError
from unival.hub import usable_device
from unival.tasks.sweeping.choice import Choice, choices
from unival.tasks.sweeping.results import Result, Results
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
    add("--out", required=True, type=pathlib.Path, metavar="DIR", help=f"folder for {RESULTS}, from which the same command goes on")
    add_tables(parser)


def run(args: argparse.Namespace) -> int:
    """Evaluate all points, and print what was found; returns the exit code."""
    points = points_of(args.method, len(args.models), given_options(args), args.coefficients, None, args.points)
    check_method(args.method, len(args.models), args.base, args.missing)
    check_numbers({"--batch-size": (args.batch_size, 1), "--num-workers": (args.num_workers, 0), "--resamples": (args.resamples, 0)})
    specs = specs_of(args)
    merge = Merge(args.models, args.base, args.method, args.weights, args.missing, args.allow_unrelated)
    running = Running(args.batch_size, args.num_workers, usable_device(args.device), True, args.resamples)
    results = Results(args.out / RESULTS)
    found = Sweep(merge, points, specs, running).run(results, TimeLeft())
    for line in report(found, coefficient_of(args.method)):
        sys.stdout.write(f"{line}\n")
    return 0


def coefficient_of(method: str) -> str:
    """The name of the number that distinguishes points."""
    return "scale" if "scale" in METHODS[method].options() else "lambda"


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


def report(results: Sequence[Result], coefficient: str) -> Iterator[str]:
    """The scores of all points, a block for each table, and what validation chooses."""
    for table, part in dict.fromkeys((result.table, result.part) for result in results):
        mine = [result for result in results if (result.table, result.part) == (table, part)]
        yield f"{table} ({part}, {len(mine[0].measured.tokens):,} rows): {mine[0].metric}, loss in bits per token"
        width = max(len(result.point) for result in mine)
        for result in mine:
            interval = result.measured.intervals.get(result.metric)
            bounds = f" [{interval[0]:.4f}, {interval[1]:.4f}]" if interval else ""
            yield f"  {result.point:>{width}}  {result.score:.4f}{bounds}  {result.measured.scores['loss']:.4f}"
    found = choices(results)
    for choice in found:
        yield said(choice, coefficient)
    if not found:
        yield "no --valid table: nothing is chosen, since the best score on a test table would be no test of it"


def said(choice: Choice, coefficient: str) -> str:
    """What validation chooses, and what it scores in the test."""
    tests = [
        f"{test.table} {test.metric} {test.score:.4f}" + (f" [{bounds[0]:.4f}, {bounds[1]:.4f}]" if bounds else "")
        for test in choice.tests
        for bounds in [test.measured.intervals.get(test.metric)]
    ]
    return f"chosen for {choice.name}: {coefficient} {choice.point} (validation {choice.said}); test: {', '.join(tests)}"


