"""``unival barrier``: the loss on the straight path between two models, and how high its barrier is."""

import argparse
import pathlib
import sys
from collections.abc import Iterator, Mapping
from typing import Any

from unival.checkpoints.merging.inputs import RELATED, Checkpoint, distance, relation
from unival.checkpoints.merging.points import points_of
from unival.console.merging import add_models
from unival.console.tables import TimeLeft, add_tables, running_of, specs_of
from unival.drawing.barriers import barriers_png, described
from unival.drawing.figures import new_figure
from unival.errors import UserError
from unival.tasks.sweeping.barrier import Barrier, barrier_of
from unival.tasks.sweeping.results import Result, Results
from unival.tasks.sweeping.sweep import Merge, Sweep
from unival.text import check_writable, write_json

RESULTS = "results.jsonl"
FOUND = "checkpoint_last.pt"  # fairseq's default of --restore-file, which names no ancestor


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    add_models(parser, 2)
    add = parser.add_argument
    what = "the points, from 0 (the first model) to 1 (the second); also FROM:TO:STEP"
    add("--points", default="0:1:0.1", metavar="X,X,…", help=f"{what} (default: %(default)s)")
    what = f"folder for {RESULTS}, from which the same command goes on, and barrier.png"
    add("--out", type=pathlib.Path, metavar="DIR", help=what)
    add("--json", metavar="FILE", help="also write what was found as a JSON object")
    add("--base", metavar="FILE", help="the model whose values --missing base takes")
    add_tables(parser, valid=False)


def run(args: argparse.Namespace) -> int:
    """Evaluate the path, and print the barrier on every table; returns the exit code."""
    points = points_of("linear", 2, {}, None, None, args.points, "--points")
    values = [float(point.name) for point in points]
    if values != sorted(set(values)) or (values[0], values[-1]) != (0.0, 1.0):
        raise UserError(f"--points {args.points}: must rise from 0 to 1, the ends of the path")
    specs, running = specs_of(args), running_of(args, generates=False)
    if args.json:
        check_writable("--json", args.json)
    if args.out:
        new_figure(1, 1)  # matplotlib is missing now, or not at the end
    merge = Merge(args.models, args.base, "linear", args.weights, args.missing, unrelated=True)
    sweep = Sweep(merge, points, specs, running)
    found = sweep.run(points, Results(args.out / RESULTS if args.out else None), TimeLeft())
    by_table: dict[str, list[Result]] = {}
    for result in found:
        by_table.setdefault(result.table, []).append(result)
    barriers = {table: (results, barrier_of(results, args.resamples)) for table, results in by_table.items()}
    about = list(said_of_relation(*sweep.models))
    lines = [line for table, (results, barrier) in barriers.items() for line in described(table, results, barrier)]
    sys.stdout.writelines(f"{line}\n" for line in [*lines, *about])
    if args.out:
        args.out.mkdir(parents=True, exist_ok=True)
        (args.out / "barrier.png").write_bytes(barriers_png(barriers))
        sys.stdout.write(f"picture: {args.out / 'barrier.png'}\n")
    if args.json:
        write_json(args.json, {"relation": about, "tables": {table: content(*both) for table, both in barriers.items()}})
    return 0


def content(results: list[Result], barrier: Barrier) -> dict[str, Any]:
    """A barrier as JSON."""
    return {"points": [result.value for result in results], "rows": len(results[0].measured.tokens), **vars(barrier)}


def said_of_relation(a: Checkpoint, b: Checkpoint) -> Iterator[str]:
    """What is known of a common pretraining: what the checkpoints record, and what their weights show."""
    recorded = [ancestor_of(model.container) for model in (a, b)]
    if recorded[0] is not None and recorded[0] == recorded[1]:
        yield f"both record that their training started from {recorded[0]} (its name is recorded, not its content)"
    elif None in recorded:
        yield "no common ancestor is recorded in the checkpoints; their weights say the following"
    else:
        yield f"their trainings started from files of different names, {recorded[0]} and {recorded[1]}; their weights say the following"
    cosine, apart = relation(a.state, b.state), distance(a.state, b.state)
    if cosine is None or apart is None:
        yield "they have no matrix in common"
        return
    measured = f"a cosine of {cosine:.3f} and a distance of {apart:.3g} times their norm"
    if cosine < RELATED:
        yield (
            f"they do not share one pretraining, as far as weights can show: their matrices have {measured}, as independent trainings have;"
            " the barrier is that of the models as they are, and may be lower after a permutation of hidden units, which is not looked for"
        )
    else:
        yield f"they share one pretraining, as far as weights can show: their matrices have {measured} (independent trainings: 0 and 1.4)"


def ancestor_of(container: Mapping[str, Any]) -> str | None:
    """The file that a checkpoint's training started from, as its options name it; None if they name none."""
    options = (container.get("cfg") or {}).get("checkpoint") or {}
    named = options.get("finetune_from_model") or options.get("restore_file")
    return None if named in (None, "", FOUND) else str(named)
