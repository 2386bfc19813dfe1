"""Arguments of the commands that evaluate on tables in one process, and their progress."""

import argparse
import time
from collections.abc import Sequence

from unival.checkpoints.merging import PASSES, ROWS
from unival.console.lines import duration
from unival.console.settings import settings_by_table
from unival.errors import UserError, flag, unknown
from unival.hub import usable_device
from unival.tasks.progress import Step, tell
from unival.tasks.sweeping.sweep import Running
from unival.tasks.sweeping.table import TableSpec

GIGABYTE = 1 << 30


def add_tables(parser: argparse.ArgumentParser, valid: bool = True) -> None:
    """Declare the tables and how they are evaluated.

    Args:
        valid: also those by which something is chosen.
    """
    add = parser.add_argument
    what = "a table to test on, and a name for it; without NAME= the name is that of the file; may be repeated"
    add("--table", action="append", default=[], required=True, metavar="[NAME=]FILE", help=what)
    if valid:
        what = "the table on which a coefficient is chosen for the test table of this name; may be repeated"
        add("--valid", action="append", default=[], metavar="NAME=FILE", help=what)
        what = "the score that is compared on a table (default: the first one of its task), or loss; may be repeated"
        add("--metric", action="append", default=[], metavar="NAME=SCORE", help=what)
    else:
        parser.set_defaults(valid=[], metric=[])
    what = "the model whose task, instruction and candidate answers a table is evaluated with (default: the first); may be repeated"
    add("--of", action="append", default=[], metavar="NAME=MODEL", help=what)
    what = "an option of a table's task, as of unival generate, e.g. --set answers.closed_set=FILE; also task; may be repeated"
    add("--set", action="append", default=[], metavar="NAME.OPTION=VALUE", help=what)
    what = "compute the statistics of batch norms again at every point on this table, read with the first model's instruction;"
    add("--recalibrate", metavar="TABLE,TABLE,…", help=f"{what} or on one table per model, each read with its model's")
    add("--rows", type=int, default=ROWS, metavar="N", help="with --recalibrate: rows of each of its tables at most (default: %(default)s)")
    what = "with --recalibrate: passes over its rows; with small batches more are needed"
    add("--passes", type=int, default=PASSES, metavar="N", help=f"{what} (default: %(default)s)")
    add("--batch-size", type=int, default=16, metavar="N", help="rows at a time (default: %(default)s)")
    add("--num-workers", type=int, default=0, metavar="N", help="processes that read media (default: %(default)s, none)")
    what = "GB of decoded media that are kept in memory; more are kept in a temporary file"
    add("--media-memory", type=float, default=4.0, metavar="GB", help=f"{what} (default: %(default)s)")
    add("--device", default="cpu", help="cpu, cuda, … (default: %(default)s)")
    add("--resamples", type=int, default=1000, metavar="N", help="draws of rows for 95%% intervals, 0 for none (default: %(default)s)")


def named(option: str, values: Sequence[str], what: str, names: Sequence[str] = ()) -> dict[str, str]:
    """Read ``NAME=VALUE`` of an option that may be repeated.

    Args:
        option: the option.
        values: what was given.
        what: what a value is, in capitals.
        names: the names that there are; empty: any.

    Raises:
        UserError: one is not of this form, or its name is unknown or there twice.
    """
    found: dict[str, str] = {}
    for given in values:
        name, equals, value = given.partition("=")
        if not (name and equals and value):
            raise UserError(f"{option} {given}: must be NAME={what}")
        if names and name not in names:
            raise UserError(f"{option} {given}: {unknown('table', name, names)}")
        if name in found:
            raise UserError(f"{option} {given}: {name} is given twice")
        found[name] = value
    return found


def tables_of(values: Sequence[str]) -> dict[str, str]:
    """Read ``--table``: name -> file.

    Raises:
        UserError: a name is there twice.
    """
    found: dict[str, str] = {}
    for given in values:
        name, equals, path = given.partition("=")
        if not equals:
            name, path = given.rsplit("/", 1)[-1].rsplit(".", 1)[0], given
        if not name or not path:
            raise UserError(f"--table {given}: must be NAME=FILE, or FILE")
        if name in found:
            raise UserError(f"--table {given}: {name} is given twice; name the tables, as in first={path}")
        found[name] = path
    return found


class TimeLeft:
    """Says what is evaluated, and how long the rest will take at the speed so far."""

    def __init__(self) -> None:
        self._start = time.monotonic()

    def __call__(self, what: str, done: int, total: int) -> None:
        """Tell the console."""
        seconds = time.monotonic() - self._start
        left = f", {duration(seconds / done * (total - done))} left" if done else ""
        tell(Step(f"{what}{left}", done, total))


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
    options = settings_by_table(args.set, names)
    for name, model in like.items():
        if model not in args.models:
            raise UserError(f"--of {name}={model}: must be one of the models, {', '.join(args.models)}")
    return [
        TableSpec(name, part, paths[name], like.get(name, args.models[0]), options[name], metrics.get(name))
        for part, paths in (("valid", valid), ("test", tables))
        for name in names
        if name in paths
    ]


def running_of(args: argparse.Namespace, generates: bool = True) -> Running:
    """How points are evaluated.

    Raises:
        UserError: a number is too small, or there is no such device.
    """
    least_of = {"batch_size": 1, "rows": 1, "passes": 1, "num_workers": 0, "resamples": 0, "media_memory": 0}
    for name, least in least_of.items():
        option, value = flag(name), getattr(args, name)
        if value < least:
            raise UserError(f"{option} {value}: must be {least} or more")
    tables = args.recalibrate.split(",") if args.recalibrate else ()
    return Running(
        args.batch_size,
        args.num_workers,
        usable_device(args.device),
        generates,
        args.resamples,
        tables,
        args.rows,
        memory=int(args.media_memory * GIGABYTE),
        passes=args.passes,
    )
