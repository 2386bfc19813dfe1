"""Layers, and blocks of CNNs, whose activations are computed again in the backward pass instead of kept."""

import contextlib
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.checkpoint import checkpoint


def run_layer(layer: nn.Module, recompute: bool, *args: Any) -> Any:
    """Run a layer or block; with ``recompute``, its activations are recomputed in the backward pass instead of kept."""
    if recompute and torch.is_grad_enabled():
        return checkpoint(layer, *args, use_reentrant=False, context_fn=lambda: (contextlib.nullcontext(), without_statistics(layer)))
    return layer(*args)


def run_stage(stage: nn.Module, x: Tensor, recompute: bool) -> Tensor:
    """Run the blocks of a stage; with ``recompute``, only the input of each is kept for the backward pass."""
    if not recompute:
        return stage(x)  # a module that is called as such, for hooks
    for block in stage.children():
        x = run_layer(block, recompute, x)
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
