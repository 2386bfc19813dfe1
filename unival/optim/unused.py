"""Parts of a model that an update does not use keep their bits, in spite of weight decay and momentum.

torch's optimizers and fairseq's leave a parameter without a gradient alone, its state included.  But on the way to the optimizer absent
gradients become zeros, with which they move a parameter by weight decay and momentum: in fairseq's ``legacy_ddp`` and in its optimizers of
half precision.  So it is noted which gradients the backward passes of an update made, on any rank; the others are taken away again before
the optimizer's step, when gradients are reduced and clipped already.
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
    """The model's parameters that an optimizer of fairseq moves, of which half precision has copies in float32."""
    return list(optimizer.fp16_params if isinstance(optimizer, FP16Optimizer) else optimizer.params)


class UsedParts:
    """Which parameters the rows of the present update have used on this rank so far: those with a gradient, whatever its value."""

    def __init__(self) -> None:
        self._here: list[bool] = []

    def note(self, optimizer: Any) -> None:
        """Call it after the backward pass of a batch, or before that of a batch without rows, which uses nothing.

        fairseq clears all gradients before an update, so the last call knows of all its batches.
        """
        self._here = [parameter.grad is not None for parameter in parameters_of(optimizer)]

    @contextmanager
    def only(self, optimizer: Any) -> Iterator[None]:
        """Within it, the optimizer's step leaves alone what no rank has used."""
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
    """Flags that are set on this rank or on another; all ranks must call it."""
    if distributed.get_data_parallel_world_size() == 1:
        return list(here)
    flags = torch.tensor(here, dtype=torch.uint8, device=device)
    torch.distributed.all_reduce(flags, torch.distributed.ReduceOp.MAX, group=distributed.get_data_parallel_group())
    return [bool(flag) for flag in flags.tolist()]


def without_gradients(parameters: Sequence[nn.Parameter]) -> None:
    """Optimizers leave parameters without a gradient alone."""
    for parameter in parameters:
        parameter.grad = None


@contextmanager
def flat_parts_kept(optimizer: FP16Optimizer, unused: Sequence[int]) -> Iterator[None]:
    """``--fp16`` strings all parameters of a device to one tensor, which the optimizer moves as a whole: parts are put back afterwards.

    So are these parts of the optimizer's state, where it is in float32 (not with ``--fp16-adam-stats``); state that the step makes begins
    with zeros there.  The copies are as large as the parts.
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
    """A flat parameter's values, under the name ``""``, and the optimizer's state of each of them."""
    state = optimizer.optimizer.state.get(flat, {})
    alike = {name: v for name, v in state.items() if isinstance(v, Tensor) and v.shape == flat.shape and v.dtype == flat.dtype}
    return {"": flat.data, **alike}


def spans_of(parameters: Sequence[nn.Parameter], chosen: Sequence[nn.Parameter]) -> list[Span]:
    """Where the chosen ones of some parameters lie in the flat tensor of all; neighbours are one span."""
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
