"""The frame of every builder: arguments, rows to tables, files of media that are missing, counts against the
published ones.

A builder is a :class:`Dataset` and a function that gives its rows:

DATASET = Dataset("coco", __doc__, "image", rows, {"train": Size(113_287, "113K"), …})

if __name__ == "__main__": sys.exit(main(DATASET))

The exit code is 0 where every count is the official one and nothing is missing, 1 where tables were written and
something differs (which is said), and 2 for an error, after which no table is written.
"""

import argparse
import json
import pathlib
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TextIO

from common.files import Source
from common.groups import RowsPerFile
from common.media import MediaRoot
from common.progress import Progress

from unival.errors import UserError, counted

ANSWERS = "answers.txt"
TRAIN = "train"
NO_FILE = "without a file"
NAMED = 3  # files of media that are named among those that are missing
DONE, DIFFERS, FAILED = 0, 1, 2  # exit codes


@dataclass(frozen=True)
class Size:
    """The published size of a table.

    Attributes:
        rows: rows that the complete files give; None: nobody says.
        paper: what table 15 of the UnIVAL paper says, such as "113K"; "" where it says nothing.
        of: what the paper counts: "rows" (those that the recipe leaves out, too), "used" rows, "media" or "references".
        why: how the paper's number comes to be another one than the files', where that is known.
    """

    rows: int | None = None
    paper: str = ""
    of: str = "rows"
    why: str = ""


@dataclass
class Row:
    """A row of a table.

    Attributes:
        table: its table, such as "train".
        id: its id in the data set.
        media: the paths below ``--media-root`` that its file may have; the first that exists is taken.
        values: the other columns.
    """

    table: str
    id: int | str
    media: Sequence[str]
    values: dict[str, Any]


@dataclass(frozen=True)
class Dataset:
    """A data set.

    Attributes:
        name: its name.
        about: what the builder makes of which files, for ``--help``.
        column: the column with the media, named as their modality.
        rows: gives the rows; it is called with the source, the arguments and the report.
        sizes: published sizes by table, or what gives them for the arguments.
        references: the column whose cell holds several references or weighted answers; ``--row-per-reference`` makes a row of each.
        arguments: declares arguments of its own.
    """

    name: str
    about: str
    column: str
    rows: Callable[[Source, argparse.Namespace, "Report"], Iterator[Row]]
    sizes: Mapping[str, Size] | Callable[[argparse.Namespace], Mapping[str, Size]]
    references: str
    arguments: Callable[[argparse.ArgumentParser], None] | None = None


@dataclass
class Tally:
    """What was counted of a table."""

    rows: int = 0
    references: int = 0
    grouped: int = 0  # lines that have these rows as lists
    media: set[str] = field(default_factory=set)
    absent: list[str] = field(default_factory=list)  # the first files that are missing
    left_out: Counter[str] = field(default_factory=Counter)  # reason -> rows; these differ from what the data set should be
    chosen: Counter[str] = field(default_factory=Counter)  # reason -> rows that a recipe leaves out


class Report:
    """What a builder says besides its rows: notes, rows that a recipe leaves out, the candidate answers."""

    def __init__(self, sizes: Mapping[str, Size]) -> None:
        self.sizes = sizes
        self.tallies: dict[str, Tally] = {}
        self.notes: list[str] = []
        self.answers: list[str] | None = None
        self._progress = Progress()

    def of(self, table: str) -> Tally:
        """The counts of a table."""
        return self.tallies.setdefault(table, Tally())

    def note(self, text: str) -> None:
        """Say something about the data, before the counts."""
        self.notes.append(text)

    def leave_out(self, table: str, reason: str) -> None:
        """Count a row that is not written because the recipe cannot use it."""
        self.of(table).chosen[reason] += 1

    def refuse(self, table: str, reason: str) -> None:
        """Count a row that is not written because it is not what it should be."""
        self.of(table).left_out[reason] += 1

    def progress(self) -> None:
        """Show how many rows there are so far, now and then."""
        if self._progress.is_due:
            self._progress.show({table: tally.rows for table, tally in self.tallies.items()})

    def end_progress(self) -> None:
        """Remove the line of progress from a terminal."""
        self._progress.end()


