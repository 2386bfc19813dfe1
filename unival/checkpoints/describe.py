"""Describe a checkpoint by its container and weights alone: architecture, sizes, vocabulary, training, broken values."""

import json
import pathlib
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from unival.checkpoints import files
from unival.checkpoints.architecture import ARCHITECTURES, Architecture, option, options
from unival.checkpoints.summary import (
    OTHER_PARTS,
    Count,
    count_parts,
    group_of,
    group_patterns,
    non_finite,
    precisions,
    select,
    tied_keys,
    type_name,
)
from unival.errors import UserError, counted


def describe_checkpoint(
    path: str | pathlib.Path, container: Mapping[str, Any], state: Mapping[str, Tensor], architecture: Architecture
) -> dict[str, Any]:
    """Describe a checkpoint for JSON: file, architecture, sizes, parts, vocabulary, training and values that are not finite."""
    tied = tied_keys(state)
    parts = count_parts(state, tied)
    return {
        "file": str(path),
        "bytes": sum(file.stat().st_size for file in files_of(pathlib.Path(path))),
        "format": container_format(pathlib.Path(path)),
        "precision": precisions(state),
        "architecture": {"kind": architecture.kind, "is": ARCHITECTURES[architecture.kind], "name": architecture.name},
        "sizes": architecture.sizes,
        "media": architecture.media,
        "total": {
            "keys": len(state),
            "parameters": sum(count.parameters for count in parts.values()),
            "buffers": sum(count.buffers for count in parts.values()),
        },
        "groups": _counts(groups(parts, architecture)),
        "parts": _counts(parts),
        "tied": tied,
        "vocabulary": vocabulary(container, architecture),
        "training": training(container),
        "made_from": made_from(container),
        "non_finite": non_finite(state),
    }


def _counts(counts: Mapping[str, Count]) -> dict[str, dict[str, int]]:
    return {name: vars(count) for name, count in counts.items()}


def groups(parts: Mapping[str, Count], architecture: Architecture) -> dict[str, Count]:
    """Group the counts of parts under the headings of a table; the parts of a backbone stay as they are."""
    if architecture.kind in ("backbone", "other"):
        return dict(parts)
    sums: dict[str, Count] = {}
    for part, count in parts.items():
        group = sums.setdefault(group_of(part), Count())
        group.parameters += count.parameters
        group.buffers += count.buffers
        group.keys += count.keys
    return {name: sums[name] for name in (*group_patterns(), OTHER_PARTS) if name in sums}


def files_of(path: pathlib.Path) -> list[pathlib.Path]:
    """The files that a checkpoint consists of: one, or the shards of a Hugging Face folder (which was read before)."""
    if path.is_dir():
        names = [name for pair in zip(files.HF_INDICES, files.HF_FILES, strict=True) for name in pair]
        path = next(path / name for name in names if (path / name).is_file())
    if not path.name.endswith(".index.json"):
        return [path]
    shards = json.loads(path.read_text(encoding="utf-8"))["weight_map"].values()
    return [path.parent / name for name in sorted(set(shards))]


def container_format(path: pathlib.Path) -> str:
    """The format of a file, in words."""
    found = files_of(path)
    with found[0].open("rb") as file:
        head = file.read(16)
    is_zip = head.startswith(files.ZIP)
    name = "torch" if is_zip else "safetensors" if head[8:9] == b"{" else "torch (before 1.6)"
    return f"{name}, {counted(len(found), 'shard')}" if len(found) > 1 else name


def vocabulary(container: Mapping[str, Any], architecture: Architecture) -> dict[str, Any]:
    """The size and the origin of the vocabulary, as far as they are known."""
    state = container.get("task_state")
    state = state if isinstance(state, Mapping) else {}
    task = options(container, "task")
    kept = state.get("vocabulary_files")
    given = {**task, **state}
    codes = given.get("num_codes", given.get("code_dict_size"))
    answers = state.get("closed_set")
    return {
        "symbols": architecture.sizes.get("symbols"),
        "codes": codes,
        "bins": given.get("num_bins"),
        "kept": sorted(kept) if isinstance(kept, Mapping) else [],
        "fingerprint": state.get("vocabulary"),
        "closed_set": len(answers) if isinstance(answers, list) else 0,
    }


def kept_symbols(task_state: Any) -> int | None:
    """Number of tokens of the vocabulary in a checkpoint: four special ones, those of ``dict.txt``, the mask, codes, bins."""
    kept = task_state.get("vocabulary_files") if isinstance(task_state, Mapping) else None
    if not isinstance(kept, Mapping) or not isinstance(kept.get("dict.txt"), str) or "num_codes" not in task_state:
        return None
    return 5 + len(kept["dict.txt"].splitlines()) + int(task_state["num_codes"]) + int(task_state["num_bins"])


def training(container: Mapping[str, Any]) -> dict[str, Any]:
    """The progress of training, and what a resumed run would have; empty for files with weights only."""
    given = container.get("optimizer_history")
    history = [run for run in given if isinstance(run, Mapping)] if isinstance(given, list) else []
    extra = container.get("extra_state")
    if not history and not isinstance(extra, Mapping):
        return {}
    extra = extra if isinstance(extra, Mapping) else {}
    iterator = extra.get("train_iterator")
    iterator = iterator if isinstance(iterator, Mapping) else {}
    last = history[-1] if history else {}
    return {
        "updates": last.get("num_updates"),
        "epoch": iterator.get("epoch"),
        "batch": iterator.get("iterations_in_epoch"),
        "seconds": extra.get("previous_training_time"),
        "best": extra.get("best"),
        "score": extra.get("val_loss"),
        "metric": option(container, "checkpoint", "best_checkpoint_metric"),
        "criterion": last.get("criterion_name"),
        "optimizer": last.get("optimizer_name"),
        "optimizer_history": [
            {"updates": run.get("num_updates"), "criterion": run.get("criterion_name"), "optimizer": run.get("optimizer_name")}
            for run in history
        ],
        "optimizer_state": container.get("last_optimizer_state") is not None,
        "ema": bool(extra.get("ema")),
    }


def made_from(container: Mapping[str, Any]) -> dict[str, Any]:
    """How ``unival convert`` or ``unival merge`` made the checkpoint; empty if it was not made by them."""
    extra = container.get("extra_state")
    found = extra.get("converted_from") if isinstance(extra, Mapping) else None
    return dict(found) if isinstance(found, Mapping) else {}


def list_keys(state: Mapping[str, Tensor], pattern: str) -> list[dict[str, Any]]:
    """The keys that match a pattern, with shape and type.

    Raises:
        UserError: no key matches.
    """
    found = select(state, pattern)
    if not found:
        raise UserError(f"--keys {pattern!r}: no key is like that; the first is {next(iter(state))}")
    tied = tied_keys(state)
    return [
        {"key": key, "shape": list(state[key].shape), "dtype": type_name(state[key]), "tied": tied.get(key)} for key in found
    ]
