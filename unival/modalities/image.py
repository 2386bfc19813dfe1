"""Images: decode, resize to a square, normalise; a ResNet turns them into tokens."""

from typing import Any

import numpy as np
import torch
from PIL import Image

from unival.errors import UserError
from unival.modalities import kinds
from unival.modalities.base import Media, MediaEmbedding, MediaOptions, Modality, has_norm
from unival.modalities.geometry import Geometry, Loaded
from unival.modalities.pillow import read_sized_image

IMAGE_FITS = ("seen", "published")

HALF = (0.5, 0.5, 0.5)  # the published models normalise to [-1, 1]
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
DECODE_MARGIN = 2  # JPEGs are decoded at a reduced scale that is still at least twice the target size


class ImageLoader:
    """Bytes of an image file -> pixels ``3 x s x s``, normalised, by a plain square bicubic resize (published recipe).

    ``image_fit``: ``seen`` is the image as a person sees it (:func:`unival.modalities.pillow.read_image`), ``published`` what the
    original makes of it; they differ in orientation, transparency and values of more than 8 bits.

    Raises:
        UserError: there is no such ``image_fit``.
    """

    def __init__(self, options: MediaOptions):
        if options.image_fit not in IMAGE_FITS:
            raise UserError(f"unknown --image-fit {options.image_fit!r}; choose from {', '.join(IMAGE_FITS)}")
        self.size = options.patch_image_size
        self.is_published = options.image_fit == "published"
        mean, std = (IMAGENET_MEAN, IMAGENET_STD) if options.imagenet_mean_and_std else (HALF, HALF)
        self.mean = torch.tensor(mean)[:, None, None]
        self.std = torch.tensor(std)[:, None, None]

    def __call__(self, data: bytes, rng: np.random.Generator, train: bool) -> Loaded:
        """Decode and transform.

        Raises:
            UserError: the bytes are no image, or a truncated one; the caller adds file, row and column.
        """
        image, size = read_sized_image(data, DECODE_MARGIN * self.size, self.is_published)
        image = image.resize((self.size, self.size), Image.Resampling.BICUBIC).convert("RGB")
        pixels = torch.from_numpy(np.array(image)).permute(2, 0, 1).float() / 255  # 3 x S x S
        return Loaded((pixels - self.mean) / self.std, Geometry.of_resize(size, self.size))


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


IMAGE = Modality("IMAGE", media=Media(ImageLoader, _embedding, type_row=1, takes=(kinds.IMAGE,)))
