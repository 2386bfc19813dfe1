"""What ``unival merge`` does with rows of tables."""

import argparse
import pathlib
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from unival.checkpoints.architecture import identify
from unival.checkpoints.merging.inputs import Checkpoint, Inputs, frozen_statistics
from unival.errors import UserError, counted

ROWS = 1000
NEEDS = "--recalibrate"


def add_data_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments about tables."""
    add = parser.add_argument
    what = "compute the statistics of the result's batch norms again on this table, read with OUT's instruction; or on one table per model,"
    add("--recalibrate", metavar="TABLE,TABLE,…", help=f"{what} each read with its model's")
    add("--rows", type=int, metavar="N", help=f"rows of each table that are used, evenly spread over it (default: {ROWS:,} at most)")
    add("--batch-size", type=int, metavar="N", help="rows at a time (default: 16)")
    add("--device", metavar="DEVICE", help="cpu, cuda, … for what is computed on rows (default: cpu)")


def check_data_arguments(args: argparse.Namespace) -> None:
    """Check the arguments about tables before anything is read.

    Raises:
        UserError: an option is out of range, or nothing needs it.
    """
    for name in ("rows", "batch_size", "device"):
        selects = args.select is not None and name != "rows"
        if getattr(args, name) is not None and args.recalibrate is None and not selects:
            raise UserError(f"--{name.replace('_', '-')} is for {NEEDS}; leave it out")
    for name in ("rows", "batch_size"):
        value = getattr(args, name)
        if value is not None and value < 1:
            raise UserError(f"--{name.replace('_', '-')} {value}: must be at least 1")


class Recalibration:
    """Recalibration of merged states by the tables of ``--recalibrate``, which are opened and checked here.

    Args:
        args: the command's arguments.
        inputs: the checkpoints.
        like: the model whose task the result has.

    Raises:
        UserError: a table cannot be read, or a model's task cannot be built.
    """

    def __init__(self, args: argparse.Namespace, inputs: Inputs, like: Checkpoint):
        from unival.hub import task_of, usable_device  # imports fairseq
        from unival.tasks.statistics.rows import rows_of

        self.device = args.device or "cpu"
        usable_device(self.device)
        self.size, self.most = args.batch_size or 16, args.rows or ROWS
        self.tables = args.recalibrate.split(",")
        self.keep = frozen_statistics(inputs)
        readers = [like] if len(self.tables) == 1 else inputs.models
        if len(readers) != len(self.tables):
            expected = f"one table, or one per model ({len(inputs.models)})"
            raise UserError(f"--recalibrate {args.recalibrate}: expected {expected}, got {len(self.tables)}")
        for model in readers:
            if identify(model.container, model.state).kind != "unival":
                raise UserError(f"--recalibrate: {model.name} has published keys; `unival convert` makes a checkpoint of ours of it")
        self.streams = [
            rows_of(task_of(model.container, model.name), table) for model, table in zip(readers, self.tables, strict=True)
        ]

    @property
    def about(self) -> dict[str, Any]:
        """What a checkpoint keeps of it."""
        from unival.tasks.statistics.rows import spread

        rows = [len(spread(len(stream), self.most)) for stream in self.streams]
        return {"tables": [pathlib.Path(table).name for table in self.tables], "rows": rows, "batch_size": self.size}

    def __call__(self, container: Mapping[str, Any], state: Mapping[str, Tensor], name: str) -> str:
        """Recalibrate a merged state in place; returns what was done, for a person.

        Args:
            container: the container of the merged state.
            state: the merged state.
            name: of the file that it will be.
        """
        from unival.hub import from_container
        from unival.tasks.statistics.norms import recalibrate
        from unival.tasks.statistics.rows import Batches

        model = from_container(container, name, device=self.device).model
        batches = [Batches(stream, model, self.size, self.most) for stream in self.streams]
        found = recalibrate(model, batches, self.keep)
        new = model.state_dict()
        for norm in found.norms:
            for value in ("running_mean", "running_var"):
                state[f"{norm}.{value}"].copy_(new[f"{norm}.{value}"])
        rows = counted(sum(self.about["rows"]), "row")
        return f"{name}: recalibrated on {rows} of {', '.join(self.tables)}, batch size {self.size}: {found}\n"
