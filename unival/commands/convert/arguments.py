"""What `unival convert` is asked for, checked before anything is converted."""

import argparse
import pathlib
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from unival.checkpoints.architecture import ARCHITECTURES, identify
from unival.errors import UserError

MEDIA = ("image", "video", "audio")
OWN_BACKBONE_FILES = tuple(f"{name}_backbone_weights" for name in MEDIA)
BART_DEFAULTS: dict[str, Any] = {"modalities": "image", "seed": 1}
BART_ONLY = ("arch", "modalities", "source_vocab", "seed", *OWN_BACKBONE_FILES)
TAKEN_AS = {"published": ("unival", "ofa"), "ofa": ("ofa", "unival")}  # kind of checkpoint -> --from, if not the kind's own name


def check_arguments(args: argparse.Namespace) -> None:
    """Refuse options that would do nothing, and a report that could not be written; give BART's their defaults.

    Raises:
        UserError: names the option.
    """
    if "bart" in args.source:
        vars(args).update({name: value for name, value in BART_DEFAULTS.items() if getattr(args, name) is None})
    else:
        given = next((name for name in BART_ONLY if getattr(args, name) is not None), None)
        if given is not None:
            raise UserError(f"--{given.replace('_', '-')} is for --from bart and --from hf-bart only, not for --from {args.source}")
    if args.report:
        path = pathlib.Path(args.report)
        if path.resolve() in {pathlib.Path(name).resolve() for name in (*args.inputs, args.output)}:
            raise UserError(f"--report {path} is the input or the output; give another file")
        existed = path.exists()
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.open("a").close()
        except OSError as error:
            raise UserError(f"--report {path} cannot be written: {error.strerror or error}") from error
        if not existed:
            path.unlink()


def check_kind(args: argparse.Namespace, container: Mapping[str, Any], state: Mapping[str, Tensor]) -> None:
    """Name the right ``--from`` where another was given.

    Raises:
        UserError: the checkpoint is recognised, and of another kind.
    """
    kind = identify(container, state).kind
    if kind == "backbone":
        raise UserError(f"{args.inputs[0]}: looks like a backbone's weights: give it to training as --image-backbone-weights or the like")
    names = TAKEN_AS.get(kind, (kind,))
    if kind != "other" and args.source not in names:
        raise UserError(f"{args.inputs[0]}: looks like {ARCHITECTURES[kind]}, not {ARCHITECTURES[args.source]}: give --from {names[0]}")
