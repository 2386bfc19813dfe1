"""Images: decode, resize to a square; a ResNet turns the normalised pixels into tokens."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Optional

import numpy as np
import torch
from PIL import Image

from unival.backbones.layouts import RESNETS
from unival.errors import UserError
from unival.modalities import kinds
from unival.modalities.arrays import image_file
from unival.modalities.base import (
    CLASSIFIER,
    RESNET_PROBES,
    Media,
    MediaEmbedding,
    Modality,
    Network,
    Published,
    Shapes,
    Statistics,
    embed_with,
)
from unival.modalities.geometry import Geometry, Loaded
from unival.modalities.options import at_least, one_of, option
from unival.modalities.pillow import read_sized_image, size_of
from unival.modalities.torch_images import has_decoder, read_square
from unival.quiet_import import uncollected

IMAGE_FITS = ("seen", "published")
IMAGE_BACKENDS = ("torchvision", "pil")

HALF = Statistics((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))  # to [-1, 1], as the published models
IMAGENET = Statistics((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
DECODE_MARGIN = 2  # JPEGs are decoded at a reduced scale that is still at least twice the target size


@dataclass(frozen=True)
class ImageOptions:
    """How image files are read."""

    patch_image_size: int = option(384, "pixels per side that images are resized to", at_least(1))
    image_fit: str = option(
        "seen",
        "how image files become pixels: as a person sees them, rotated by their EXIF orientation, on white where they are transparent,"
        " grey of 16 bits and more scaled (seen), or as the published code reads them, without any of that (published)",
        one_of(*IMAGE_FITS),
        before="published",
    )
    image_backend: str = option(
        "torchvision",
        "decoder and resize of images: torchvision and torch, twice as fast, whose pixels differ from Pillow's by at most 1 of 255,"
        " by 2 in few of 10 million (torchvision), or Pillow, as published (pil)",
        one_of(*IMAGE_BACKENDS),
        before="pil",
    )
    imagenet_mean_and_std: bool = option(False, "normalise pixels by ImageNet's mean and deviation instead of to [-1, 1]")


@dataclass(frozen=True)
class ImageModelOptions:
    """The image CNN."""

    image_backbone: str = option("resnet101", "image CNN: resnet10, resnet18, resnet34, resnet50, resnet101, resnet152")
    image_backbone_stages: int = option(4, "stages of the image CNN: 4 (stride 32) or 3 (stride 16, as in OFA)")
    image_backbone_weights: Optional[str] = option(
        None, "file with weights of the image CNN (timm or torchvision ResNet) to start from"
    )
    freeze_image_backbone: bool = option(False, "do not train the image CNN: weights, batch-norm statistics, all of it")
    imagenet_mean_and_std: Optional[bool] = option(
        None, "pixels are normalised by ImageNet's mean and deviation (default: as the task says)"
    )
    sample_patch_num: int = option(0, "in training, keep this many randomly chosen patches per image (0: all)")


class ImageLoader:
    """Load image files as uint8 pixels ``3 x side x side``, resized to a square by bicubic interpolation (published recipe).

    With ``image_fit`` ``seen`` the image is read as a person sees it (:func:`unival.modalities.pillow.read_image`), with
    ``published`` as the original reads it; they differ in orientation, transparency and values of more than 8 bits.  With
    ``image_backend`` ``pil`` Pillow does it all, see :mod:`unival.modalities.torch_images` for ``torchvision``.
    """

    def __init__(self, options: ImageOptions):
        self.size = options.patch_image_size
        self.is_published = options.image_fit == "published"
        self.is_fast = options.image_backend == "torchvision"
        self.has_decoder = self.is_fast and has_decoder()

    def __call__(self, data: bytes, rng: np.random.Generator, train: bool) -> Loaded:
        """Decode and resize one file; nothing is random.

        Raises:
            UserError: the bytes are not an image, or are truncated; the caller adds file, row and column.
        """
        least = DECODE_MARGIN * self.size
        if self.is_fast:
            pixels, size = read_square(data, self.size, least, self.is_published, self.has_decoder)
        else:
            image, size = read_sized_image(data, least, self.is_published)
            image = image.resize((self.size, self.size), Image.Resampling.BICUBIC).convert("RGB")
            pixels = torch.from_numpy(np.array(image)).permute(2, 0, 1)
        return Loaded(pixels, Geometry.of_resize(size, self.size))


def place_in_header(options: Any, data: bytes) -> Geometry:
    """The geometry that :class:`ImageLoader` gives, from the header of a file alone."""
    return Geometry.of_resize(size_of(data, options.image_fit == "published"), options.patch_image_size)


def statistics_of(cfg: Any) -> Statistics:
    """Mean and deviation by which a model normalises the pixels of images and frames."""
    return IMAGENET if cfg.imagenet_mean_and_std else HALF


def _embedding(cfg: Any) -> MediaEmbedding:
    with uncollected():
        from unival.backbones.resnet import ResNet  # imports timm: only where a model is built

    backbone = ResNet(cfg.image_backbone, cfg.image_backbone_stages)
    return embed_with(backbone, cfg, "image", frozen=cfg.freeze_image_backbone, statistics=statistics_of(cfg))


NAMED_RESNETS = ("resnet18", "resnet34", "resnet50", "resnet101", "resnet152")  # in options of published checkpoints
ORIGINAL_RESNETS = ("resnet50", "resnet101", "resnet152")  # that the published code builds


def _stages(shapes: Shapes) -> dict[str, Any]:
    return {"image_backbone_stages": len({key.split(".")[0] for key in shapes if key.startswith("layer")})}


def _check_published(options: Mapping[str, Any]) -> None:
    if options["image_backbone"] not in ORIGINAL_RESNETS:
        raise UserError(
            f"--image-backbone {options['image_backbone']}: the published format has only {', '.join(ORIGINAL_RESNETS)}"
        )


NETWORK = Network(
    option="image_backbone",
    choices=tuple(RESNETS),
    weights="image_backbone_weights",
    frozen="freeze_image_backbone",
    probes=RESNET_PROBES,
    left_out={"fc.": CLASSIFIER},
    stages=(3, 4),
    options_of=_stages,
)
PUBLISHED = Published(
    encoder="image_encoder_name",
    encoders={"timm_resnet": {"image_backbone_stages": 4}, "resnet": {"image_backbone_stages": 3}},
    default="resnet",  # options that do not name one are OFA's, which had one
    more={"resnet_type": ("image_backbone", NAMED_RESNETS)},
    parts=("model.encoder.embed_images.",),  # OFA in Hugging Face's layout
    check=_check_published,
)
IMAGE = Modality(
    "IMAGE",
    options=ImageOptions,
    model_options=ImageModelOptions,
    media=Media(
        ImageLoader,
        _embedding,
        type_row=1,
        takes=(kinds.IMAGE,),
        has_geometry=True,
        geometry_of=place_in_header,
        from_array=image_file,
        sampled="sample_patch_num",
        network=NETWORK,
        published=PUBLISHED,
        always=True,
    ),
)
