"""``unival merge``: merge checkpoints to one: interpolation, soups, task vectors, and what came after."""

import argparse
import pathlib
import sys
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from unival.checkpoints import files
from unival.checkpoints.merging.inputs import Inputs, fitting_inputs, read_checkpoint, with_our_keys
from unival.checkpoints.merging.merge import Coefficients, merged
from unival.checkpoints.merging.methods import make_rule, method_named
from unival.checkpoints.merging.points import check_method, points_of
from unival.checkpoints.merging.record import file_record, merged_container, record
from unival.checkpoints.merging.statistics import read_statistics
from unival.checkpoints.precision import cast
from unival.commands.merge.data import Recalibration, add_data_arguments, check_data_arguments, learn_coefficients
from unival.commands.merge.select import add_select_arguments, check_select_arguments, least_selected, select
from unival.console.merging import add_method, add_models, given_options
from unival.errors import UserError, counted, flag
from unival.text import check_new


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    add_models(parser)
    add_method(parser)
    add = parser.add_argument
    what = "file to write, with {} for the value of --sweep; the suffix .safetensors chooses that format"
    add("--out", required=True, metavar="FILE", help=what)
    add("--lambda", dest="share", type=float, metavar="X", help="two models: the second's coefficient, the first one's is 1 - X")
    what = "write a file for each of these values of --lambda, or of --scale with task vectors; of three or more models all coefficients"
    add("--sweep", metavar="X,X,…", help=f"{what} among these with the sum 1; also FROM:TO:STEP")
    add("--config-from", metavar="MODEL", help="the model whose options, task and instruction OUT has (default: the first)")
    dtype = parser.add_mutually_exclusive_group()
    dtype.add_argument("--half", action="store_true", help="write float16")
    dtype.add_argument("--float", action="store_true", help="write float32")
    add("--force", action="store_true", help="overwrite the file of --out")
    add("--check", action="store_true", help="check the arguments alone, of models that may not be there yet; merge nothing")
    add_data_arguments(parser)
    add_select_arguments(parser)


def run(args: argparse.Namespace) -> int:
    """Merge and write; returns the exit code."""
    method = method_named(args.method)
    check_select_arguments(args)
    points = points_of(args.method, len(args.models), given_options(args), args.coefficients, args.share, args.sweep)
    check_method(args.method, least_selected(args), args.base, args.missing, args.statistics, args.tables)
    check_data_arguments(args)
    check_files(args, [pathlib.Path(args.out.replace("{}", point.name)) for point in points])
    if args.check:
        check_given(args)
        return 0
    paths, selection = args.models, {}
    if args.select is not None:
        selected = select(args)
        paths, selection = selected.models, {"selected": selected.about}
        points = points_of(args.method, len(paths), given_options(args))
        sys.stdout.writelines(f"{line}\n" for line in selected.lines)
    models = [read_checkpoint(path, args.weights) for path in paths]
    base = None if args.base is None else read_checkpoint(args.base)
    if args.statistics is not None:
        for model in (*models, *([base] if base else [])):
            with_our_keys(model)  # as files of statistics have them
    inputs = fitting_inputs(models, base, args.missing, args.allow_unrelated)
    first = args.config_from or args.models[0]
    like = next((model for model in models if model.name == first), None) or read_checkpoint(first, args.weights)
    made_from = record(paths, args.base, args.method, weights=args.weights, missing=args.missing, **selection)
    statistics = None
    if args.statistics is not None:
        assert method.statistics is not None, "checked by check_method"
        files_of_statistics = args.statistics.split(",")
        hashes = [file["sha256"] for file in made_from["files"]]
        statistics = read_statistics(files_of_statistics, method.statistics, hashes, args.weights, inputs)
        made_from["statistics"] = [file_record(path) for path in files_of_statistics]
    recalibration = None if args.recalibrate is None else Recalibration(args, inputs, like)
    state: dict[str, Tensor] | None = None
    for point in points:
        rule, options = make_rule(args.method, point.options)
        coefficients: Coefficients = point.coefficients
        if method.tables:
            coefficients, made_from["learnt"] = learn_coefficients(args, inputs, like, rule)
        state = merged(inputs, rule, coefficients, method.whole, method.shares, into=state, statistics=statistics)
        out = pathlib.Path(args.out.replace("{}", point.name))
        used = point.coefficients if method.weighed else None
        made, done = {**made_from, "options": options, "coefficients": used}, ""
        if recalibration is not None:
            done = recalibration(merged_container(state, like, made), state, str(out))
            made = {**made, "recalibrated": recalibration.about}
        kept = cast(state, torch.float16 if args.half else torch.float32 if args.float else None)
        files.write(out, merged_container(kept, like, made))
        sys.stdout.write(summary(out, inputs, args.method, options, used) + done)
    return 0


def check_files(args: argparse.Namespace, outputs: Sequence[pathlib.Path]) -> None:
    """Check the files that are written.

    Raises:
        UserError: a file would be overwritten, or several have one name; the options are to be those of another model.
    """
    lists = (args.base, args.statistics, args.tables, args.recalibrate, args.valid)
    inputs = [*args.models, *(name for given in lists if given for name in given.split(","))]
    for out in outputs:
        check_new(out, inputs, args.force)
    if len(set(outputs)) != len(outputs):
        raise UserError(f"--out {args.out}: must have {{}} in its name, where the value of --sweep goes")
    if args.config_from is not None and args.config_from not in args.models:
        raise UserError(f"--config-from {args.config_from}: must be one of the models, {', '.join(args.models)}")


def check_given(args: argparse.Namespace) -> None:
    """Check that what is given beside the models exists.

    Raises:
        UserError: a file does not.
    """
    several = {name: (getattr(args, name) or "").split(",") for name in ("statistics", "recalibrate", "tables")}
    for name, paths in {"base": [args.base], "valid": [args.valid], **several}.items():
        for path in filter(None, paths):
            if not pathlib.Path(path).exists():
                raise UserError(f"{flag(name)} {path}: no such file")


def summary(out: pathlib.Path, inputs: Inputs, method: str, options: Mapping[str, Any], coefficients: Sequence[float] | None) -> str:
    """What was written, and of what it was made."""
    weighed = [f"{c:g} " for c in coefficients] if coefficients else [""] * len(inputs.models)
    named = [f"{c}{model.name}" for c, model in zip(weighed, inputs.models, strict=True)]
    about = "".join(f", {name} {value}" for name, value in options.items())
    base = f", base {inputs.base.name}" if inputs.base else ""
    return f"{out}: {method}{about} of {', '.join(named)}{base}; {counted(len(inputs.keys), 'key')}, {out.stat().st_size / 1e6:.1f} MB\n"
