"""``unival merge``: merge checkpoints to one: interpolation, soups, task vectors, and what came after."""

import argparse
import math
import pathlib
import sys
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from unival.checkpoints import files
from unival.checkpoints.merging.inputs import MISSING, Checkpoint, Inputs, fitting_inputs
from unival.checkpoints.merging.merge import merged
from unival.checkpoints.merging.methods import HELP, METHODS, Method, make_rule, method_named
from unival.checkpoints.merging.record import merged_container, record
from unival.checkpoints.precision import cast
from unival.errors import UserError, counted, flag


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    add = parser.add_argument
    add("models", nargs="+", metavar="MODEL", help="the checkpoints to merge")
    what = "file to write, with {} for the value of --sweep; the suffix .safetensors chooses that format"
    add("--out", required=True, metavar="FILE", help=what)
    methods = "; ".join(f"{name}: {method.about}" for name, method in METHODS.items())
    add("--method", default="linear", metavar="NAME", help=f"{methods} (default: %(default)s)")
    add("--base", metavar="FILE", help="the pretrained model that the models come from, which methods with task vectors need")
    add("--coefficients", metavar="C,C,…", help="a number per model (default: equal shares; with task vectors 1 each)")
    add("--lambda", dest="share", type=float, metavar="X", help="two models: the second's coefficient, the first one's is 1 - X")
    what = "write a file for each of these values of --lambda, or of --scale with task vectors; also FROM:TO:STEP"
    add("--sweep", metavar="X,X,…", help=what)
    add("--weights", choices=("model", "ema"), default="model", help="the models' weights, or their moving averages (default: %(default)s)")
    add("--missing", choices=MISSING, default="error", help="keys that a model lacks: an error, the base's, or those of the others alone")
    add("--config-from", metavar="MODEL", help="the model whose options, task and instruction OUT has (default: the first)")
    add("--allow-unrelated", action="store_true", help="merge models that do not come from one pretraining, too")
    dtype = parser.add_mutually_exclusive_group()
    dtype.add_argument("--half", action="store_true", help="write float16")
    dtype.add_argument("--float", action="store_true", help="write float32")
    add("--force", action="store_true", help="overwrite the file of --out")
    for name, defaults in method_options().items():
        values = ", ".join(f"{method} {default}" for method, default in defaults.items())
        kind = type(next(iter(defaults.values())))
        how: dict[str, Any] = {"action": "store_true", "default": None} if kind is bool else {"type": kind, "metavar": "X"}
        add(flag(name), help=f"{HELP[name]} (default: {values})", **how)


def method_options() -> dict[str, dict[str, Any]]:
    """The methods' options: name -> method -> default."""
    found: dict[str, dict[str, Any]] = {}
    for name, method in METHODS.items():
        for option, default in method.options().items():
            found.setdefault(option, {})[name] = default
    return found


def run(args: argparse.Namespace) -> int:
    """Merge and write; returns the exit code."""
    method = method_named(args.method)
    points = list(points_of(args, method))
    check_files(args, method, [pathlib.Path(args.out.replace("{}", name)) for name, _, _ in points])
    models = [read(path, args.weights) for path in args.models]
    base = None if args.base is None else read(args.base, "model")
    inputs = fitting_inputs(models, base, args.missing, args.allow_unrelated)
    like = next((model for model in models if model.name == args.config_from), models[0])
    made_from = record(args.models, args.base, args.method, weights=args.weights, missing=args.missing)
    state: dict[str, Tensor] | None = None
    for name, coefficients, given in points:
        rule, options = make_rule(args.method, given)
        state = merged(inputs, rule, coefficients, method.whole, method.shares, into=state)
        kept = cast(state, torch.float16 if args.half else torch.float32 if args.float else None)
        out = pathlib.Path(args.out.replace("{}", name))
        used = coefficients if method.weighed else None
        files.write(out, merged_container(kept, like, {**made_from, "options": options, "coefficients": used}))
        sys.stdout.write(summary(out, inputs, args.method, options, used))
    return 0


def read(path: str, weights: str) -> Checkpoint:
    """Read a checkpoint, mapped, and compare it with its checksums.

    Raises:
        UserError: it cannot be read, is damaged, or has no moving average that is asked for.
    """
    container = files.read(path)
    files.check_sums(path)
    state = files.weights(container, path)
    return Checkpoint(path, container, {**state, **files.ema_weights(container, path)} if weights == "ema" else state)


