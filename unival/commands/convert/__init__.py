"""``unival convert``: convert other checkpoints to ours, and ours to the published format or to safetensors.

Every key of the input is reported: the summary counts keys that were renamed, reshaped, dropped and added, ``--verbose`` and ``--report``
list each one.  The result is compared key by key with the model that its configuration builds before anything is written.
"""

import argparse
import pathlib
import sys
from collections.abc import Mapping
from typing import Any

import torch

from unival.checkpoints import files
from unival.checkpoints.conversion import KeyReport
from unival.checkpoints.convert import SOURCES, check_source, fitted, new_container
from unival.checkpoints.names import published
from unival.checkpoints.precision import cast
from unival.checkpoints.summary import non_finite
from unival.commands.convert.source import OWN_BACKBONE_FILES, read_inputs, source_from_bart, source_from_unival
from unival.commands.convert.target import own_cfg, published_cfg_of, task_state
from unival.errors import UserError, counted, flag
from unival.modalities import with_media
from unival.models.build import build_model
from unival.models.published_buffers import published_buffers
from unival.models.unival import SIZES
from unival.text import check_writable, write_json

FP16, FP32 = torch.float16, torch.float32
BART_DEFAULTS: dict[str, Any] = {"modalities": ",".join(name for name, media in with_media().items() if media.always), "seed": 1}
BART_ONLY = ("arch", "modalities", "source_vocab", "seed", *OWN_BACKBONE_FILES.values())


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    add = parser.add_argument
    add("inputs", nargs="+", metavar="IN", help="the checkpoint; several files are the shards of one")
    add("output", metavar="OUT", help="file to write; the suffix .safetensors chooses that format")
    add("--from", dest="source", default="unival", choices=SOURCES, help="what IN is (default: %(default)s, published or ours)")
    add("--to", default="unival", choices=("unival", "published"), help="keys of OUT (default: %(default)s)")
    add("--ema", action="store_true", help="take the moving average of the weights that IN keeps")
    dtype = parser.add_mutually_exclusive_group()
    dtype.add_argument("--half", action="store_true", help="write float16")
    dtype.add_argument("--float", action="store_true", help="write float32")
    add("--without", default="", metavar="MEDIA", help="leave media out, e.g. audio,video")
    add("--drop-unexpected", action="store_true", help="leave out unknown keys instead of refusing them")
    add("--vocab-dir", metavar="DIR", help="put this vocabulary into OUT, so that it can be used without DIR")
    add("--num-codes", type=int, help="image codes in the vocabulary (default: those of IN, for BART 8192)")
    add("--num-bins", type=int, help="location bins in the vocabulary (default: those of IN, for BART 1000)")
    add("--arch", choices=sorted(SIZES), help="BART only: the model that OUT is (default: by BART's width)")
    add("--modalities", metavar="MEDIA", help=f"BART only: media that OUT takes (default: {BART_DEFAULTS['modalities']})")
    add("--source-vocab", metavar="DIR", help="BART only: its vocabulary, if --vocab-dir is another than the published one")
    add("--seed", type=int, help=f"BART only: of what is initialised (default: {BART_DEFAULTS['seed']})")
    for name, option in OWN_BACKBONE_FILES.items():
        add(flag(option), metavar="FILE", help=f"BART only: file with weights of the {name} CNN to start from")
    add("--report", metavar="FILE", help="write what became of every key as JSON")
    add("--verbose", action="store_true", help="print what became of every key")
    add("--force", action="store_true", help="overwrite OUT")


def run(args: argparse.Namespace) -> int:
    """Convert and write; returns the exit code."""
    output = pathlib.Path(args.output)
    if output.exists() and not args.force:
        raise UserError(f"{output} exists; --force overwrites it")
    if any(output.resolve() == pathlib.Path(name).resolve() for name in args.inputs):
        raise UserError(f"{output} is the input itself; give another file")
    check_arguments(args)
    container, state = read_inputs(args)
    check_source(args.source, container, state, args.inputs[0])
    source = source_from_bart(args, container, state) if "bart" in args.source else source_from_unival(args, container, state)
    source.task.update(source.task_state.get("media", {}))  # as training took them from the checkpoint that it started from
    source.task["instruction"] = source.task_state.get("instruction") or source.task["instruction"]
    report = source.conversion.report
    _note_what_stays(args, container, report)
    model = build_model(source.model, len(source.conversion.state[published.TOKENS]), device="meta")
    shapes = {key: value.shape for key, value in model.state_dict().items()}
    checked = fitted(source.conversion, shapes, args.inputs[0], args.drop_unexpected)
    if broken := non_finite(checked):
        report.note(f"infinite or not a number already in IN: values of {counted(len(broken), 'key')}, the first is {next(iter(broken))}")
    try:
        weights = cast(checked, FP16 if args.half else FP32 if args.float else None)
    except UserError as error:
        raise UserError(f"{args.inputs[0]}: {error}") from error
    source.task_state = task_state(args, source, len(weights[published.TOKENS]))
    if args.to == "published":
        back = published.to_published(weights, published_buffers(source.model))
        weights = cast(back.state, FP16 if args.half else None)
        report.then(back.report)
        cfg = published_cfg_of(source)
        if source.task_state:
            report.note("the published format has no vocabulary: give --vocab-dir where OUT is used")
    else:
        cfg = own_cfg(source.model, source.task)
        if not source.task_state.get("vocabulary_files"):
            report.note("OUT has no vocabulary: give --vocab-dir here, or where OUT is used")
    made_from = {"format": args.source, "files": [pathlib.Path(name).name for name in args.inputs], "ema": args.ema}
    kept = {} if args.to == "published" else source.task_state
    files.write(output, new_container(weights, cfg, kept, made_from, args.to == "published"))
    _tell(args, report)
    return 0


def check_arguments(args: argparse.Namespace) -> None:
    """Refuse options without effect and a report that cannot be written; set the defaults of BART's options.

    Raises:
        UserError: an option is refused; it is named.
    """
    if "bart" in args.source:
        vars(args).update({name: value for name, value in BART_DEFAULTS.items() if getattr(args, name) is None})
    else:
        given = next((name for name in BART_ONLY if getattr(args, name) is not None), None)
        if given is not None:
            raise UserError(f"{flag(given)} is for --from bart and --from hf-bart only, not for --from {args.source}")
    if args.report:
        path = pathlib.Path(args.report)
        if path.resolve() in {pathlib.Path(name).resolve() for name in (*args.inputs, args.output)}:
            raise UserError(f"--report {path} is the input or the output; give another file")
        check_writable("--report", path)


def _note_what_stays(args: argparse.Namespace, container: Mapping[str, Any], report: KeyReport) -> None:
    """Note what the input has besides weights and options and the output will lack."""
    extra = container.get("extra_state")
    if isinstance(extra, Mapping) and extra.get("ema") and not args.ema:
        report.note("left out: the moving average of the weights (--ema takes it instead of the weights)")
    if container.get("last_optimizer_state") is not None:
        report.note("left out: the optimizer's state and the history of the training")


def _tell(args: argparse.Namespace, report: KeyReport) -> None:
    if args.report:
        write_json(args.report, {"inputs": args.inputs, "output": args.output, **report.as_dict()})
    sys.stdout.write(f"{args.output}: {args.to}, from {args.source} {', '.join(args.inputs)}\n{report.text(args.verbose)}\n")
