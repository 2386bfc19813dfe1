"""The frame of the readers: writes their rows into tables, leaves out the images of benchmarks, and says what was counted."""

import json
import os
import pathlib
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TextIO

from common.files import Source
from common.media import MediaRoot
from common.progress import Progress

from unival.errors import UserError, counted

from . import mixture
from .held_out import BENCHMARKS, HeldOut
from .rows import Context, Reader, Row

ENCODER = json.JSONEncoder(ensure_ascii=False)
NAMED = 3  # files that are named among those that are missing
NO_FILE = "without a file"
EMPTY = {  # column -> why a row is left out where it is empty
    "caption": "without a caption",
    "question": "without a question",
    "answer": "without an answer",
    "text": "without a text",
    "box": "with a box without area",
}


@dataclass
class Tally:
    """What was counted of a table.

    Attributes:
        read: rows of the data set.
        kept: rows that were written.
        leaks: rows about images that are held out; ``by_benchmark`` counts a row for each benchmark that has its image.
        left_out: reason -> rows.
        absent: the first files that are missing.
    """

    read: int = 0
    kept: int = 0
    leaks: int = 0
    by_benchmark: Counter[str] = field(default_factory=Counter)
    left_out: Counter[str] = field(default_factory=Counter)
    absent: list[str] = field(default_factory=list)


class Tables:
    """Writes rows into tables, which get their names when all are complete. No row is held in memory."""

    def __init__(self, out: pathlib.Path, held_out: HeldOut, media: MediaRoot):
        self.out = out
        self.held_out = held_out
        self.media = media
        self.tallies: dict[str, Tally] = {}
        self._files: dict[str, TextIO] = {}
        self._progress = Progress()

    def open(self, table: str) -> None:
        """Begin a table."""
        self.tallies[table] = Tally()
        self._files[table] = self._partial(table).open("w", encoding="utf-8", newline="\n")

    def add(self, row: Row, column: str, dataset: str) -> None:
        """Write a row, unless its image is held out, something of it is empty, or its file is missing: that is counted."""
        tally = self.tallies[row.table]
        tally.read += 1
        if self._progress.is_due:
            self._progress.show({name: each.kept for name, each in self.tallies.items()})
        benchmarks = self.held_out.of(row.coco, row.flickr)
        if benchmarks:
            tally.leaks += 1
            tally.by_benchmark.update(benchmarks)
            return
        reason = next((said for key, said in EMPTY.items() if key in row.values and not row.values[key]), None)
        if reason is not None:
            tally.left_out[reason] += 1
            return
        path = self._file_of(row)
        if path is None:
            tally.left_out[NO_FILE] += 1
            if len(tally.absent) < NAMED:
                tally.absent.append(row.media[0])
            return
        line = {"id": f"{dataset}-{row.id}", column: path, **row.values, "dataset": dataset}
        self._files[row.table].write(ENCODER.encode(line) + "\n")
        tally.kept += 1

    def _file_of(self, row: Row) -> str | None:
        if row.content is None or self.media.folder is None:
            return self.media.choose(row.media)
        path = pathlib.Path(self.media.folder, row.media[0])
        if not path.is_file() or path.stat().st_size != len(row.content):
            path.parent.mkdir(parents=True, exist_ok=True)
            partial = path.with_name(f".{path.name}.part")
            partial.write_bytes(row.content)
            os.replace(partial, path)
        return row.media[0]

    def _partial(self, table: str) -> pathlib.Path:
        return self.out / f".{table}.jsonl.part"

    def finish(self) -> None:
        """Give the tables that have rows their names.

        Raises:
            UserError: no table has rows.
        """
        for file in self._files.values():
            file.close()
        full = [table for table, tally in self.tallies.items() if tally.kept]
        if not full:
            said = "; ".join(f"{table}: {counts(tally)}" for table, tally in self.tallies.items())
            raise UserError(f"there is no row for any table: {said}")
        for table in self.tallies:
            if table in full:
                self._partial(table).replace(self.out / f"{table}.jsonl")
            else:
                (self.out / f"{table}.jsonl").unlink(missing_ok=True)

    def discard(self) -> None:
        """Remove what is not complete, and the line of progress."""
        self._progress.end()
        for table, file in self._files.items():
            file.close()
            self._partial(table).unlink(missing_ok=True)


