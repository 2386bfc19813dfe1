"""Which vocabulary a task takes: that of a folder, or the one that a checkpoint holds."""

import pathlib
import tempfile
from collections.abc import Mapping
from typing import Any

from fairseq import utils

from unival.checkpoints.files import read
from unival.errors import UserError
from unival.tasks.inputs import data_folder
from unival.vocab import Vocabulary


def find_vocabulary(cfg: Any) -> Vocabulary:
    """The vocabulary of ``--vocab-dir``, of the folder ``vocab`` beside the tables, or (to evaluate) of the checkpoint, in this order.

    Raises:
        UserError: there is none, or its files cannot be used.
    """
    folder = pathlib.Path(cfg.vocab_dir) if cfg.vocab_dir else data_folder(cfg.data) / "vocab"
    if cfg.vocab_dir or cfg.path is None or folder.is_dir():
        return Vocabulary.load(folder, cfg.num_codes, cfg.num_bins)
    path = utils.split_paths(cfg.path)[0]
    kept = kept_vocabulary(read(path).get("task_state") or {}, cfg)
    if kept is None:
        raise UserError(
            f"{path}: holds no vocabulary, and there is no folder {folder}: give --vocab-dir, the folder with encoder.json, vocab.bpe"
            " and dict.txt that it was trained with"
        )
    return kept


def kept_vocabulary(task_state: Mapping[str, Any], cfg: Any) -> Vocabulary | None:
    """The vocabulary in what a checkpoint keeps of its task; None in one without (published ones)."""
    files = task_state.get("vocabulary_files")
    if files is None:
        return None
    with tempfile.TemporaryDirectory() as folder:
        for name, text in files.items():
            (pathlib.Path(folder) / pathlib.Path(name).name).write_text(text, encoding="utf-8")
        return Vocabulary.load(folder, *kept_sizes(task_state, cfg))


def kept_sizes(task_state: Mapping[str, Any], cfg: Any) -> tuple[int, int]:
    """The numbers of image codes and location bins that a checkpoint was trained with, else those of the options."""
    return task_state.get("num_codes", cfg.num_codes), task_state.get("num_bins", cfg.num_bins)
