"""ResNets for images, built from timm, without pooling and classifier. Importing this module imports timm."""

from typing import Any

import torch
from timm.models.resnet import BasicBlock, Bottleneck
from timm.models.resnet import ResNet as TimmResNet
from torch import Tensor, nn
from torch.nn import functional as F

from unival.backbones.folding import Foldable
from unival.backbones.layouts import RESNETS
from unival.backbones.recomputing import run_stage
from unival.errors import UserError, unknown


class ResNet(Foldable, TimmResNet):
    """timm's ResNet, up to the last feature map.

    Images and features are in channels-last layout, in which convolutions are fastest on CPUs and on GPUs with tensor cores.
    Weights keep the default layout, because fairseq flattens parameters and gradients (in half precision and in its own DDP).

    Args:
        name: a key of :data:`RESNETS`.
        stages: 4 (stride 32), or 3 (stride 16, without the last stage).

    Raises:
        UserError: unknown name or number of stages.
    """

    def __init__(self, name: str, stages: int = 4):
        if name not in RESNETS:
            raise UserError(unknown("image backbone", name, RESNETS))
        if stages not in (3, 4):
            raise UserError(f"the image backbone must have 3 or 4 stages, got {stages}")
        layout = RESNETS[name]
        block: Any = Bottleneck if layout.is_bottleneck else BasicBlock
        super().__init__(block, layout.blocks, num_classes=0, global_pool="")
        self.stages = stages
        self.out_channels = (512 if stages == 4 else 256) * block.expansion
        self.stride = 32 if stages == 4 else 16
        if stages == 3:
            del self.layer4
        for module in self.modules():
            if isinstance(
                module, nn.BatchNorm2d
            ):  # an unused counter, which fairseq's EMA cannot average
                module.num_batches_tracked = None

    def forward(self, x: Tensor) -> Tensor:
        """Pixels ``n x 3 x height x width`` -> features ``n x out_channels x ceil(height / stride) x ceil(width / stride)``."""
        folded = self.ready(x)
        if folded is not None:
            return folded(x)
        x = x.to(next(self.parameters()).dtype).contiguous(memory_format=torch.channels_last)
        x = self.maxpool(F.relu(self.bn1(self.conv1(x)), inplace=True))
        for i in range(self.stages):
            x = run_stage(self.get_submodule(f"layer{i + 1}"), x, self.mode)
        return x


def freeze_batchnorm(module: nn.Module) -> list[nn.Module]:
    """Freeze every batch norm inside ``module``; returns them, so that the caller can keep them in eval mode."""
    norms: list[nn.Module] = [m for m in module.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
    for norm in norms:
        norm.eval()
        for parameter in norm.parameters():
            parameter.requires_grad_(False)
    return norms