def counts(tally: Tally) -> str:
    """What became of the rows of a table."""
    said = [f"{counted(tally.read, 'row')} read, {tally.kept:,} kept"]
    if tally.leaks:
        each = ", ".join(f"{name} {tally.by_benchmark[name]:,}" for name in BENCHMARKS if tally.by_benchmark[name])
        said.append(f"{tally.leaks:,} about images of benchmarks left out ({each})")
    said += [f"{count:,} {reason} left out" for reason, count in tally.left_out.items()]
    return "; ".join(said)


@dataclass
class Run:
    """What to build.

    Attributes:
        sources: the folders of the data sets, by their names.
        held_out: the folders of the benchmarks' own files.
        out: the folder for the tables.
        media_root: the folder of the media; None: nobody looks whether files are there.
        force: whether files that are there are replaced.
    """

    sources: Mapping[str, Source]
    held_out: Mapping[str, Source]
    out: pathlib.Path
    media_root: pathlib.Path | None
    force: bool


def build(readers: Mapping[str, Reader], run: Run) -> tuple[str, bool]:
    """Build the tables; returns what was written, in lines, and whether nothing is missing.

    Raises:
        UserError: a file of a data set cannot be read, or the tables cannot be written; none is.
    """
    chosen = {name: readers[name] for name in readers if name in run.sources}
    there = [f"{table}.jsonl" for reader in chosen.values() for table in reader.tables if (run.out / f"{table}.jsonl").exists()]
    if there and not run.force:
        raise UserError(f"--out {run.out}: {there[0]} is there already (--force replaces it)")
    media = MediaRoot(None if run.media_root is None else str(run.media_root))
    held_out = HeldOut(run.held_out, run.sources.get("coco", run.held_out.get("coco")))
    run.out.mkdir(parents=True, exist_ok=True)
    notes: list[str] = []
    tables = Tables(run.out, held_out, media)
    try:
        for name, reader in chosen.items():
            for table in reader.tables:
                tables.open(table)
            context = Context(name, run.sources[name], run.sources, held_out, run.media_root, notes.append)
            for row in reader.rows(context):
                tables.add(row, reader.column, name)
        tables.finish()
    finally:
        tables.discard()
    return _summary(readers, run, tables, notes)


def _summary(readers: Mapping[str, Reader], run: Run, tables: Tables, notes: list[str]) -> tuple[str, bool]:
    known = {name: table for reader in readers.values() for name, table in reader.tables.items()}
    width = max(map(len, tables.tallies))
    lines = [*notes, *(f"{table:{width}}  {counts(tally)}" for table, tally in tables.tallies.items())]
    warnings = [text for name, tally in tables.tallies.items() for text in _differences(name, tally, known[name].rows)]
    is_checked = any(readers[name].is_checked for name in run.sources)
    absent = [name for name in BENCHMARKS if name not in tables.held_out]
    if is_checked and absent:
        text = f"images of {', '.join(absent)} for validation and test were not looked for (--held-out NAME=FOLDER)"
        warnings += [] if tables.held_out.names else [text]
        lines += [text] if tables.held_out.names else []
    there = {name: table.stream for name, table in known.items() if (run.out / f"{name}.jsonl").is_file()}
    file = run.out / mixture.NAME
    if file.exists() and not run.force:
        lines.append(f"{file}: is there already and stays as it is (--force replaces it)")
    else:
        file.write_text(mixture.text_of(there, run.media_root, run.out, tables.held_out.names), encoding="utf-8", newline="\n")
    written = ", ".join(f"{table}.jsonl" for table, tally in tables.tallies.items() if tally.kept)
    state = f"{counted(len(warnings), 'difference')}, see above" if warnings else "complete"
    lines += [f"warning: {text}" for text in warnings]
    return "\n".join([*lines, f"{run.out}: wrote {written}; {state}"]), not warnings


def _differences(table: str, tally: Tally, rows: int | None) -> list[str]:
    said = []
    if tally.left_out[NO_FILE]:
        said.append(f"{table}: {counted(tally.left_out[NO_FILE], 'row')} {NO_FILE}, such as {', '.join(tally.absent)}")
    if rows is not None and tally.read not in (0, rows):
        said.append(f"{table}: read {counted(tally.read, 'row')}, the data set has {rows:,}")
    if not tally.kept:
        said.append(f"{table}: not made, there is no row for it")
    return said
