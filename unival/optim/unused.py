"""Keep the bits of parameters that an update does not use, in spite of weight decay and momentum.

torch's and fairseq's optimizers do not change a parameter without a gradient, nor its state.  But fairseq's ``legacy_ddp`` and its
optimizers for half precision turn absent gradients into zeros, with which weight decay and momentum change the parameter.  Therefore the
parameters that got gradients in the backward passes of an update, on any rank, are recorded; the gradients of all others are removed
before the optimizer's step, after gradients were reduced and clipped.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from fairseq.distributed import utils as distributed
from fairseq.optim.fp16_optimizer import FP16Optimizer
from torch import Tensor, nn

Span = tuple[int, int]


def parameters_of(optimizer: Any) -> list[nn.Parameter]:
    """The model's parameters that an optimizer of fairseq updates; in half precision not its float32 copies."""
    return list(optimizer.fp16_params if isinstance(optimizer, FP16Optimizer) else optimizer.params)


class UsedParts:
    """Records the parameters that the current update has used on this rank: those with a gradient, whatever its value."""

    def __init__(self) -> None:
        self._here: list[bool] = []

    def note(self, optimizer: Any) -> None:
        """Record the used parameters after the backward pass of a batch, or before that of a batch without rows, which uses none.

        fairseq clears all gradients before an update, so that the last call sees those of all its batches.
        """
        self._here = [parameter.grad is not None for parameter in parameters_of(optimizer)]

    @contextmanager
    def only(self, optimizer: Any) -> Iterator[None]:
        """Inside the context, the optimizer's step does not change parameters that no rank has used."""
        parameters = parameters_of(optimizer)
        used = on_any_rank(self._here, parameters[0].device)
        unused = [i for i, is_used in enumerate(used) if not is_used]
        if not unused:
            yield
        elif not isinstance(optimizer, FP16Optimizer):
            without_gradients([parameters[i] for i in unused])
            yield
        elif not optimizer.has_flat_params:
            without_gradients([optimizer.fp32_params[i] for i in unused])
            yield
        else:
            with flat_parts_kept(optimizer, unused):
                yield


def on_any_rank(here: Sequence[bool], device: torch.device) -> list[bool]:
    """Combine flags over ranks by a logical or; all ranks must call it."""
    if distributed.get_data_parallel_world_size() == 1:
        return list(here)
    flags = torch.tensor(here, dtype=torch.uint8, device=device)
    torch.distributed.all_reduce(flags, torch.distributed.ReduceOp.MAX, group=distributed.get_data_parallel_group())
    return [bool(flag) for flag in flags.tolist()]


def without_gradients(parameters: Sequence[nn.Parameter]) -> None:
    """Remove the gradients of parameters, so that optimizers do not change them."""
    for parameter in parameters:
        parameter.grad = None


@contextmanager
def flat_parts_kept(optimizer: FP16Optimizer, unused: Sequence[int]) -> Iterator[None]:
    """Restore unused parameters after a step of ``--fp16``, which flattens all parameters of a device into one tensor.

    The optimizer's state of these is restored, too, if it is in float32 (not with ``--fp16-adam-stats``); state that the step creates is
    set to zeros there.  The copies are as large as the unused parameters.
    """
    parameters = optimizer.fp16_params
    chosen = [parameters[i] for i in unused]
    halves = [parameter.detach().clone() for parameter in chosen]
    kept: list[tuple[nn.Parameter, Span, dict[str, Tensor]]] = []
    for device, flat in optimizer.fp32_params.items():
        for span in spans_of([p for p in parameters if p.device.index == device], chosen):
            kept.append((flat, span, {name: values[slice(*span)].clone() for name, values in values_of(flat, optimizer).items()}))
    yield
    with torch.no_grad():
        for flat, span, before in kept:
            for name, values in values_of(flat, optimizer).items():
                values[slice(*span)] = before.get(name, 0)
        for parameter, half in zip(chosen, halves, strict=True):
            parameter.copy_(half)


def values_of(flat: nn.Parameter, optimizer: FP16Optimizer) -> dict[str, Tensor]:
    """A flat parameter's values, under the key ``""``, and the optimizer's state with the same shape."""
    state = optimizer.optimizer.state.get(flat, {})
    alike = {name: v for name, v in state.items() if isinstance(v, Tensor) and v.shape == flat.shape and v.dtype == flat.dtype}
    return {"": flat.data, **alike}


def spans_of(parameters: Sequence[nn.Parameter], chosen: Sequence[nn.Parameter]) -> list[Span]:
    """Spans of the chosen parameters in the flat tensor of all; neighbours are joined."""
    wanted = {id(parameter) for parameter in chosen}
    spans: list[Span] = []
    start = 0
    for parameter in parameters:
        end = start + parameter.numel()
        if id(parameter) in wanted:
            first = spans.pop()[0] if spans and spans[-1][1] == start else start
            spans.append((first, end))
        start = end
    return spans
