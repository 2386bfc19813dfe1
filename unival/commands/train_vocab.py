"""``unival train-vocab``: train a small byte-level BPE on columns of tables, so that a small run needs no download."""

from __future__ import annotations

import argparse
import pathlib
import sys
from collections.abc import Iterator

from unival.data.cells import cell_texts
from unival.data.table import Table, open_table
from unival.errors import UserError, counted, kind_of
from unival.vocab import train_vocabulary


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument("--table", required=True, action="append", metavar="FILE", help="TSV or JSONL; may be repeated")
    parser.add_argument("--column", required=True, action="append", metavar="NAME", help="text column; may be repeated")
    parser.add_argument("--selected-cols", metavar="N,N", help="TSV only: numbers of the columns that --column names")
    parser.add_argument(
        "--text", action="append", default=[], metavar="TEXT", help="further text, such as a prompt; may be repeated"
    )
    parser.add_argument("--size", type=int, default=400, help="BPE tokens with the 256 bytes (default: %(default)s)")
    parser.add_argument("--out", required=True, metavar="DIR", help="folder for encoder.json, vocab.bpe and dict.txt")


def run(args: argparse.Namespace) -> int:
    """Train and write a vocabulary; returns the exit code."""
    texts = [f" {text.strip()}" for text in args.text]
    for name in args.table:
        texts.extend(_column_texts(_open(name, args.column, args.selected_cols), args.column))
    train_vocabulary(texts, args.size, args.out)
    with (pathlib.Path(args.out) / "dict.txt").open(encoding="utf-8") as lines:
        tokens = sum(1 for _ in lines)
    sys.stdout.write(f"{args.out}: {counted(tokens, 'BPE token')} trained on {counted(len(texts), 'text')}\n")
    return 0


def _open(name: str, columns: list[str], selected_cols: str | None) -> Table:
    if selected_cols is not None:
        return open_table(name, columns, selected_cols)
    table = open_table(name)
    absent = next((column for column in columns if column not in table.columns), None)
    if absent is not None:
        raise UserError(f"{name}: there is no column {absent!r}; there are {', '.join(table.columns)}")
    return table


def _column_texts(table: Table, columns: list[str]) -> Iterator[str]:
    """The texts of columns as the model gets them: without outer spaces, with one space in front."""
    for i in range(len(table)):
        row = table[i]
        for column in columns:
            if column not in row:
                raise UserError(f"{table.where(i, column)}: no such column; the row has {', '.join(map(repr, row))}")
            values = row[column] if isinstance(row[column], list) else [row[column]]
            for value in values:
                if not isinstance(value, str):
                    raise UserError(f"{table.where(i, column)}: expected text, got {kind_of(value)}")
                cell_texts(value, table, i, column)  # raises an error about text that cannot be encoded
                yield f" {value.strip()}"
