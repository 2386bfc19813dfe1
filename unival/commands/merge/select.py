"""``unival merge --select``: which of the models are merged, by their scores on a validation table."""

import argparse
from dataclasses import dataclass
from typing import Any

from unival.checkpoints.merging.points import points_of
from unival.console.settings import settings
from unival.errors import UserError, counted

GREEDY = "greedy"


@dataclass(frozen=True)
class Selected:
    """The models that are merged.

    Attributes:
        models: their files, in the order of the command line.
        about: what a checkpoint keeps of it.
        lines: what is printed of it.
    """

    models: list[str]
    about: dict[str, Any]
    lines: list[str]


def add_select_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments about the choice of models."""
    add = parser.add_argument
    what = f"merge only the N models that score best on --valid, or {GREEDY}: those that make the average better (greedy soup)"
    add("--select", metavar="N", help=what)
    add("--valid", metavar="FILE", help="with --select: the validation table, evaluated with the task and instruction of OUT")
    add("--metric", metavar="SCORE", help="with --select: the score that is compared (default: the first one of the task), or loss")
    what = "with --select: an option of the task, as of unival generate, e.g. closed_set=FILE; may be repeated"
    add("--set", action="append", default=[], metavar="OPTION=VALUE", help=what)


def check_select_arguments(args: argparse.Namespace) -> None:
    """Check the arguments about the choice before anything is read.

    Raises:
        UserError: one is missing, out of range, or has no effect.
    """
    if args.select is None:
        for option, value in (("--valid", args.valid), ("--metric", args.metric), ("--set", args.set)):
            if value:
                raise UserError(f"{option} is for --select; leave it out")
        return
    if args.valid is None:
        raise UserError(f"--select {args.select}: give --valid, the table on which the models are compared")
    if args.select == GREEDY:
        if args.method != "linear":
            raise UserError(f"--select {GREEDY} is for --method linear: it averages models")
    elif not args.select.isascii() or not args.select.isdigit() or not 1 <= int(args.select) <= len(args.models):
        raise UserError(f"--select {args.select}: must be a number from 1 to {len(args.models)}, that of the models, or {GREEDY}")
    for option, value in (("--coefficients", args.coefficients), ("--lambda", args.share), ("--sweep", args.sweep)):
        if value is not None:
            raise UserError(f"{option} is about all models, not with --select")
    settings(args.set)


def least_selected(args: argparse.Namespace) -> int:
    """The least number of models that are merged."""
    if args.select is None:
        return len(args.models)
    return 1 if args.select == GREEDY else int(args.select)


def select(args: argparse.Namespace) -> Selected:
    """Choose among the models.

    Raises:
        UserError: a model or the table cannot be used.
    """
    from unival.console.tables import TimeLeft  # these import fairseq
    from unival.hub import usable_device
    from unival.tasks.sweeping.experts import best_experts, greedy_soup
    from unival.tasks.sweeping.sweep import Merge, Running, Sweep
    from unival.tasks.sweeping.table import TableSpec

    spec = TableSpec("valid", "valid", args.valid, args.config_from or args.models[0], settings(args.set), args.metric)
    base = args.base if args.missing == "base" else None
    merge = Merge(args.models, base, "linear", args.weights, args.missing, args.allow_unrelated)
    running = Running(args.batch_size or 16, 0, usable_device(args.device or "cpu"), resamples=0)
    sweep = Sweep(merge, points_of("linear", len(args.models), {}), [spec], running)
    found = greedy_soup(sweep, TimeLeft()) if args.select == GREEDY else best_experts(sweep, int(args.select), TimeLeft())
    tried = [(result.point, result.score) for result in (*found.alone, *found.soups)]
    metric = found.alone[0].metric
    models = [args.models[number] for number in found.numbers]
    lines = [f"{name}: {metric} {score:.4f} on {args.valid}" for name, score in tried]
    lines.append(f"selected {counted(len(models), 'model')} of {len(args.models)}: {', '.join(models)}")
    return Selected(models, {"table": args.valid, "metric": metric, "scores": dict(tried)}, lines)
