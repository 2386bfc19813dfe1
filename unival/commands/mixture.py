"""``unival mixture``: what the stages of a mixture file will do, before anything is trained, and their options for ``fairseq-train``."""

import argparse
import dataclasses
import json
import os
import resource
import shlex
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from typing import Any

import yaml

from unival.console.lines import duration
from unival.console.settings import settings
from unival.errors import UserError, counted

TIMED_UPDATES = 5  # the first is not counted: it allocates memory
GIGABYTE = 1 << 30


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    add = parser.add_argument
    add("file", metavar="FILE", help="the mixture file")
    add("--stage", metavar="NAME", help="this stage only (default: all)")
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--show", action="store_true", help="rows, shares, epochs, updates and tokens of each stage (the default)")
    what.add_argument("--options", action="store_true", help="the arguments of fairseq-train, one line a stage, quoted for a shell")
    what.add_argument("--stages", action="store_true", help="the names of the stages, in order")
    add("--time", action="store_true", help="with --show: also make a few updates of each stage, and estimate time and memory")
    text = "an option of training, above those of the file, e.g. --set batch_size=4; may be repeated"
    add("--set", action="append", default=[], metavar="NAME=VALUE", help=text)


def run(args: argparse.Namespace) -> int:
    """Print what is asked for; returns 0."""
    from unival.tasks.pretraining.arguments import stage_arguments
    from unival.tasks.pretraining.file import check_files, read_mixture

    mixture = read_mixture(args.file)
    stages = mixture.stages if args.stage is None else [mixture.stage(args.stage)]
    if args.time and (args.options or args.stages):
        raise UserError("--time goes with --show")
    if args.stages:
        sys.stdout.writelines(f"{stage.name}\n" for stage in stages)
        return 0
    check_files(stages)
    changed = [changed_stage(stage, args.set) for stage in stages]
    if args.options:
        sys.stdout.writelines(f"{shlex.join(stage_arguments(stage))}\n" for stage in changed)
        return 0
    for number, stage in enumerate(changed):
        sys.stdout.writelines(f"{line}\n" for line in [*([""] if number else []), *described(mixture, stage, args.time)])
        sys.stdout.flush()
    return 0


def changed_stage(stage: Any, changes: Sequence[str]) -> Any:
    """A stage with options of ``--set``.

    Raises:
        UserError: one is not NAME=VALUE.
    """
    from unival.tasks.pretraining.arguments import is_path

    given = settings(changes, "NAME=VALUE, e.g. batch_size=4")
    values = {name: os.path.abspath(value) if is_path(name) else yaml.safe_load(value) for name, value in given.items()}
    return dataclasses.replace(stage, options={**stage.options, **values})


def described(mixture: Any, stage: Any, timed: bool) -> Iterator[str]:
    """What a stage will do, line by line."""
    from unival.tasks.pretraining.arguments import configuration, stage_arguments
    from unival.tasks.pretraining.forecast import forecast

    arguments = [str(mixture.path), *stage_arguments(stage)]
    found = forecast(configuration(arguments), mixture, stage)
    yield f"stage {stage.name}: {epochs_of(stage, found)}"
    asked = stage.rows_per_update or found.rows_per_update
    rounded = f", {asked:,} rounded up to whole batches" if asked != found.rows_per_update else ""
    yield (
        f"  {counted(found.rows_per_update, 'row')} an update ({counted(found.ranks, 'process', 'processes')}{rounded}),"
        f" balancing {stage.balancing}{fading(stage, found)}"
    )
    head = ("stream", "rows", "share", "rows an epoch", "epochs over it", "examples a row", "tokens a row: source", "target")
    rows = [
        (
            each.name,
            f"{each.rows:,}",
            span(each.shares),
            f"{each.rows_per_epoch:,.0f}",
            "" if found.updates is None else f"{each.passes:.2f}",
            f"{each.examples:.1f}",
            f"{each.source_tokens:.1f}",
            f"{each.target_tokens:.1f}",
        )
        for each in found.streams
    ]
    yield from aligned([head, *rows])
    yield f"  target tokens: {found.target_tokens:,.0f} an epoch" + (f", {found.all_target_tokens:,.0f} in all" if found.updates else "")
    if timed:
        yield f"  {measured(arguments, found.updates)}"


def fading(stage: Any, found: Any) -> str:
    """The transition of a stage in words."""
    if not stage.transition:
        return ""
    is_cut = found.updates is not None and found.updates < stage.transition
    text = f", shares of the stage before fade out over {counted(stage.transition, 'update')}"
    return text + (f", of which the stage makes {found.updates:,}" if is_cut else "")


def span(shares: Sequence[float]) -> str:
    """A share, or the least and the most that it has in an epoch."""
    least, most = (f"{share:.3f}" for share in (min(shares), max(shares)))
    return least if least == most else f"{least}-{most}"


def aligned(rows: Sequence[Sequence[str]]) -> Iterator[str]:
    """The lines of a table whose first column has names, all others numbers."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for name, *numbers in rows:
        cells = [cell.rjust(width) for cell, width in zip(numbers, widths[1:], strict=True)]
        yield "  ".join(["", name.ljust(widths[0]), *cells])


def epochs_of(stage: Any, found: Any) -> str:
    """The length of a stage in words."""
    if found.updates is None:
        return f"epochs of {counted(found.updates_per_epoch, 'update')} (no number of epochs is given)"
    text = f"{counted(found.updates, 'update')} in epochs of {found.updates_per_epoch:,}"
    return text + (f"; the learning rate is planned over {counted(stage.schedule_epochs, 'epoch')}" if stage.schedule_epochs else "")


def measured(arguments: Sequence[str], updates: int | None) -> str:
    """Train a few updates in a process of its own, without saving anything, and say what they took.

    Raises:
        UserError: they cannot be made.
    """
    with tempfile.TemporaryDirectory() as folder:
        log = os.path.join(folder, "log.jsonl")
        ours = ["--max-update", str(TIMED_UPDATES), "--no-save", "--disable-validation", "--skip-checks", "--save-dir", folder]
        ours += ["--log-format", "json", "--log-interval", "1", "--log-file", log]
        command = [sys.executable, "-m", "unival", "train", *arguments, *ours]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            raise UserError(f"--time: {(done.stderr or done.stdout).strip().splitlines()[-1].removeprefix('error: ')}")
        with open(log, encoding="utf-8") as lines:
            of_updates = [line[line.index("{") :] for line in lines if '"ups"' in line and '"train_loss"' not in line]
        logged = [json.loads(line) for line in dict.fromkeys(of_updates)]  # fairseq may log a line twice
    seconds = statistics.median(1 / float(line["ups"]) for line in logged[1:] if float(line["ups"]) > 0)
    total = "" if updates is None else f", {duration(seconds * updates)} in all"
    return f"time: {seconds:.3g} s an update{total}; memory {memory(logged)} (from {counted(len(logged), 'update')} made here)"


def memory(logged: Sequence[dict[str, Any]]) -> str:
    """The most memory that the updates took: of the GPU, or of the process on the CPU."""
    free = [float(line["gb_free"]) for line in logged if "gb_free" in line]
    if free:
        import torch

        return f"{torch.cuda.get_device_properties(0).total_memory / GIGABYTE - min(free):.1f} GB of the GPU"
    unit = 1 if sys.platform == "darwin" else 1024  # ru_maxrss: bytes there, KB elsewhere
    return f"{resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * unit / GIGABYTE:.1f} GB"
