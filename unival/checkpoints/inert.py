"""Safe replacements of the few classes other than tensors that trainers leave in checkpoints: they keep numbers and run no code.

fairseq keeps meters whose values may be numpy scalars or arrays, and its oldest releases pickled the meters themselves.  Allowing numpy's
own unpickling functions would let a file call them with any arguments; these read plain numbers and refuse the rest.
"""

import re
from typing import Any

from unival.errors import UserError

PLAIN = re.compile(r"[biufc](1|2|4|8|16)")
METERS = ("AverageMeter", "TimeMeter", "StopwatchMeter")


class Kind:
    """Replaces ``numpy.dtype``: the type of numbers and their byte order."""

    def __init__(self, name: Any = None, *_: Any):
        if not isinstance(name, str) or not PLAIN.fullmatch(name):
            raise UserError(f"it holds a numpy value of kind {name!r}; only plain numbers are read")
        self.name = name
        self.order = "="

    def __setstate__(self, state: Any) -> None:
        """Take ``(version, byte order, …)`` as numpy writes it; the rest describes structured types, which are not read."""
        if not isinstance(state, tuple) or len(state) < 2 or state[1] not in ("<", ">", "|", "="):
            raise UserError("it holds a numpy value whose byte order cannot be read")
        self.order = state[1]

    def values(self, data: Any) -> Any:
        """Convert bytes to a one-dimensional array of numbers."""
        import numpy as np

        if not isinstance(data, bytes) or not hasattr(self, "order"):
            raise UserError("it holds a numpy value that is not made of bytes")
        return np.frombuffer(data, np.dtype(self.order + self.name))


class Values(list):
    """Replaces ``numpy.ndarray``: a (nested) list of numbers."""

    def __setstate__(self, state: Any) -> None:
        """Take ``(version, shape, type, is Fortran, bytes)`` as numpy writes it."""
        if not isinstance(state, tuple) or len(state) != 5 or not isinstance(state[2], Kind):
            raise UserError("it holds a numpy array that is not one of plain numbers")
        _, shape, kind, fortran, data = state
        self[:] = kind.values(data).reshape(shape, order="F" if fortran else "C").tolist()


class Forgotten:
    """Replaces a class whose content is not needed: takes any arguments and keeps nothing."""

    def __init__(self, *_: Any, **__: Any):
        pass

    def __setstate__(self, state: Any) -> None:
        """Forget."""


def scalar(kind: Any, data: Any = None) -> Any:
    """Replaces numpy's function of this name: returns a Python number."""
    if not isinstance(kind, Kind):
        raise UserError("it holds a numpy value that is not a plain number")
    return kind.values(data)[0].item()


def empty(*_: Any) -> Values:
    """Replaces numpy's ``_reconstruct``: returns an array that its state fills."""
    return Values()


# (replacement, name in the file)
STAND_INS: list[tuple[Any, str]] = [
    (Kind, "numpy.dtype"),
    (Values, "numpy.ndarray"),
    *((scalar, f"numpy.{core}.multiarray.scalar") for core in ("core", "_core")),
    *((empty, f"numpy.{core}.multiarray._reconstruct") for core in ("core", "_core")),
    *((Forgotten, f"fairseq.{place}.{name}") for place in ("meters", "logging.meters") for name in METERS),
]
