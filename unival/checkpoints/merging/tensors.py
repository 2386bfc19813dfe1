"""What a method of merging is given: the tensors of one key, in float32 or float64, a slice of rows at a time."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor

SLICE = 1 << 20  # values of a slice: temporary tensors of 4 MB, which leave no large holes among those of the result
TABLES = re.compile(r"embed|positions|rel_pos_table|output_projection")  # keys of embeddings


@dataclass(frozen=True)
class Tensors:
    """The values of one key, or some of its rows.

    Attributes:
        key: checkpoint key.
        models: the models' values, n tensors of one shape.
        coefficients: one number per model.
        base: value of the pretrained model; None if there is none.
        numbers: places of the models among all that are merged.
        start: first row of this slice.
        statistics: one tensor per model of a method that needs statistics of data; None: this key has none.
    """

    key: str
    models: Sequence[Tensor]
    coefficients: Sequence[float]
    base: Tensor | None = None
    numbers: Sequence[int] = ()
    start: int = 0
    statistics: Sequence[Tensor] | None = None

    @property
    def is_matrix(self) -> bool:
        """Whether the tensor is a linear map, with singular values of a meaning: no vector, no kernel, no table of embeddings."""
        return is_matrix(self.key, self.models[0])

    def deltas(self) -> Iterator[Tensor]:
        """The task vectors ``theta_i - theta_base`` (Ilharco et al. 2023), one at a time."""
        assert self.base is not None, "the method's entry says that it needs no base"
        for value in self.models:
            yield value - self.base


def is_matrix(key: str, value: Tensor) -> bool:
    """Whether a key is that of a linear map: two axes, and no table whose rows are looked up."""
    return value.dim() == 2 and TABLES.search(key) is None


class Rule(Protocol):
    """A method with its options: the merged value of one key, or of the slice of its rows."""

    def __call__(self, tensors: Tensors) -> Tensor: ...


@runtime_checkable
class Statistics(Protocol):
    """A rule that first reads all values ``passes`` times, of one key before it is merged (``by_tensor``) or of the whole model."""

    passes: int
    by_tensor: bool

    def observe(self, tensors: Tensors, number: int) -> None:
        """Read a slice in pass ``number``."""
        ...

    def __call__(self, tensors: Tensors) -> Tensor: ...


def slices(shape: Sequence[int]) -> Iterator[slice]:
    """Slices of rows with at most ``SLICE`` values (at least one row); one empty index for a number."""
    rows = shape[0] if shape else 1
    per_row = max(torch.Size(shape[1:]).numel(), 1)
    step = max(SLICE // per_row, 1)
    for start in range(0, max(rows, 1), step):
        yield slice(start, min(start + step, rows))


def working(value: Tensor) -> Tensor:
    """Convert to the type that is computed in: float32, or float64 for float64."""
    return value if value.dtype == torch.float64 else value.float()


def total(terms: Iterator[Tensor] | Sequence[Tensor], coefficients: Sequence[float]) -> Tensor:
    """The weighted sum of tensors, which are not kept."""
    result: Any = None
    for value, coefficient in zip(terms, coefficients, strict=True):
        result = value * coefficient if result is None else result.add_(value, alpha=coefficient)
    return result
