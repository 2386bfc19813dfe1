"""3-D ResNets and ResNeXts for videos (Hara et al. 2018, "Can Spatiotemporal 3D CNNs Retrace the History of 2D CNNs and ImageNet?").

Their parameters have the same names as those of the 2-D networks in torchvision and timm, which can be inflated to 3-D
(:mod:`unival.checkpoints.inflate`).
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from unival.backbones.convolution3d import Conv3d
from unival.backbones.folding import Foldable
from unival.backbones.layouts import RESNETS3D
from unival.backbones.recomputing import run_stage
from unival.errors import UserError, unknown

STEM_CHANNELS = 64
STAGE_CHANNELS = (256, 512, 1024, 2048)


class Bottleneck3D(nn.Module):
    """Residual block: 1x1x1, grouped 3x3x3 (strided in time and space) and 1x1x1 convolutions, and a shortcut."""

    def __init__(self, channels: int, width: int, out_channels: int, cardinality: int, stride: int):
        super().__init__()
        self.conv1 = Conv3d(channels, width, 1)
        self.bn1 = nn.BatchNorm3d(width)
        self.conv2 = Conv3d(width, width, 3, stride, padding=1, groups=cardinality)
        self.bn2 = nn.BatchNorm3d(width)
        self.conv3 = Conv3d(width, out_channels, 1)
        self.bn3 = nn.BatchNorm3d(out_channels)
        self.downsample: nn.Module | None = None
        if stride != 1 or channels != out_channels:
            shortcut = Conv3d(channels, out_channels, 1, stride)
            self.downsample = nn.Sequential(shortcut, nn.BatchNorm3d(out_channels))

    def forward(self, x: Tensor) -> Tensor:
        """``n x channels x time x height x width`` -> ``n x out_channels x time x height x width``, the last three / stride, rounded up."""
        y = F.relu(self.bn1(self.conv1(x)), inplace=True)
        y = F.relu(self.bn2(self.conv2(y)), inplace=True)
        y = self.bn3(self.conv3(y))
        return F.relu(y + (x if self.downsample is None else self.downsample(x)), inplace=True)


class ResNeXt3D(Foldable):
    """3-D ResNet or ResNeXt, up to the last feature map: four stages, stride 16 in time and 32 in space.

    Args:
        name: a key of :data:`RESNETS3D`.

    Raises:
        UserError: unknown name.
    """

    def __init__(self, name: str):
        super().__init__()
        if name not in RESNETS3D:
            raise UserError(unknown("video backbone", name, RESNETS3D))
        layout = RESNETS3D[name]
        self.conv1 = Conv3d(3, STEM_CHANNELS, 7, (1, 2, 2), padding=3)
        self.bn1 = nn.BatchNorm3d(STEM_CHANNELS)
        self.maxpool = nn.MaxPool3d(3, 2, padding=1)
        channels = STEM_CHANNELS
        for i, (depth, width, out) in enumerate(zip(layout.blocks, layout.widths, STAGE_CHANNELS, strict=True)):
            blocks = [
                Bottleneck3D(out if j else channels, width, out, layout.groups, 2 if i > 0 and j == 0 else 1)
                for j in range(depth)
            ]
            self.add_module(f"layer{i + 1}", nn.Sequential(*blocks))
            channels = out
        self.out_channels = channels
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """He initialisation; the last batch norm of every block has weight 0, so that the block starts as its shortcut, as in timm."""
        for module in self.modules():
            if isinstance(module, nn.Conv3d):
                nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
            elif isinstance(module, nn.BatchNorm3d):
                module.num_batches_tracked = None  # an unused counter, which fairseq's EMA cannot average
        for module in self.modules():
            if isinstance(module, Bottleneck3D):
                nn.init.zeros_(module.bn3.weight)

    def forward(self, x: Tensor) -> Tensor:
        """Pixels ``n x 3 x time x height x width`` -> features ``n x out_channels x time / 16 x height / 32 x width / 32``, rounded up."""
        folded = self.ready(x)
        if folded is not None:
            return folded(x)
        x = x.to(self.conv1.weight.dtype).contiguous(memory_format=torch.channels_last_3d)
        x = self.maxpool(F.relu(self.bn1(self.conv1(x)), inplace=True))
        for stage in (self.get_submodule(f"layer{i + 1}") for i in range(len(STAGE_CHANNELS))):
            x = run_stage(stage, x, self.mode)
        return x
