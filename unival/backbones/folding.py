"""Batch norms folded into the convolutions before them: what a CNN computes in inference, with fewer passes over its features."""

import copy

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.utils.fusion import fuse_conv_bn_eval

from unival.backbones.prepared import Prepared, compute_type
from unival.backbones.recomputing import Mode


class Folded:
    """A copy of a CNN without the batch norms that follow convolutions; no module, so that it is not a part of the CNN.

    Args:
        network: a CNN in evaluation mode; it is not changed.
    """

    def __init__(self, network: nn.Module):
        weight = next(network.parameters())
        self.dtype = weight.dtype
        self.network = copy.deepcopy(network).requires_grad_(False)
        fold(self.network.to(torch.promote_types(self.dtype, torch.float32)))
        self.network.to(compute_type(self.dtype) if weight.device.type == "cpu" else self.dtype)

    def __call__(self, x: Tensor) -> Tensor:
        """As the network's own ``forward``, within rounding."""
        return self.network(x).to(self.dtype)


class Foldable(Prepared):
    """A CNN that can be folded for inference; its ``forward`` uses :meth:`ready`.

    Attributes:
        mode: how its blocks are run in training.
    """

    mode = Mode()

    def prepared_form(self, int8: bool) -> Folded:
        """The folded copy; convolutions are not quantised."""
        return Folded(self)


def fold(network: nn.Module) -> None:
    """Fold every batch norm that follows a convolution into it, in place."""
    for parent in list(network.modules()):
        children = dict(parent.named_children())
        for name, norm_name in neighbours(parent, list(children)):
            convolution, norm = children[name], children.get(norm_name)
            if isinstance(convolution, nn.Conv2d | nn.Conv3d) and isinstance(norm, _BatchNorm):
                parent.add_module(name, fuse_conv_bn_eval(convolution, norm))
                parent.add_module(norm_name, nn.Identity())


def neighbours(parent: nn.Module, names: list[str]) -> list[tuple[str, str]]:
    """The names of children that may be a convolution and its batch norm: neighbours in a sequence, or ``conv1`` and ``bn1``."""
    if isinstance(parent, nn.Sequential):
        return list(zip(names, names[1:], strict=False))
    return [(name, name.replace("conv", "bn")) for name in names if name.startswith("conv")]