class Tables:
    """Writes rows into tables, which get their names when all are complete."""

    def __init__(self, out: pathlib.Path, dataset: Dataset, media: MediaRoot, report: Report, args: argparse.Namespace):
        self.out = out
        self.dataset = dataset
        self.media = media
        self.report = report
        self.is_expanded: bool = args.row_per_reference
        self.is_grouped: bool = args.row_per_file
        self._groups = RowsPerFile()  # of train
        self._files: dict[str, TextIO] = {}
        self._ids: dict[str, set[int | str]] = {}

    def add(self, row: Row) -> None:
        """Write a row, unless it repeats an id, has no reference, or its file is missing: that is counted."""
        tally = self.report.of(row.table)
        ids = self._ids.setdefault(row.table, set())
        if row.id in ids:
            self.report.refuse(row.table, "with an id that an earlier row has")
            return
        ids.add(row.id)
        if self.dataset.references in row.values and not row.values[self.dataset.references]:
            self.report.refuse(row.table, "without a reference")
            return
        path = self.media.choose(row.media)
        if path is None:
            self.report.refuse(row.table, NO_FILE)
            if len(tally.absent) < NAMED:
                tally.absent.append(row.media[0])
            return
        for cells in self._expanded(row):
            if self.is_grouped and row.table == TRAIN:
                self._groups.add(path, cells)
            else:
                self._write(row.table, row.id, path, cells)
        tally.rows += 1
        tally.references += _count(row.values.get(self.dataset.references))
        tally.media.add(path)
        self.report.progress()

    def _expanded(self, row: Row) -> Iterator[dict[str, Any]]:
        column = self.dataset.references
        cell = row.values.get(column)
        if not self.is_expanded or row.table != TRAIN or not isinstance(cell, list | dict):
            yield row.values
            return
        for value in cell:
            yield {**row.values, column: {value: cell[value]} if isinstance(cell, dict) else value}

    def _write(self, table: str, id: int | str, path: str, cells: Mapping[str, Any]) -> None:
        line = {"id": id, self.dataset.column: path, **cells}
        self._file(table).write(json.dumps(line, ensure_ascii=False) + "\n")

    def _file(self, table: str) -> TextIO:
        if table not in self._files:
            self._files[table] = self._partial(table).open("w", encoding="utf-8", newline="\n")
        return self._files[table]

    def _partial(self, table: str) -> pathlib.Path:
        return self.out / f".{table}.jsonl.part"

    def finish(self) -> None:
        """Give the tables, and the candidate answers, their names.

        Raises:
            UserError: no table has rows.
        """
        for path, lists in self._groups:
            self._write(TRAIN, path, path, lists)
            self.report.of(TRAIN).grouped += 1
        if not self._files:
            reasons = "; ".join(_reasons(tally) for tally in self.report.tallies.values() if tally.left_out or tally.chosen)
            raise UserError(f"{self.dataset.name}: there is no row for any table" + (f": {reasons}" if reasons else ""))
        for file in self._files.values():
            file.close()
        if self.report.answers is not None:
            partial = self.out / f".{ANSWERS}.part"
            partial.write_text("".join(f"{answer}\n" for answer in self.report.answers), encoding="utf-8")
            partial.replace(self.out / ANSWERS)
        for table in self._files:
            self._partial(table).replace(self.out / f"{table}.jsonl")

    def discard(self) -> None:
        """Remove what is not complete."""
        for table, file in self._files.items():
            file.close()
            self._partial(table).unlink(missing_ok=True)


def _count(cell: Any) -> int:
    return 0 if cell is None else len(cell) if isinstance(cell, list | dict) else 1


def _reasons(tally: Tally) -> str:
    return ", ".join(f"{counted(count, 'row')} {reason}" for reason, count in (tally.left_out + tally.chosen).items())


# --- what differs -----------------------------------------------------------------------------------------------------


def agrees(count: int, paper: str) -> bool:
    """Whether a count is what a rounded number such as "113K" or "6.5K" may stand for, rounded either way."""
    whole, point, decimals = paper.removesuffix("K").partition(".")
    unit = 1000 // 10 ** len(decimals)
    return abs(count - int(whole + decimals) * unit) < unit


def differences(report: Report) -> list[str]:
    """What is not as published: rows and files that are missing, counts that are not the official ones."""
    found = []
    for table, tally in report.tallies.items():
        for reason, count in tally.left_out.items():
            names = f", such as {', '.join(tally.absent)}" if reason == NO_FILE else ""
            found.append(f"{table}: {counted(count, 'row')} {reason} left out{names}")
        size = report.sizes.get(table, Size())
        rows = tally.rows + tally.chosen.total()
        if size.rows is not None and rows != size.rows:
            found.append(f"{table}: {counted(rows, 'row')}, the data set has {size.rows:,}")
    absent = [table for table, size in report.sizes.items() if size.rows is not None and table not in report.tallies]
    return found + [f"{table}: not made, since its file is not there" for table in absent]


