"""The points of a merge: coefficients of the models and options of the method, one point or several along a path."""

import itertools
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from unival.checkpoints.merging.methods import make_rule, method_named
from unival.errors import UserError

TOLERANCE = 1e-6  # of sums of coefficients that are to be 1


@dataclass(frozen=True)
class Point:
    """One merge among several.

    Attributes:
        name: the values that distinguish it, as in ``0.25``; empty where there is one point only.
        value: the number that a path is drawn over; None: there is one point only, or several numbers distinguish it.
        coefficients: of the models.
        options: of the method, as far as they are given.
    """

    name: str
    value: float | None
    coefficients: list[float]
    options: dict[str, Any] = field(default_factory=dict)


def points_of(
    method: str,
    count: int,
    options: Mapping[str, Any],
    coefficients: str | None = None,
    share: float | None = None,
    sweep: str | None = None,
    option: str = "--sweep",
) -> list[Point]:
    """What is merged: one point, or several with ``sweep``.

    Args:
        method: name of the method.
        count: number of models.
        options: options of the method.
        coefficients: ``--coefficients``.
        share: ``--lambda``.
        sweep: ``--sweep``: values of the second of two models, or of ``scale``; of three or more models all coefficients among these values
            that have the sum 1.
        option: the name of that option in messages.

    Raises:
        UserError: options contradict each other, or a number is none.
    """
    found = method_named(method)
    make_rule(method, options)
    chosen = coefficients_of(method, count, coefficients, share)
    if sweep is None:
        return [Point("", None, chosen, dict(options))]
    if share is not None or (coefficients is not None and found.shares):
        raise UserError(f"{option} takes the place of --lambda and --coefficients; give one of them")
    values = values_of(sweep, option)
    if "scale" in options:
        raise UserError(f"{option} takes the place of --scale; give one of them")
    if "scale" in found.options():
        return [Point(f"{value:g}", value, chosen, {**options, "scale": value}) for value in values]
    if not (found.shares and found.weighed and count > 1):
        raise UserError(f"{option} is for models that share a whole, or for methods with --scale, not for --method {method}")
    if count == 2:
        return [Point(f"{value:g}", value, [1 - value, value], dict(options)) for value in values]
    among = [list(each) for each in itertools.product(values, repeat=count) if abs(sum(each) - 1) < TOLERANCE]
    if not among:
        raise UserError(f"{option} {sweep}: no {count} of these values have the sum 1")
    return [Point(",".join(f"{value:g}" for value in each), None, each, dict(options)) for each in among]


def check_method(method: str, count: int, base: str | None, missing: str, statistics: str | None = None, tables: str | None = None) -> None:
    """Check the number of models and the base against a method.

    Args:
        method: name of the method.
        count: number of models.
        base: the file of ``--base``.
        missing: what becomes of keys that a model lacks.
        statistics: the files of ``--statistics``.
        tables: those of ``--tables``.

    Raises:
        UserError: the base, statistics or tables are missing or not needed, or the method takes other numbers of models.
    """
    found = method_named(method)
    if count < found.least or (found.most is not None and count > found.most):
        takes = f"{found.least} models" if found.least == found.most else f"at least {found.least} models"
        raise UserError(f"--method {method} takes {takes}, got {count}")
    if found.statistics and statistics is None:
        made = f"`unival statistics MODEL --kind {found.statistics} --table TABLE --out FILE`"
        raise UserError(f"--method {method} needs statistics of the models on data: give --statistics, files of {made}")
    for option, given, needed in (("statistics", statistics, found.statistics), ("tables", tables, found.tables)):
        if given is not None and not needed:
            raise UserError(f"--{option} is not used by --method {method}; leave it out")
    if found.tables and (tables is None or len(tables.split(",")) != count):
        raise UserError(f"--method {method} needs a table of each model's task, {count} with commas between: give --tables")
    if found.base and base is None:
        raise UserError(f"--method {method} needs the pretrained model that the models come from: give --base")
    if base is not None and not found.base and missing != "base":
        raise UserError(f"--base is not used by --method {method}; leave it out")


def values_of(text: str, option: str = "--sweep") -> list[float]:
    """Read the values of a sweep: ``0,0.5,1``, or ``0:1:0.1`` with both ends.

    Raises:
        UserError: these are no numbers, or the steps do not lead from one end to the other.
    """
    if ":" not in text:
        return numbers(option, text)
    given = numbers(option, text.replace(":", ","))
    if len(given) != 3 or not given[2] or (given[1] - given[0]) / given[2] < 0:
        raise UserError(f"{option} {text}: must be FROM:TO:STEP, such as 0:1:0.1")
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


def coefficients_of(method: str, count: int, coefficients: str | None, share: float | None) -> list[float]:
    """The coefficients of the models.

    Raises:
        UserError: their number differs from that of the models, or the method has none.
    """
    found = method_named(method)
    if not found.weighed and (coefficients is not None or share is not None):
        raise UserError(f"--method {method} has no coefficients of the models")
    if share is not None:
        if coefficients is not None or count != 2 or not found.shares:
            raise UserError("--lambda is for two models whose coefficients are shares, without --coefficients")
        return [1 - share, share]
    if coefficients is not None:
        given = numbers("--coefficients", coefficients)
        if len(given) != count:
            raise UserError(f"--coefficients {coefficients}: must be {count} numbers, one per model, got {len(given)}")
        return given
    return [1 / count if found.shares else 1.0] * count
