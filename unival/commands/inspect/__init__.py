"""`unival inspect`: what a checkpoint holds, whether it fits its own options, and how two checkpoints differ."""

import argparse
import json
import math
import pathlib
import sys
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from unival.checkpoints import files
from unival.checkpoints.architecture import ARCHITECTURES, Architecture, identify, option, options
from unival.checkpoints.backbones import shapes_of
from unival.checkpoints.compare import compare
from unival.checkpoints.summary import (
    GROUPS,
    OTHERS,
    Count,
    count_parts,
    group_of,
    non_finite,
    precisions,
    select,
    tied_keys,
    type_name,
)
from unival.commands.inspect.text import difference_text, keys_text, summary_text
from unival.errors import UserError

SAME, DIFFERENT, FAILED = 0, 1, 2  # exit codes of --diff, those of the program diff


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of the command."""
    add = parser.add_argument
    add("file", nargs="?", metavar="FILE", help="a checkpoint: .pt, .pth, .bin, .safetensors, or a sharded folder")
    add("--diff", nargs=2, metavar=("A", "B"), help="compare two checkpoints; exit code 0: equal, 1: different, 2: error")
    add("--weights", action="store_true", help="with --diff: compare the weights only, not options and training state")
    add("--keys", nargs="?", const="*", metavar="GLOB", help="list the keys, or those like 'encoder.layers.0.*'")
    add("--json", action="store_true", help="write JSON instead of text")


def run(args: argparse.Namespace) -> int:
    """Write what there is to say to standard output; returns the exit code."""
    if (args.file is None) == (args.diff is None):
        raise UserError("give one checkpoint, or two with --diff A B")
    if args.diff is not None:
        return run_diff(args)
    container = files.read(args.file)
    files.check_sums(args.file)
    state = files.weights(container, args.file)
    found = summarise(args.file, container, state)
    if args.keys is not None:
        found["keys"] = list_keys(state, args.keys)
    if args.json:
        sys.stdout.write(to_json(found))
    else:
        sys.stdout.write(summary_text(found) if args.keys is None else keys_text(found["keys"]))
    return 0


def summarise(path: str | pathlib.Path, container: Mapping[str, Any], state: Mapping[str, Tensor]) -> dict[str, Any]:
    """Everything that `unival inspect` says about a checkpoint, ready for JSON."""
    architecture = identify(container, state)
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
        "task": task(container),
        "training": training(container),
        "fit": fit(container, state, architecture),
        "non_finite": non_finite(state),
    }


def _counts(counts: Mapping[str, Count]) -> dict[str, dict[str, int]]:
    return {name: vars(count) for name, count in counts.items()}


def groups(parts: Mapping[str, Count], architecture: Architecture) -> dict[str, Count]:
    """Parts summed up under the headings of a table; those of a plain network stay as they are."""
    if architecture.kind in ("backbone", "other"):
        return dict(parts)
    sums: dict[str, Count] = {}
    for part, count in parts.items():
        group = sums.setdefault(group_of(part), Count())
        group.parameters += count.parameters
        group.buffers += count.buffers
        group.keys += count.keys
    return {name: sums[name] for name in (*GROUPS, OTHERS) if name in sums}


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
    """How a file is packed."""
    found = files_of(path)
    with found[0].open("rb") as file:
        head = file.read(16)
    is_zip = head.startswith(b"PK\x03\x04")
    name = "torch" if is_zip else "safetensors" if head[8:9] == b"{" else "torch (before 1.6)"
    return f"{name}, {len(found)} shards" if len(found) > 1 else name


def vocabulary(container: Mapping[str, Any], architecture: Architecture) -> dict[str, Any]:
    """What is known of the symbols."""
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


def task(container: Mapping[str, Any]) -> dict[str, Any]:
    """What the model was trained to do: name of the task, instruction, metrics and generation options of validation; empty if unknown.

    Of a published checkpoint's task without a counterpart here only the name is known.
    """
    given = options(container, "task")
    if not given:
        return {}
    from unival.checkpoints.names.published import task_options
    from unival.tasks.presets import ANY, PRESETS
    from unival.tasks.restore import is_published_cfg

    ours = task_options(given) if is_published_cfg(given) else given
    preset = PRESETS.get(str(ours.get("_name")), ANY)
    metrics = ours.get("eval_metrics")
    return {
        "name": given.get("_name") or given.get("task"),
        "instruction": (container.get("task_state") or {}).get("instruction") or ours.get("instruction") or preset.instruction,
        "metrics": [name for name in metrics.split(",") if name] if isinstance(metrics, str) else list(preset.metrics),
        "generation": {**preset.generation, **_eval_args(ours.get("eval_args"))},
    }


def _eval_args(text: Any) -> dict[str, Any]:
    """``--eval-args``, as far as they can be read."""
    try:
        found = json.loads(text)
    except (TypeError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def training(container: Mapping[str, Any]) -> dict[str, Any]:
    """How far training went and what is there to go on with; empty for files that hold weights only."""
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


def fit(container: Mapping[str, Any], state: Mapping[str, Tensor], architecture: Architecture) -> dict[str, Any] | None:
    """Keys that differ from the model which the checkpoint's own options build; None where there are no such options.

    ``missing`` and ``unexpected`` are lists of keys, ``reshaped`` maps keys to (shape here, shape in the model); or only ``error``.
    """
    given = options(container, "model")
    if architecture.kind not in ("unival", "published", "ofa") or not given or "symbols" not in architecture.sizes:
        return None
    try:
        symbols = kept_symbols(container.get("task_state")) or architecture.sizes["symbols"]
        own, found = expected(given, dict(state), symbols, architecture.kind != "unival")
    except (UserError, TypeError, ValueError, KeyError, RuntimeError) as error:
        return {"error": (str(error).splitlines() or [type(error).__name__])[0]}
    return {
        "missing": [key for key in own if key not in found],
        "unexpected": [key for key in found if key not in own],
        "reshaped": {key: (list(found[key]), list(own[key])) for key in own if key in found and found[key] != own[key]},
    }


def expected(
    given: Mapping[str, Any], state: dict[str, Tensor], symbols: int, published: bool
) -> tuple[dict[str, tuple[int, ...]], dict[str, tuple[int, ...]]]:
    """Shapes by key of the model that the options build, and of ``state`` under that model's names."""
    from unival.checkpoints.names.published import model_options
    from unival.models.build import build_model

    model = build_model(model_options(given) if published else given, symbols, device="meta")
    model.upgrade_state_dict(state)
    return shapes_of(model.state_dict()), shapes_of(state)


