"""The residual networks there are, as numbers: one table for what builds them and for what recognises their weights.

Nothing heavy is imported here.
"""

from typing import NamedTuple


class ResidualLayout(NamedTuple):
    """A residual network of four stages."""

    blocks: tuple[int, int, int, int]  # per stage
    is_bottleneck: bool = True  # blocks of three convolutions, else of two
    groups: int = 1  # of the bottlenecks' middle convolutions
    width: int = 64  # of these convolutions in the first stage; every stage doubles it

    @property
    def widths(self) -> tuple[int, ...]:
        """Channels of the middle convolutions, per stage."""
        return tuple(self.width << stage for stage in range(len(self.blocks)))


# For images (He et al. 2016, table 1; resnet10 has one basic block per stage)
RESNETS: dict[str, ResidualLayout] = {
    "resnet10": ResidualLayout((1, 1, 1, 1), is_bottleneck=False),
    "resnet18": ResidualLayout((2, 2, 2, 2), is_bottleneck=False),
    "resnet34": ResidualLayout((3, 4, 6, 3), is_bottleneck=False),
    "resnet50": ResidualLayout((3, 4, 6, 3)),
    "resnet101": ResidualLayout((3, 4, 23, 3)),
    "resnet152": ResidualLayout((3, 8, 36, 3)),
}
# For videos (Hara et al. 2018)
RESNETS3D: dict[str, ResidualLayout] = {
    "resnext3d14": ResidualLayout((1, 1, 1, 1), groups=32, width=128),
    "resnext3d50": ResidualLayout((3, 4, 6, 3), groups=32, width=128),
    "resnext3d101": ResidualLayout((3, 4, 23, 3), groups=32, width=128),  # of the published models
    "resnext3d152": ResidualLayout((3, 8, 36, 3), groups=32, width=128),
    "resnet3d50": ResidualLayout((3, 4, 6, 3)),
    "resnet3d101": ResidualLayout((3, 4, 23, 3)),
}
