"""Merge checkpoints key by key: what is in memory is the result, and slices of one tensor of each input.

Weights go through the method, slice by slice, in float32 (float64 for float64).  What is no weight has rules of its own, whatever the
method: statistics of batch normalisation are averaged, counters have the largest value, other integers must be equal.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from unival.checkpoints.merging.inputs import COUNTER, STATISTICS, Inputs, is_constant, iterate
from unival.checkpoints.merging.tensors import Rule, Statistics, Tensors, is_matrix, slices, total, working

Coefficients = Sequence[float] | Callable[[str], Sequence[float]]  # one per model, or a function that gives them for a key


def merged(
    inputs: Inputs,
    rule: Rule,
    coefficients: Coefficients,
    whole: bool = False,
    shares: bool = False,
    into: Mapping[str, Tensor] | None = None,
    statistics: Sequence[Mapping[str, Tensor]] | None = None,
) -> dict[str, Tensor]:
    """Merge checkpoints.

    Args:
        inputs: the checkpoints, from :func:`unival.checkpoints.merging.inputs.fitting_inputs`.
        rule: a method with its options, as :func:`unival.checkpoints.merging.methods.make_rule` makes it.
        coefficients: of the models, or a function that gives them for a key.
        whole: give the method whole matrices instead of slices of rows.
        shares: coefficients are shares of a whole: those of models that lack a key are divided among the others.
        into: tensors to write to (those of a model); new ones are made of keys that are not in it.
        statistics: one state of statistics per model; keys may be missing.

    Returns:
        Key -> merged tensor, of the type that it has in the first model; tied weights are one tensor.
    """
    merger = _Merger(inputs, rule, coefficients, whole, shares, statistics)
    # All of the result before anything is computed: temporary tensors leave no holes between its tensors.
    result = {key: merger.empty(key) if into is None or key not in into else into[key] for key in iterate(inputs)}
    merger.observe_model()
    for key, out in result.items():
        merger.write(key, out)
    for key, first in inputs.tied.items():
        result[key] = result[first]
        if into is not None and key in into and into[key].data_ptr() != into[first].data_ptr():
            into[key].copy_(result[first])
    return {key: result[key] for key in inputs.keys}


class _Merger:
    def __init__(
        self,
        inputs: Inputs,
        rule: Rule,
        coefficients: Coefficients,
        whole: bool,
        shares: bool,
        statistics: Sequence[Mapping[str, Tensor]] | None,
    ):
        self.inputs, self.rule, self.whole, self.shares, self.statistics = inputs, rule, whole, shares, statistics
        self.coefficients: Callable[[str], Sequence[float]] = coefficients if callable(coefficients) else lambda _: coefficients

    def observe_model(self) -> None:
        """Give rules with statistics of the whole model their passes."""
        if isinstance(self.rule, Statistics) and not self.rule.by_tensor:
            for number in range(self.rule.passes):
                for key in iterate(self.inputs):
                    if self._goes_through(key):
                        self._observe(key, number)

    def _observe(self, key: str, number: int) -> None:
        assert isinstance(self.rule, Statistics)
        for part in self._parts(key):
            self.rule.observe(part, number)

    def empty(self, key: str) -> Tensor:
        """A tensor for the merged values of a key, which are not there yet."""
        first = self.inputs.having(key)[1][0]
        return torch.empty(first.shape, dtype=first.dtype)

    def write(self, key: str, out: Tensor) -> None:
        """Write the merged values of a key."""
        _, values = self.inputs.having(key)
        if is_constant(key, values[0]):
            out.copy_(values[0])
            return
        if COUNTER.search(key):
            out.copy_(torch.stack(values).amax(0))
            return
        if self._equals_base(key, values):
            assert self.inputs.base is not None
            out.copy_(self.inputs.base.state[key])
            return
        rule: Rule = self.rule if self._goes_through(key) else _mean
        if rule is self.rule and isinstance(rule, Statistics) and rule.by_tensor:
            for number in range(rule.passes):
                self._observe(key, number)
        flat = out.view(1) if out.dim() == 0 else out
        for part in self._parts(key):
            value = rule(part)
            flat[part.start : part.start + len(value)].copy_(value)

    def _goes_through(self, key: str) -> bool:
        """Whether a key goes through the method: weights do, if the base has them or the method needs none."""
        _, values = self.inputs.having(key)
        if is_constant(key, values[0]) or COUNTER.search(key) or STATISTICS.search(key):
            return False
        return self.inputs.base is None or key in self.inputs.base.state

    def _equals_base(self, key: str, values: Sequence[Tensor]) -> bool:
        """Whether nothing was trained here: no method has anything to add to the base then."""
        base = None if self.inputs.base is None else self.inputs.base.state.get(key)
        return base is not None and all(value.dtype == base.dtype and torch.equal(value, base) for value in values)

    def _parts(self, key: str) -> Iterator[Tensors]:
        """The slices of a key's tensors."""
        numbers, values = self.inputs.having(key)
        given = self.coefficients(key)
        coefficients = [given[number] for number in numbers]
        if self.shares and len(numbers) < len(given) and (kept := sum(coefficients)):
            coefficients = [c * sum(given) / kept for c in coefficients]
        base = None if self.inputs.base is None else self.inputs.base.state.get(key)
        read = None if self.statistics is None else [self.statistics[number].get(key) for number in numbers]
        counted = None if read is None or any(value is None for value in read) else [value for value in read if value is not None]
        flat = [value.view(1) if value.dim() == 0 else value for value in values]
        whole = self.whole and is_matrix(key, values[0])
        pieces = [slice(0, len(flat[0]))] if whole else slices(flat[0].shape)
        for rows in pieces:
            yield Tensors(
                key,
                _Working([value[rows] for value in flat]),
                coefficients,
                None if base is None else working(base.view(1)[rows] if base.dim() == 0 else base[rows]),
                numbers,
                rows.start,
                counted if counted is None or whole else [value[rows] for value in counted],
            )


class _Working(Sequence[Tensor]):
    """Tensors that are converted to the type that is computed in when they are asked for, one at a time."""

    def __init__(self, values: Sequence[Tensor]):
        self.values = values

    def __len__(self) -> int:
        return len(self.values)

    def __getitem__(self, place: Any) -> Any:
        found = self.values[place]
        return _Working(found) if isinstance(place, slice) else working(found)


def _mean(tensors: Tensors) -> Tensor:
    """The average with the coefficients as shares; the plain one if they are none (negative ones, or of a sum of 0)."""
    given = tensors.coefficients
    sum_ = sum(given)
    fair = sum_ > 0 and min(given) >= 0
    return total(tensors.models, [c / sum_ for c in given] if fair else [1 / len(given)] * len(given))
