"""How layers, and blocks of CNNs, are run in training: their activations kept or computed again in the backward pass, compiled or not."""

import contextlib
import functools
from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.checkpoint import checkpoint

from unival.backbones.compiling import call_compiled


class Mode(NamedTuple):
    """How a model runs its layers and blocks in training.

    Attributes:
        recompute: compute their activations again in the backward pass instead of keeping them.
        compile: run what torch compiles of them, see :mod:`unival.backbones.compiling`.
    """

    recompute: bool = False
    compile: bool = False

    @classmethod
    def of(cls, cfg: Any) -> "Mode":
        """The mode that a model's configuration asks for."""
        return cls(cfg.checkpoint_activations, cfg.compile)


def run_layer(layer: nn.Module, mode: Mode, *args: Any) -> Any:
    """Run a layer or block, in training by a mode."""
    run = functools.partial(call_compiled, layer) if mode.compile and layer.training else layer
    if mode.recompute and torch.is_grad_enabled():
        return checkpoint(run, *args, use_reentrant=False, context_fn=lambda: (contextlib.nullcontext(), without_statistics(layer)))
    return run(*args)


def run_stage(stage: nn.Module, x: Tensor, mode: Mode) -> Tensor:
    """Run the blocks of a stage, in training by a mode: with ``recompute``, only the input of each is kept for the backward pass."""
    if not any(mode):
        return stage(x)  # a module that is called as such, for hooks
    for block in stage.children():
        x = run_layer(block, mode, x)
    return x


@contextlib.contextmanager
def without_statistics(network: nn.Module) -> Iterator[None]:
    """Batch norms in training mode give the same as otherwise, but do not count the batch in their statistics once more."""
    norms = {module: module.momentum for module in network.modules() if isinstance(module, _BatchNorm)}
    for norm in norms:
        norm.momentum = 0.0
    try:
        yield
    finally:
        for norm, momentum in norms.items():
            norm.momentum = momentum
