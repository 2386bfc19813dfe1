"""Arguments of the commands that merge checkpoints, whether they write the result or evaluate it in memory."""

import argparse
from typing import Any

from unival.checkpoints.merging.inputs import MISSING
from unival.checkpoints.merging.methods import HELP, METHODS
from unival.errors import flag


def add_models(parser: argparse.ArgumentParser, count: int | str = "+") -> None:
    """Declare which models are merged, and which of their weights; ``count`` as argparse's ``nargs``."""
    add = parser.add_argument
    add("models", nargs=count, metavar="MODEL", help="the checkpoints to merge")
    add("--weights", choices=("model", "ema"), default="model", help="the models' weights, or their moving averages (default: %(default)s)")
    add("--missing", choices=MISSING, default="error", help="keys that a model lacks: an error, the base's, or those of the others alone")


def add_method(parser: argparse.ArgumentParser) -> None:
    """Declare how models are merged: the method, its base, coefficients and options."""
    add = parser.add_argument
    methods = "; ".join(f"{name}: {method.about}" for name, method in METHODS.items())
    add("--method", default="linear", metavar="NAME", help=f"{methods} (default: %(default)s)")
    add("--base", metavar="FILE", help="the pretrained model that the models come from, which methods with task vectors need")
    add("--allow-unrelated", action="store_true", help="merge models that do not come from one pretraining, too")
    add("--coefficients", metavar="C,C,…", help="a number per model (default: equal shares; with task vectors 1 each)")
    for name, defaults in method_options().items():
        values = ", ".join(f"{method} {default}" for method, default in defaults.items())
        kind = type(next(iter(defaults.values())))
        how: dict[str, Any] = {"action": "store_true", "default": None} if kind is bool else {"type": kind, "metavar": "X"}
        add(flag(name), help=f"{HELP[name]} (default: {values})", **how)


def add_statistics(parser: argparse.ArgumentParser) -> None:
    """Declare the files of statistics that some methods need."""
    what = "fisher, regmean: files of `unival statistics`, one per model in their order"
    parser.add_argument("--statistics", metavar="FILE,FILE,…", help=what)


def method_options() -> dict[str, dict[str, Any]]:
    """The methods' options: name -> method -> default."""
    found: dict[str, dict[str, Any]] = {}
    for name, method in METHODS.items():
        for option, default in method.options().items():
            found.setdefault(option, {})[name] = default
    return found


def given_options(args: argparse.Namespace) -> dict[str, Any]:
    """The options of methods that are given."""
    return {name: getattr(args, name) for name in method_options() if getattr(args, name) is not None}