def kept_symbols(task_state: Any) -> int | None:
    """How many symbols the vocabulary has that a checkpoint keeps: four specials, those of dict.txt, the mask, codes, bins."""
    kept = task_state.get("vocabulary_files") if isinstance(task_state, Mapping) else None
    if not isinstance(kept, Mapping) or not isinstance(kept.get("dict.txt"), str) or "num_codes" not in task_state:
        return None
    return 5 + len(kept["dict.txt"].splitlines()) + int(task_state["num_codes"]) + int(task_state["num_bins"])


def run_diff(args: argparse.Namespace) -> int:
    """Compare two checkpoints; the exit code says whether they are equal."""
    try:
        first, second = args.diff
        found = compare(first, second, weights_only=args.weights)
        sys.stdout.write(to_json(found) if args.json else difference_text(found, args.keys))
    except (UserError, OSError) as error:
        if args.traceback:
            raise
        sys.stderr.write(f"unival: error: {error}\n")
        return FAILED
    return SAME if found["equal"] else DIFFERENT


def list_keys(state: Mapping[str, Tensor], pattern: str) -> list[dict[str, Any]]:
    """Keys like a pattern with shape and type.

    Raises:
        UserError: there is none.
    """
    found = select(state, pattern)
    if not found:
        raise UserError(f"--keys {pattern!r}: none of the {len(state)} keys is like that; the first is {next(iter(state))}")
    tied = tied_keys(state)
    return [
        {"key": key, "shape": list(state[key].shape), "dtype": type_name(state[key]), "tied": tied.get(key)} for key in found
    ]


def to_json(value: Any) -> str:
    """JSON with a line's end; what JSON has no number for (NaN, infinity) becomes text."""
    return json.dumps(_jsonable(value), indent=2, ensure_ascii=False) + "\n"


def _jsonable(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _jsonable(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_jsonable(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    return value if value is None or isinstance(value, bool | int | float | str) else str(value)