def of_the_paper(report: Report) -> list[str]:
    """Where table 15 of the paper has another number for files that are complete, and why, if that is known."""
    said = []
    for table, size in report.sizes.items():
        tally = report.tallies.get(table)
        if tally is None or not size.paper:
            continue
        every = tally.rows + tally.chosen.total()
        count = {"rows": every, "used": tally.rows, "media": len(tally.media), "references": tally.references}[size.of]
        if not agrees(count, size.paper):
            what = {"media": "file", "used": "row"}.get(size.of, size.of.removesuffix("s"))
            why = f" ({size.why})" if size.why else ""
            said.append(f"{table}: {counted(count, what)}, table 15 of the paper says {size.paper}{why}")
    return said


def summary(dataset: Dataset, report: Report, out: pathlib.Path) -> tuple[str, bool]:
    """What was written, in lines of which the last says whether it is complete; and whether it is."""
    lines = [f"{dataset.name}: {note}" for note in report.notes]
    width = max(map(len, report.tallies))
    for table, tally in report.tallies.items():
        chosen = "".join(f"; {count:,} {reason} left out" for reason, count in tally.chosen.items())
        media = f"{counted(len(tally.media), f'{dataset.column} file')}, {counted(tally.references, 'reference')}"
        lists = f" as lists of {counted(tally.grouped, 'row')}" if tally.grouped else ""
        lines.append(f"{table:{width}}  {tally.rows:>9,} {'row' if tally.rows == 1 else 'rows'}{lists}, {media}{chosen}")
    if report.answers is not None:
        lines.append(f"{ANSWERS}: {counted(len(report.answers), 'candidate answer')}")
    differ = differences(report)
    lines += [f"warning: {text}" for text in [*differ, *of_the_paper(report)]]
    tables = ", ".join(f"{table}.jsonl" for table, tally in report.tallies.items() if tally.rows)
    state = "complete" if not differ else f"not the complete data set ({counted(len(differ), 'difference')}, see above)"
    return "\n".join([*lines, f"{out}: wrote {tables}; {state}"]), not differ


# --- the command ------------------------------------------------------------------------------------------------------


def parser(dataset: Dataset) -> argparse.ArgumentParser:
    """The command's argument parser."""
    made = argparse.ArgumentParser(
        prog=f"build_{dataset.name}.py", description=dataset.about, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    made.add_argument("--source", required=True, metavar="DIR", help="folder with the data set's own files, which keep their names")
    made.add_argument("--out", required=True, metavar="DIR", type=pathlib.Path, help="folder for the tables")
    made.add_argument(
        "--media-root",
        metavar="DIR",
        help=f"folder of the {dataset.column} files, for --media-root in training, too; rows without a file are left out and counted"
        " (default: nobody looks whether files are there)",
    )
    made.add_argument(
        "--row-per-reference",
        action="store_true",
        help="train.jsonl: a row for each reference or answer, as in the published tables (default: one row, which draws one per epoch or"
        " takes the answer of the highest weight)",
    )
    made.add_argument(
        "--row-per-file",
        action="store_true",
        help=f"train.jsonl: a row for each {dataset.column} file, with lists of what is said of it, for --builder grouped, which decodes"
        " and embeds it once (a row that has several references stays one example: --row-per-reference makes them examples, too)",
    )
    made.add_argument("--force", action="store_true", help="replace tables that are there")
    if dataset.arguments is not None:
        dataset.arguments(made)
    return made


def build(dataset: Dataset, args: argparse.Namespace) -> tuple[str, bool]:
    """Build the tables; returns what was written, and whether it is complete.

    Raises:
        UserError: a file of the data set cannot be read, or the tables cannot be written; no table is.
    """
    sizes = dataset.sizes(args) if callable(dataset.sizes) else dataset.sizes
    source, media, report = Source(args.source), MediaRoot(args.media_root), Report(sizes)
    there = [args.out / name for name in (*(f"{table}.jsonl" for table in sizes), ANSWERS) if (args.out / name).exists()]
    if there and not args.force:
        raise UserError(f"--out {args.out}: {there[0].name} is there already (--force replaces it)")
    args.out.mkdir(parents=True, exist_ok=True)
    tables = Tables(args.out, dataset, media, report, args)
    try:
        for row in dataset.rows(source, args, report):
            tables.add(row)
        tables.finish()
    except BaseException:
        tables.discard()
        raise
    finally:
        report.end_progress()
    return summary(dataset, report, args.out)


def main(dataset: Dataset, argv: Sequence[str] | None = None) -> int:
    """Run the command; returns the exit code."""
    args = parser(dataset).parse_args(argv)
    try:
        text, is_complete = build(dataset, args)
    except (UserError, OSError) as error:
        sys.stderr.write(f"error: {error}\n")
        return FAILED
    sys.stdout.write(f"{text}\n")
    return DONE if is_complete else DIFFERS

