"""What ``unival merge`` does with rows of tables."""

import argparse
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from torch import Tensor

from unival.checkpoints.architecture import check_ours
from unival.checkpoints.merging import PASSES, ROWS
from unival.checkpoints.merging.inputs import Checkpoint, Inputs, frozen_statistics, readers_of
from unival.checkpoints.merging.merge import merged
from unival.checkpoints.merging.record import file_record, merged_container
from unival.console.merging import add_statistics
from unival.errors import UserError, counted, flag

BATCH = 16
SHOWN = 4  # most groups of coefficients in a line


def add_data_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments about tables."""
    add = parser.add_argument
    add_statistics(parser)
    add("--tables", metavar="TABLE,TABLE,…", help="adamerging: rows of each model's task, read with its instruction; answers are not used")
    what = "compute the statistics of the result's batch norms again on this table, read with OUT's instruction; or on one table per model,"
    add("--recalibrate", metavar="TABLE,TABLE,…", help=f"{what} each read with its model's")
    add("--rows", type=int, metavar="N", help=f"most rows of each table that are used, evenly spread over it (default: {ROWS:,})")
    add("--batch-size", type=int, metavar="N", help=f"rows of a table at a time (default: {BATCH})")
    what = "with --recalibrate: passes over its rows; with small batches more are needed"
    add("--passes", type=int, metavar="N", help=f"{what} (default: {PASSES})")
    add("--device", metavar="DEVICE", help="cpu, cuda, … for what is computed on rows (default: cpu)")


def check_data_arguments(args: argparse.Namespace) -> None:
    """Check the arguments about tables before anything is read.

    Raises:
        UserError: an option is out of range, or nothing needs it.
    """
    for name in ("rows", "batch_size", "device"):
        selects = args.select is not None and name != "rows"
        if getattr(args, name) is not None and args.recalibrate is None and args.tables is None and not selects:
            raise UserError(f"{flag(name)} is for --recalibrate and --tables; leave it out")
    if args.passes is not None and args.recalibrate is None:
        raise UserError("--passes is for --recalibrate; leave it out")
    for name in ("rows", "batch_size", "passes"):
        value = getattr(args, name)
        if value is not None and value < 1:
            raise UserError(f"{flag(name)} {value}: must be at least 1")
    for name in ("statistics", "tables"):
        if args.select is not None and getattr(args, name) is not None:
            raise UserError(f"{flag(name)} is about all models, not with --select")
    if args.tables is not None and args.sweep is not None:
        raise UserError(f"--sweep is not for --method {args.method}, whose coefficients are learnt")


class Tables:
    """Tables with the tasks that read them, which are opened and checked here.

    Args:
        args: the command's arguments.
        option: name of the option that names the tables.
        readers: for each table the checkpoint whose task it is read with.

    Raises:
        UserError: a table cannot be read, a model's task cannot be built, or the device does not exist.
    """

    def __init__(self, args: argparse.Namespace, option: str, readers: Sequence[Checkpoint]):
        from unival.hub import task_of, usable_device  # imports fairseq
        from unival.tasks.statistics.rows import rows_of, spread

        self.device = args.device or "cpu"
        usable_device(self.device)
        self.size, self.most = args.batch_size or BATCH, args.rows or ROWS
        self.paths = getattr(args, option).split(",")
        for model in readers:
            check_ours(model.container, model.state, f"{flag(option)}: {model.name}")
        self.tasks = [task_of(model.container, model.name) for model in readers]
        self.streams = [rows_of(task, table) for task, table in zip(self.tasks, self.paths, strict=True)]
        self.rows = [len(spread(len(stream), self.most)) for stream in self.streams]

    def fit(self, model: Any) -> None:
        """Limit the tokens of rows to the positions of a model."""
        for task, stream in zip(self.tasks, self.streams, strict=True):
            task.fit_positions(model.cfg)
            source, target = task.positions
            stream.limits = replace(stream.limits, source_tokens=source, target_tokens=target)

    @property
    def about(self) -> dict[str, Any]:
        """What a checkpoint keeps of them."""
        return {"tables": [file_record(path) for path in self.paths], "rows": self.rows, "batch_size": self.size}


class Recalibration(Tables):
    """Recalibration of merged states by the tables of ``--recalibrate``.

    Args:
        args: the command's arguments.
        inputs: the checkpoints.
        like: the model whose task the result has.

    Raises:
        UserError: as :class:`Tables`, or there are neither one table nor one per model.
    """

    def __init__(self, args: argparse.Namespace, inputs: Inputs, like: Checkpoint):
        super().__init__(args, "recalibrate", readers_of(args.recalibrate.split(","), inputs.models, like))
        self.keep, self.passes = frozen_statistics(inputs), args.passes or PASSES

    @property
    def about(self) -> dict[str, Any]:
        """What a checkpoint keeps of it."""
        return {**super().about, "passes": self.passes}

    def __call__(self, container: Mapping[str, Any], state: Mapping[str, Tensor], name: str) -> str:
        """Recalibrate a merged state in place; returns what was done, for a person.

        Args:
            container: the container of the merged state.
            state: the merged state.
            name: of the file that it will be.
        """
        from unival.hub import from_container
        from unival.models.fitting import share_weights
        from unival.tasks.statistics.norms import recalibrate
        from unival.tasks.statistics.rows import Batches

        model = from_container(container, name, device=self.device).model
        share_weights(model, state)
        self.fit(model)
        batches = [Batches(stream, model, self.size, self.most) for stream in self.streams]
        found = recalibrate(model, batches, self.keep, self.passes)
        new = model.state_dict()
        for norm in found.norms:
            for value in ("running_mean", "running_var"):
                state[f"{norm}.{value}"].copy_(new[f"{norm}.{value}"])
        rows = counted(sum(self.rows), "row")
        return f"{name}: recalibrated on {rows} of {', '.join(self.paths)}, batch size {self.size}: {found}\n"


def learn_coefficients(args: argparse.Namespace, inputs: Inputs, like: Checkpoint, rule: Any) -> tuple[Any, dict[str, Any]]:
    """Learn the coefficients of ``--method adamerging`` on the tables of ``--tables``.

    Args:
        args: the command's arguments.
        inputs: the checkpoints.
        like: the model whose options the model has that is merged while learning.
        rule: the method with its options.

    Returns:
        The coefficients, a function of a key, and what a checkpoint keeps of how they were learnt.
    """
    from unival.hub import from_container
    from unival.models.fitting import share_weights
    from unival.tasks.progress import Step, tell
    from unival.tasks.statistics.adaptive import average, learn

    tables = Tables(args, "tables", inputs.models)
    state = merged(inputs, rule, [rule.start] * len(inputs.models))
    model = from_container(merged_container(state, like, {}), "the merged model", device=tables.device).model
    share_weights(model, state)
    tables.fit(model)

    def told(done: int, total: int) -> None:
        tell(Step("learning coefficients", done, total))

    pairs = list(zip(tables.tasks, tables.streams, strict=True))
    coefficients, entropies = learn(inputs, model, pairs, rule, tables.size, tables.most, told, state)
    first, last = average(entropies)
    plain = coefficients.plain()
    shown = [f"{name or 'all'} {' '.join(f'{value:.3f}' for value in values)}" for name, values in plain.items()]
    more = f" and {len(shown) - SHOWN} more" if len(shown) > SHOWN else ""
    sys.stdout.write(f"entropy {first:.4f} -> {last:.4f}; coefficients: {'; '.join(shown[:SHOWN])}{more}\n")
    return coefficients, {**tables.about, "coefficients": plain, "entropy": [first, last]}