def check_files(args: argparse.Namespace, method: Method, outputs: Sequence[pathlib.Path]) -> None:
    """Check the files and their number against the method.

    Raises:
        UserError: a file would be overwritten, the base is missing or not needed, or the method takes other numbers of models.
    """
    inputs = [*args.models, *([args.base] if args.base else [])]
    for out in outputs:
        if any(out.resolve() == pathlib.Path(name).resolve() for name in inputs):
            raise UserError(f"--out {out} is an input itself; give another file")
        if out.exists() and not args.force:
            raise UserError(f"--out {out} exists; --force overwrites it")
    if len(set(outputs)) != len(outputs):
        raise UserError(f"--out {args.out}: must have {{}} in its name, where the value of --sweep goes")
    count = len(args.models)
    if count < method.least or (method.most is not None and count > method.most):
        takes = f"{method.least} models" if method.least == method.most else f"at least {method.least} models"
        raise UserError(f"--method {args.method} takes {takes}, got {count}")
    if method.statistics:
        raise UserError(f"--method {args.method} needs statistics of data, which only unival.checkpoints.merging.merge.merged takes")
    if method.base and args.base is None:
        raise UserError(f"--method {args.method} needs the pretrained model that the models come from: give --base")
    if args.base is not None and not method.base and args.missing != "base":
        raise UserError(f"--base is not used by --method {args.method}; leave it out")
    if args.config_from is not None and args.config_from not in args.models:
        raise UserError(f"--config-from {args.config_from}: must be one of the models, {', '.join(args.models)}")


def points_of(args: argparse.Namespace, method: Method) -> Iterator[tuple[str, list[float], dict[str, Any]]]:
    """What is merged: a name for the file, the coefficients, and the method's options; several with ``--sweep``.

    Raises:
        UserError: options contradict each other, or a number is none.
    """
    given = {name: getattr(args, name) for name in method_options() if getattr(args, name) is not None}
    make_rule(args.method, given)
    coefficients = coefficients_of(args, method)
    if args.sweep is None:
        yield "", coefficients, given
        return
    if args.share is not None or (args.coefficients is not None and method.shares):
        raise UserError("--sweep takes the place of --lambda and --coefficients; give one of them")
    values = sweep(args.sweep)
    if "scale" in method.options():
        yield from ((f"{value:g}", coefficients, {**given, "scale": value}) for value in values)
    elif method.shares and method.weighed and len(args.models) == 2:
        yield from ((f"{value:g}", [1 - value, value], given) for value in values)
    else:
        raise UserError(f"--sweep is for two models that share a whole, or for methods with --scale, not for --method {args.method}")


def sweep(text: str) -> list[float]:
    """Read ``--sweep``: ``0,0.5,1``, or ``0:1:0.1`` with both ends.

    Raises:
        UserError: these are no numbers, or the steps do not lead from one end to the other.
    """
    if ":" not in text:
        return numbers("--sweep", text)
    given = numbers("--sweep", text.replace(":", ","))
    if len(given) != 3 or not given[2] or (given[1] - given[0]) / given[2] < 0:
        raise UserError(f"--sweep {text}: must be FROM:TO:STEP, such as 0:1:0.1")
    start, stop, step = given
    return [round(start + i * step, 10) for i in range(math.floor((stop - start) / step + 1e-6) + 1)]


def numbers(name: str, text: str) -> list[float]:
    """Read numbers with commas between.

    Raises:
        UserError: one is no number, or not finite.
    """
    try:
        values = [float(part) for part in text.split(",")]
    except ValueError as error:
        raise UserError(f"{name} {text}: must be numbers with commas between") from error
    if not all(map(math.isfinite, values)):
        raise UserError(f"{name} {text}: must be finite numbers")
    return values


def coefficients_of(args: argparse.Namespace, method: Method) -> list[float]:
    """The coefficients of the models.

    Raises:
        UserError: their number differs from that of the models, or the method has none.
    """
    count = len(args.models)
    if not method.weighed and (args.coefficients is not None or args.share is not None):
        raise UserError(f"--method {args.method} has no coefficients of the models")
    if args.share is not None:
        if args.coefficients is not None or count != 2 or not method.shares:
            raise UserError("--lambda is for two models whose coefficients are shares, without --coefficients")
        return [1 - args.share, args.share]
    if args.coefficients is not None:
        given = numbers("--coefficients", args.coefficients)
        if len(given) != count:
            raise UserError(f"--coefficients {args.coefficients}: must be {count} numbers, one per model, got {len(given)}")
        return given
    return [1 / count if method.shares else 1.0] * count


def summary(out: pathlib.Path, inputs: Inputs, method: str, options: Mapping[str, Any], coefficients: Sequence[float] | None) -> str:
    """What was written, and of what it was made."""
    weighed = [f"{c:g} " for c in coefficients] if coefficients else [""] * len(inputs.models)
    named = [f"{c}{model.name}" for c, model in zip(weighed, inputs.models, strict=True)]
    about = "".join(f", {name} {value}" for name, value in options.items())
    base = f", base {inputs.base.name}" if inputs.base else ""
    return f"{out}: {method}{about} of {', '.join(named)}{base}; {counted(len(inputs.keys), 'key')}, {out.stat().st_size / 1e6:.1f} MB\n"
