"""Images: decode, resize to a square, normalise; a ResNet turns them into tokens."""

import io
from typing import Any

import numpy as np
import torch
from PIL import Image, UnidentifiedImageError
from torch import Tensor

from unival.errors import UserError
from unival.modalities import kinds
from unival.modalities.base import MediaEmbedding, MediaOptions, Modality, has_norm

HALF = (0.5, 0.5, 0.5)  # the published models normalise to [-1, 1]
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
DECODE_MARGIN = 2  # JPEGs are decoded at a reduced scale that is still at least twice the target size


class ImageLoader:
    """Bytes of an image file -> pixels ``3 x s x s``, normalised, by a plain square bicubic resize (published recipe)."""

    def __init__(self, options: MediaOptions):
        self.size = options.patch_image_size
        mean, std = (IMAGENET_MEAN, IMAGENET_STD) if options.imagenet_mean_and_std else (HALF, HALF)
        self.mean = torch.tensor(mean)[:, None, None]
        self.std = torch.tensor(std)[:, None, None]

    def __call__(self, data: bytes, rng: np.random.Generator, train: bool) -> Tensor:
        """Decode and transform.

        Raises:
            UserError: the bytes are no image, or a truncated one; the caller adds file, row and column.
        """
        try:
            file = Image.open(io.BytesIO(data))
            file.draft("RGB", (DECODE_MARGIN * self.size, DECODE_MARGIN * self.size))  # only JPEG heeds this
            image = file.convert("RGB").resize((self.size, self.size), Image.Resampling.BICUBIC)
        except UnidentifiedImageError as error:
            raise UserError(f"cannot decode the image: its {len(data)} bytes are in no known format") from error
        except (OSError, ValueError, SyntaxError, RuntimeError, Image.DecompressionBombError) as error:
            raise UserError(f"cannot decode the image ({len(data)} bytes): {error}") from error
        pixels = torch.from_numpy(np.array(image)).permute(2, 0, 1).float() / 255  # 3 x S x S
        return (pixels - self.mean) / self.std


def _embedding(cfg: Any) -> MediaEmbedding:
    from unival.backbones.resnet import ResNet, freeze_batchnorm  # imports timm: only where a model is built

    backbone = ResNet(cfg.image_backbone, cfg.image_backbone_stages)
    norms = freeze_batchnorm(backbone) if cfg.freeze_batchnorm else []
    return MediaEmbedding(
        backbone,
        cfg.encoder_embed_dim,
        cfg.image_bucket_size,
        cfg.freeze_image_backbone,
        norms,
        norm=has_norm(cfg, "image"),
    )


IMAGE = Modality("IMAGE", ImageLoader, _embedding, takes=(kinds.IMAGE,))
