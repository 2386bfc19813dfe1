"""The tables of a task."""

import os
import pathlib
from collections.abc import Sequence
from typing import Any

from unival.errors import UserError
from unival.instructions import Instruction
from unival.modalities import MODALITIES

SUFFIXES = (".jsonl", ".tsv")


def shard_of(cfg: Any, is_training: bool) -> tuple[int, int]:
    """The shard of every table to evaluate, as (index, number of shards) (``--shard-id``, ``--num-shards``); fairseq itself takes all rows.

    Raises:
        UserError: the shard does not exist, or this is training, whose processes share the rows already.
    """
    if is_training and cfg.num_shards != 1:
        raise UserError(f"--num-shards {cfg.num_shards} is for unival generate and validate: training shares its rows by itself")
    if not 0 <= cfg.shard_id < cfg.num_shards:
        raise UserError(f"--shard-id {cfg.shard_id} of --num-shards {cfg.num_shards}: shards are 0 to --num-shards - 1")
    return cfg.shard_id, cfg.num_shards


def media_of_instructions(instructions: Sequence[Instruction]) -> set[str]:
    """Names, in lower case, of the media in the sources of an instruction's alternatives, as a set."""
    slots = [slot for instruction in instructions for slot in instruction.source]
    return {MODALITIES[slot.modality].key for slot in slots if MODALITIES[slot.modality].media}


def listed(data: str) -> list[str]:
    """Split ``data`` into paths: an existing path, even with commas in its name, or a list separated by commas."""
    return [data] if os.path.exists(data) else data.split(",")


def train_tables(data: str) -> list[str]:
    """The training tables of a list, which epochs use in turn: all but the last, which is for validation; a single path is for both."""
    paths = listed(data)
    return paths[:-1] if len(paths) > 1 else paths


def data_folder(data: str) -> pathlib.Path:
    """The folder of the tables of ``data``.

    Raises:
        UserError: it does not exist.
    """
    path = pathlib.Path(listed(data)[0])
    if not path.exists():
        raise UserError(f"{path}: no such table or folder")
    return path if path.is_dir() else path.parent


def find_table(data: str, split: str, train: bool, epoch: int = 1) -> pathlib.Path:
    """Find the table of a split.

    Args:
        data: a folder, a table or a list of tables.
        split: name of the split.
        train: whether it is the split to train on: of ``TRAIN1,TRAIN2,…,VALID`` the first in the first epoch, and so on in turn.
        epoch: number of the epoch, from 1.

    Raises:
        UserError: the table is missing or ambiguous.
    """
    data_folder(data)  # raises an error if it does not exist
    parts = listed(data)
    if len(parts) == 1 and os.path.isdir(data):
        folder = pathlib.Path(data)
        found = [folder / f"{split}{suffix}" for suffix in SUFFIXES if (folder / f"{split}{suffix}").is_file()]
        if len(found) == 1:
            return found[0]
        there = sorted(p.name for p in folder.iterdir() if p.suffix in SUFFIXES)
        reason = (
            f"both {found[0].name} and {found[1].name} are there"
            if found
            else f"neither {split}.jsonl nor {split}.tsv is there"
        )
        raise UserError(
            f"{folder}: no table for split {split!r}: {reason}; tables in the folder: {', '.join(there) or 'none'}"
        )
    if "" in parts:
        raise UserError(f"data {data!r}: an empty name; give a folder, one table, or TRAIN,VALID, or TRAIN1,TRAIN2,…,VALID")
    tables = train_tables(data)
    path = pathlib.Path(tables[(epoch - 1) % len(tables)] if train else parts[-1])
    if path.is_dir():
        raise UserError(f"{path}: is a folder, and a list as data holds tables (split {split!r})")
    if not path.is_file():
        raise UserError(f"{path}: no such table or folder (split {split!r})")
    return path


def find_tables(data: str, splits: Sequence[str], train_subset: str) -> list[pathlib.Path]:
    """Find the tables of several splits, before the first of them is read.

    Raises:
        UserError: see :func:`find_table`.
    """
    return [find_table(data, split, split == train_subset) for split in splits]


def find_train_tables(data: str, split: str) -> list[pathlib.Path]:
    """Find the training tables, which epochs use in turn.

    Raises:
        UserError: see :func:`find_table`.
    """
    return [find_table(data, split, True, epoch) for epoch in range(1, len(train_tables(data)) + 1)]


def used_splits(cfg: Any) -> list[str]:
    """The splits of a training run: that of training first, then those of validation."""
    return [cfg.train_subset, *([] if cfg.disable_validation else cfg.valid_subset.split(","))]


SECOND_NAME = "to validate on the rows of training, give the table a second name (a copy of it or a link to it)"


def _check_other_names(train: Sequence[pathlib.Path], valid: Sequence[pathlib.Path]) -> None:
    """Refuse a table for both training and validation; where that is wanted, the table can have a second name."""
    trained = {os.path.abspath(path) for path in train}
    same = next((path for path in valid if os.path.abspath(path) in trained), None)
    if same is not None:
        raise UserError(
            f"{same} would be the table for training and for validation: give another one for validation (TRAIN,VALID as data), or"
            f" --disable-validation; {SECOND_NAME}"
        )


def check_splits(cfg: Any) -> None:
    """Check the tables of a training run before they are read.

    Where data are not a folder, fairseq's search for unused validation tables is switched off.

    Raises:
        UserError: a table is missing, or the splits are not possible with these data.
    """
    train, *valid = used_splits(cfg)
    if cfg.combine_valid_subsets and valid:
        raise UserError("--combine-valid-subsets: tables are not joined; name them one by one, e.g. --valid-subset valid,valid1")
    doubled = next((split for split in valid if valid.count(split) > 1), None)
    if doubled is not None or not all(valid):
        raise UserError(f"--valid-subset {cfg.valid_subset!r}: {'an empty name' if doubled is None else f'{doubled!r} is named twice'}")
    if train in valid:
        raise UserError(
            f"--train-subset and --valid-subset both name {train!r}, which can be read for one of them only: {SECOND_NAME}"
        )
    if len(valid) > 1 and not os.path.isdir(cfg.data):
        raise UserError(f"--valid-subset {cfg.valid_subset}: {cfg.data} is one table for all of them; give a folder as data")
    _check_other_names(find_train_tables(cfg.data, train), find_tables(cfg.data, valid, train))
    run = cfg._get_root()
    if not os.path.isdir(cfg.data) and "dataset" in run:
        run.dataset.ignore_unused_valid_subsets = True
