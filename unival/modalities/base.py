"""What a modality brings: a loader for the data workers and an embedding for the encoder."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor, nn

from unival.errors import UserError


@dataclass(frozen=True)
class MediaOptions:
    """How media becomes tensors; part of the task's configuration, kept in checkpoints."""

    patch_image_size: int = 384  # pixels per side
    imagenet_mean_and_std: bool = False


class MediaLoader(Protocol):
    """Turns the bytes of a media file into the tensor that the embedding takes."""

    def __call__(self, data: bytes, rng: np.random.Generator, train: bool) -> Tensor: ...


@dataclass(frozen=True)
class Modality:
    """One modality: its name in instructions, and how to build its loader and its embedding.

    ``embedding`` is called with the model's configuration and returns a :class:`MediaEmbedding`.
    """

    name: str
    loader: Callable[[MediaOptions], MediaLoader]
    embedding: Callable[[Any], "MediaEmbedding"]


@dataclass
class MediaTokens:
    """Embedded media: ``tokens`` n x l x c, and ``position_ids`` l (ids of the 2-D position table and buckets)."""

    tokens: Tensor
    position_ids: Tensor


class MediaEmbedding(nn.Module):
    """Backbone, projection to the model's width, and the table of positions.

    Args:
        backbone: media ``n x …`` -> features ``n x out_channels x h x w``; has ``out_channels``.
        dim: width of the model.
        bucket_size: largest side of the grid of tokens.
        frozen: the backbone is not trained at all (weights, batch-norm statistics, dropout).
        norms: batch norms that stay in eval mode even if the rest is trained.
    """

    def __init__(
        self,
        backbone: nn.Module,
        dim: int,
        bucket_size: int,
        frozen: bool = False,
        frozen_norms: list[nn.Module] | None = None,
    ):
        super().__init__()
        self.backbone = backbone
        self.proj = nn.Linear(int(backbone.out_channels), dim)  # type: ignore[arg-type]
        self.positions = nn.Embedding(bucket_size**2 + 1, dim)
        self.bucket_size = bucket_size
        self.frozen = frozen
        self._frozen_norms = frozen_norms or []  # a plain list of modules that the backbone registers already
        if frozen:
            backbone.requires_grad_(False)

    def train(self, mode: bool = True) -> "MediaEmbedding":
        """Frozen parts stay in eval mode."""
        super().train(mode)
        if self.frozen:
            self.backbone.eval()
        for norm in self._frozen_norms:
            norm.eval()
        return self

    def forward(self, values: Tensor) -> MediaTokens:
        """Embed media; see :class:`MediaTokens`."""
        with torch.set_grad_enabled(torch.is_grad_enabled() and not self.frozen):
            features = self.backbone(values)
        height, width = features.shape[-2:]
        if max(height, width) > self.bucket_size:
            raise UserError(
                f"a grid of {height} x {width} patches exceeds {self.bucket_size} per side: use smaller images or a larger"
                " --image-bucket-size"
            )
        tokens = self.proj(features.flatten(2).transpose(1, 2))  # N x L x C
        return MediaTokens(tokens, grid_positions(height, width, self.bucket_size, values.device))


def grid_positions(height: int, width: int, bucket_size: int, device: torch.device | None = None) -> Tensor:
    """Position ids of a ``height x width`` grid, row-major: ``row * bucket_size + column + 1`` (0 is the special position)."""
    rows = torch.arange(height, device=device)[:, None] * bucket_size
    return (rows + torch.arange(width, device=device)[None, :] + 1).flatten()
