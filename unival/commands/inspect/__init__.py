"""``unival inspect``: describe a checkpoint, check it against its own options, or compare two checkpoints."""

import argparse
import json
import math
import sys
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from unival.checkpoints import files
from unival.checkpoints.architecture import Architecture, identify, options
from unival.checkpoints.backbones import shapes_of
from unival.checkpoints.compare import compare
from unival.checkpoints.describe import describe_checkpoint, kept_symbols, list_keys
from unival.commands.inspect.text import difference_text, keys_text, summary_text
from unival.errors import UserError

EXIT_SAME, EXIT_DIFFERENT, EXIT_FAILED = 0, 1, 2  # exit codes of --diff, those of the program diff


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    add = parser.add_argument
    add("file", nargs="?", metavar="FILE", help="a checkpoint: .pt, .pth, .bin, .safetensors, or a sharded folder")
    add("--diff", nargs=2, metavar=("A", "B"), help="compare two checkpoints; exit code 0: equal, 1: different, 2: error")
    add("--weights", action="store_true", help="with --diff: compare the weights only, not options and training state")
    add("--keys", nargs="?", const="*", metavar="GLOB", help="list the keys, or those that match a pattern such as 'encoder.layers.0.*'")
    add("--json", action="store_true", help="write JSON instead of text")


def run(args: argparse.Namespace) -> int:
    """Print the description or the comparison; returns the exit code."""
    if (args.file is None) == (args.diff is None):
        raise UserError("give one checkpoint, or two with --diff A B")
    if args.diff is not None:
        return run_diff(args)
    container = files.read(args.file)
    files.check_sums(args.file)
    state = files.weights(container, args.file)
    architecture = identify(container, state)
    found = describe_checkpoint(args.file, container, state, architecture)
    found.update(task=task(container), fit=fit(container, state, architecture))
    if args.keys is not None:
        found["keys"] = list_keys(state, args.keys)
    if args.json:
        sys.stdout.write(to_json(found))
    else:
        sys.stdout.write(summary_text(found) if args.keys is None else keys_text(found["keys"]))
    return 0


def task(container: Mapping[str, Any]) -> dict[str, Any]:
    """The task of a checkpoint: its name, instruction, metrics and generation options of validation; empty if unknown.

    For a published task without a counterpart here there is only the name.
    """
    given = options(container, "task")
    if not given:
        return {}
    from unival.checkpoints.names.published import task_options
    from unival.checkpoints.published_options import is_published_cfg
    from unival.tasks.presets import ANY, PRESETS
    from unival.tasks.resume import trained_instruction

    ours = task_options(given) if is_published_cfg(given) else given
    preset = PRESETS.get(str(ours.get("_name")), ANY)
    metrics = ours.get("eval_metrics")
    return {
        "name": given.get("_name") or given.get("task"),
        "instruction": trained_instruction(ours, container.get("task_state")),
        "metrics": [name for name in metrics.split(",") if name] if isinstance(metrics, str) else list(preset.metrics),
        "generation": {**preset.generation, **_eval_args(ours.get("eval_args"))},
    }


def _eval_args(text: Any) -> dict[str, Any]:
    """The generation options of ``--eval-args``; empty if they cannot be read."""
    try:
        found = json.loads(text)
    except (TypeError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def fit(container: Mapping[str, Any], state: Mapping[str, Tensor], architecture: Architecture) -> dict[str, Any] | None:
    """Compare keys and shapes with the model that the checkpoint's own options build; None if it has no such options.

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
    """Key -> shape of the model that the options build, and of ``state`` with that model's keys."""
    from unival.checkpoints.names.published import model_options
    from unival.models.build import build_model

    model = build_model(model_options(given) if published else given, symbols, device="meta")
    model.upgrade_state_dict(state)
    return shapes_of(model.state_dict()), shapes_of(state)


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
        return EXIT_FAILED
    return EXIT_SAME if found["equal"] else EXIT_DIFFERENT


def to_json(value: Any) -> str:
    """JSON text with a final newline; NaN and infinity, which JSON lacks, become strings."""
    return json.dumps(_jsonable(value), indent=2, ensure_ascii=False) + "\n"


def _jsonable(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _jsonable(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_jsonable(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    return value if value is None or isinstance(value, bool | int | float | str) else str(value)
