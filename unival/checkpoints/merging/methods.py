"""The methods of merging: one entry each.  A new method is a function or class in the file of its family, and a line here."""

import functools
import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from unival.checkpoints.merging import averages, task_vectors
from unival.checkpoints.merging.tensors import Rule
from unival.errors import UserError, flag


@dataclass(frozen=True)
class Method:
    """A method of merging.

    Attributes:
        make: a function ``(tensors, *, options) -> tensor``, or a class whose objects are such functions and need statistics.  Its
            keyword arguments are the method's options, with their defaults.
        about: what it does, in a few words.
        base: whether it needs the pretrained model.
        least, most: number of models.
        shares: coefficients are shares, whose default is 1 / n; else they count task vectors, and their default is 1.
        weighed: whether coefficients of the models can be given.
        whole: it needs whole tensors.
    """

    make: Callable[..., Any]
    about: str
    base: bool = False
    least: int = 2
    most: int | None = None
    shares: bool = True
    weighed: bool = True
    whole: bool = False

    def options(self) -> dict[str, Any]:
        """The options with their defaults."""
        found = inspect.signature(self.make).parameters.values()
        return {parameter.name: parameter.default for parameter in found if parameter.kind is parameter.KEYWORD_ONLY}


METHODS: dict[str, Method] = {
    "linear": Method(averages.linear, "weighted average, the interpolation of two models, soups", least=1),
    "ema": Method(averages.moving_average, "moving average of one run's checkpoints, given in their order", weighed=False),
    "slerp": Method(averages.Slerp, "interpolation of two models on the sphere", most=2),
    "stock": Method(averages.Stock, "average, moved to the base by the angle of the task vectors", base=True),
    "task_arithmetic": Method(
        task_vectors.task_arithmetic, "the base and the sum of task vectors; negative ones forget", base=True, least=1, shares=False
    ),
}

HELP: dict[str, str] = {  # option of methods -> what it is
    "decay": "share of the average that stays when a checkpoint is added",
    "scale": "factor of the sum of task vectors",
}


def method_named(name: str) -> Method:
    """The method of a name.

    Raises:
        UserError: there is none.
    """
    if name not in METHODS:
        raise UserError(f"--method {name}: there are {', '.join(METHODS)}")
    return METHODS[name]


def make_rule(name: str, options: Mapping[str, Any]) -> tuple[Rule, dict[str, Any]]:
    """Make the rule of a method, and all its options with the defaults of those that are not given.

    Raises:
        UserError: the method has no such option, or its value is out of range.
    """
    method = method_named(name)
    known = method.options()
    for given in options:
        if given not in known:
            has = ", ".join(flag(option) for option in known) or "no options"
            raise UserError(f"{flag(given)} is no option of --method {name}, which has {has}")
    chosen = {**known, **options}
    rule: Any = functools.partial(method.make, **chosen)
    return (rule() if inspect.isclass(method.make) else rule), chosen
