"""The methods of merging: one entry each.  A new method is a function or class in the file of its family, and a line here."""

import functools
import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from unival.checkpoints.merging import averages, masks, sparse, spectral, task_vectors, weighed
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
        whole: it needs whole matrices.
        statistics: name of the statistics of data that it needs, one of each model; None: it needs none.
        tables: whether its coefficients are learnt on a table of each model's task.
    """

    make: Callable[..., Any]
    about: str
    base: bool = False
    least: int = 2
    most: int | None = None
    shares: bool = True
    weighed: bool = True
    whole: bool = False
    statistics: str | None = None
    tables: bool = False

    def options(self) -> dict[str, Any]:
        """The options with their defaults."""
        found = inspect.signature(self.make).parameters.values()
        return {parameter.name: parameter.default for parameter in found if parameter.kind is parameter.KEYWORD_ONLY}


METHODS: dict[str, Method] = {
    "linear": Method(averages.linear, "weighted average, the interpolation of two models, soups", least=1),
    "ema": Method(averages.moving_average, "moving average of one run's checkpoints, given in their order", weighed=False),
    "slerp": Method(averages.Slerp, "interpolation of two models on the sphere", most=2),
    "stock": Method(averages.Stock, "average, moved to the base by the angle of the task vectors", base=True),
    "fisher": Method(weighed.fisher, "average weighed by Fisher information on the models' tables", statistics="fisher"),
    "regmean": Method(weighed.regmean, "linear layers by least squares on the models' tables", whole=True, statistics="gram"),
    "task_arithmetic": Method(
        task_vectors.task_arithmetic, "the base and the sum of task vectors; negative ones forget", base=True, least=1, shares=False
    ),
    "adamerging": Method(
        task_vectors.Adaptive,
        "task vectors, each layer's with a coefficient that makes answers on the tasks' tables surer",
        base=True,
        least=1,
        shares=False,
        weighed=False,
        tables=True,
    ),
    "ties": Method(sparse.Ties, "the largest values of task vectors, those of the elected sign averaged", base=True, shares=False),
    "dare": Method(sparse.dare, "values of task vectors dropped at random, the rest rescaled", base=True, least=1, shares=False),
    "della": Method(sparse.della, "dropped at random by magnitude, those of the elected sign averaged", base=True, shares=False),
    "breadcrumbs": Method(sparse.Breadcrumbs, "task vectors without outliers and small values", base=True, least=1, shares=False),
    "lwptv": Method(sparse.LayerPruned, "task vectors pruned by magnitude within each layer", base=True, least=1, shares=False),
    "consensus": Method(masks.consensus, "of the sum of task vectors what several tasks need", base=True, shares=False),
    "tall": Method(masks.tall, "one task's model out of the sum of task vectors, by its mask", base=True, shares=False),
    "emr": Method(masks.Emr, "one task's model out of the elected task vector: mask and rescale", base=True, weighed=False),
    "tsv": Method(spectral.singular_vectors, "task singular vectors made orthogonal", base=True, shares=False, whole=True),
    "iso_c": Method(spectral.isotropic, "the sum of task matrices with equal singular values", base=True, shares=False, whole=True),
    "iso_cts": Method(
        spectral.isotropic_tasks, "equal singular values in common and task-specific subspaces", base=True, shares=False, whole=True
    ),
}

HELP: dict[str, str] = {  # option of methods -> what it is
    "decay": "share of the average that stays when a checkpoint is added",
    "floor": "what is added to all Fisher information",
    "diagonal": "share by which Gram matrices are moved to their diagonals",
    "scale": "factor of the merged task vector",
    "density": "share of a task vector that stays",
    "scope": f"what the share is of: {' or '.join(sparse.SCOPES)}",
    "outliers": "share of a task vector's largest values that is left out",
    "elect": "keep only values of the elected sign, as in TIES",
    "window": "width of the drop probabilities, between the largest and the smallest values",
    "seed": "seed of what is random",
    "per": f"what has a coefficient of its own: {', '.join(task_vectors.PER)}",
    "start": "coefficients at first",
    "steps": "steps of learning",
    "rate": "learning rate",
    "tokens": "most tokens of an answer that count",
    "strictness": "a task's mask has values at least this times as large as those of the other tasks together",
    "least": "number of tasks that need a value",
    "task": "number of the model, from 1, whose task the result is for",
    "common": "share of the singular vectors that are common to the tasks",
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
