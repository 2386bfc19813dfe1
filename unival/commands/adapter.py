"""``unival adapter``: what a run with ``--peft`` or ``--trainable`` has trained, as a small file, and back to a whole checkpoint."""

import argparse
import pathlib
import sys

from unival.checkpoints import adapters, files
from unival.checkpoints.architecture import check_ours
from unival.checkpoints.names.published import TOKENS
from unival.checkpoints.namespace import unwrapped
from unival.errors import UserError, counted
from unival.models.build import build_model
from unival.models.trainable import choose_trainable, trained_keys
from unival.text import check_new

ACTIONS = {  # name -> inputs
    "extract": ("CHECKPOINT",),
    "stack": ("BASE", "ADAPTER"),
    "merge": ("BASE", "ADAPTER"),
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument(
        "action",
        choices=ACTIONS,
        help="extract the trained weights of CHECKPOINT; stack BASE and ADAPTER to a checkpoint; merge ADAPTER into the weights of BASE"
        " (not of --peft adapters and prefix, which no weights replace)",
    )
    parser.add_argument("inputs", nargs="+", metavar="FILE", help="CHECKPOINT, or BASE and ADAPTER")
    parser.add_argument("--out", required=True, metavar="FILE", help="file to write; the suffix .safetensors chooses that format")
    parser.add_argument("--ema", action="store_true", help="extract: take the moving average of the weights that CHECKPOINT keeps")
    parser.add_argument("--force", action="store_true", help="overwrite the file of --out")


def run(args: argparse.Namespace) -> int:
    """Write the file; returns the exit code."""
    expected, out = ACTIONS[args.action], pathlib.Path(args.out)
    if len(args.inputs) != len(expected):
        raise UserError(f"unival adapter {args.action} takes {' '.join(expected)}, got {counted(len(args.inputs), 'file')}")
    if args.ema and args.action != "extract":
        raise UserError(f"--ema is for extract, not for {args.action}")
    check_new(out, args.inputs, args.force)
    for name in args.inputs:
        files.check_sums(name)
    if args.action == "extract":
        container = _extracted(args.inputs[0], args.ema)
    else:
        base, adapter = (files.read(name) for name in args.inputs)
        container = adapters.stack(base, adapter, *args.inputs)
        if args.action == "merge":
            container = adapters.merge(container, args.inputs[1])
    files.write(out, container)
    values = sum(value.numel() for value in container["model"].values())
    found = f"{counted(len(container['model']), 'weight')}, {counted(values, 'value')}"
    sys.stdout.write(f"{out}: {found}, {out.stat().st_size / 1e6:.1f} MB\n")
    return 0


def _extracted(path: str, ema: bool) -> dict:
    container = files.read(path)
    state = files.weights(container, path)
    options = unwrapped((container.get("cfg") or {}).get("model"))
    check_ours(container, state, path)
    if not isinstance(options, dict) or TOKENS not in state:
        raise UserError(f"{path}: expected a checkpoint of `unival train` (fairseq-train --user-dir unival)")
    model = build_model(options, len(state[TOKENS]), device="meta")
    choose_trainable(model)
    values = {**state, **files.ema_weights(container, path)} if ema else state
    return adapters.extract(container, trained_keys(model), values, path)
