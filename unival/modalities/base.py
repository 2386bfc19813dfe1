"""What a modality brings: ONE descriptor holds everything that the rest of the package asks of it.

Nothing outside of ``unival/modalities`` compares the names of modalities: who needs to know something about one asks its descriptor."""

import functools
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor, nn

from unival.errors import UserError
from unival.instructions import AttributeSpec
from unival.modalities.geometry import Loaded
from unival.modalities.options import NoOptions
from unival.modalities.target import Target
from unival.text import split_names
from unival.vocab import Vocabulary


class MediaLoader(Protocol):
    """Turns the bytes of a media file into the tensor that the embedding takes, and says where its pixels went."""

    def __call__(self, data: bytes, rng: np.random.Generator, train: bool) -> Loaded: ...


Shapes = Mapping[str, tuple[int, ...]]  # key -> shape of a state dict
RESNET_PROBES = ("conv1.weight", "bn1.weight", "layer1.0.conv1.weight")
CLASSIFIER = "the classifier of its own training"


@dataclass(frozen=True)
class Network:
    """The backbone of a modality: options of the model about it, and what is its own in checkpoints and in public files of weights.

    Attributes:
        option: the option that chooses it.
        choices: what that takes.
        weights: the option with a file of weights to start from.
        frozen: the option of not training it.
        inflated: the option that says that this file is of a 2-D network, whose kernels are repeated over time; empty: there is none.
        probes: keys by which it is found in a file, whatever a training program put in front of them.
        left_out: prefixes of keys that it does without -> why.
        renamed: its keys in public files -> here.
        stages: how many stages of a residual network may be left; empty: it is none.
        options_of: keys and shapes -> options of the model that they decide, besides ``option``.
        check: path of a file, its weights, the network's own and the model's configuration -> raises a UserError where they do not go
            together.
        compare: likewise with a checkpoint's weights -> a warning, or None.
    """

    option: str
    choices: tuple[str, ...]
    weights: str
    frozen: str
    probes: tuple[str, ...]
    left_out: Mapping[str, str]
    inflated: str = ""
    renamed: Mapping[str, str] = field(default_factory=dict)
    stages: tuple[int, ...] = ()
    options_of: Callable[[Shapes], dict[str, Any]] = lambda shapes: {}
    check: Callable[[str, Mapping[str, Tensor], Mapping[str, Tensor], Any], None] = lambda path, given, own, cfg: None
    compare: Callable[[Mapping[str, Tensor], Mapping[str, Tensor], Any], str | None] = lambda given, own, cfg: None


@dataclass(frozen=True)
class Published:
    """What the published checkpoints call a modality's network.

    Attributes:
        encoder: their option that says which network it is; without it the checkpoint lacks the modality, if there is no ``default``.
        encoders: its values -> options of ours.
        default: its value where it is not there.
        more: further options of theirs -> our option, and what it may be.
        parts: prefixes of its keys in other programs' checkpoints, besides ``encoder.embed_{key}s.``
        check: our options -> raises a UserError for what the published code lacks.
    """

    encoder: str
    encoders: Mapping[str, Mapping[str, Any]]
    default: str | None = None
    more: Mapping[str, tuple[str, tuple[str, ...]]] = field(default_factory=dict)
    parts: tuple[str, ...] = ()
    check: Callable[[Mapping[str, Any]], None] = lambda options: None


@dataclass(frozen=True)
class Media:
    """How files become tokens of the encoder.

    Attributes:
        loader: the options of all modalities (:class:`unival.modalities.composed.MediaOptions`) -> what reads a file.
        embedding: the model's configuration -> a :class:`MediaEmbedding`.
        type_row: its row of a type embedding with one row per modality (0 is that of text).
        packages: these options -> optional packages -> what for, and how to get them.
        takes: kinds of files (:mod:`unival.modalities.kinds`) that its slots take, the usual one first.
        sampled: the model's option of keeping some of its tokens in training; empty: there is none.
        network: its backbone, where options and checkpoints speak of it.
        published: its part of published checkpoints; None for those that these lack.
        always: models from before there was a choice take it.
    """

    loader: Callable[[Any], MediaLoader]
    embedding: Callable[[Any], "MediaEmbedding"]
    type_row: int
    packages: Callable[[Any], Mapping[str, str]] = lambda options: {}
    takes: tuple[str, ...] = ()
    sampled: str = ""
    network: Network | None = None
    published: Published | None = None
    always: bool = False


@dataclass(frozen=True)
class Modality:
    """One modality.

    Attributes:
        name: in instructions, such as IMAGE; in batches, keys of checkpoints and options it is in lower case, see :attr:`key`.
        attributes: what a slot of it may say in an instruction.
        options: a dataclass of how its cells are read (see :func:`unival.modalities.options.option`); the task's command line has them.
        model_options: a dataclass of its part of the model's configuration.  One that is named as one of ``options`` follows it.
        media: how its files become tokens of the encoder; None where a slot's cell becomes token ids, as text does.
        target: vocabulary and options -> how its cells become token ids, are predicted and come back; None where they are media.
        is_source: whether it may stand on the encoder side.
    """

    name: str
    attributes: Mapping[str, AttributeSpec] = field(default_factory=dict)
    options: type = NoOptions
    model_options: type = NoOptions
    media: Media | None = None
    target: Callable[[Vocabulary, Any], Target] | None = None
    is_source: bool = True

    @property
    def is_target(self) -> bool:
        """Whether it may stand on the decoder side."""
        return self.target is not None

    @property
    def key(self) -> str:
        """The name in lower case."""
        return self.name.lower()


@dataclass
class MediaTokens:
    """Embedded media: ``tokens`` n x l x c, and ``position_ids`` l (ids of the 2-D position table and buckets)."""

    tokens: Tensor
    position_ids: Tensor

    def __getitem__(self, index: int) -> Tensor:
        """Torch's backward hooks, such as those of fairseq's NanDetector, look for a module's first tensor."""
        return (self.tokens, self.position_ids)[index]


def grid_positions(height: int, width: int, bucket_size: int, device: torch.device | None = None) -> Tensor:
    """Position ids of a ``height x width`` grid, row-major: ``row * bucket_size + column + 1`` (0 is the special position)."""
    rows = torch.arange(height, device=device)[:, None] * bucket_size
    return (rows + torch.arange(width, device=device)[None, :] + 1).flatten()


# Shape of a feature map (without batch and channels) and bucket size -> position id of every feature, in flattened order.
Layout = Callable[[tuple[int, ...], int], Tensor]


def image_layout(shape: tuple[int, ...], bucket_size: int) -> Tensor:
    """Positions of an image's features ``h x w``: their places in the grid."""
    height, width = shape
    if max(height, width) > bucket_size:
        raise UserError(
            f"a grid of {height} x {width} patches exceeds {bucket_size} per side: use smaller images or a larger"
            " --image-bucket-size"
        )
    return grid_positions(height, width, bucket_size)


def video_layout(shape: tuple[int, ...], bucket_size: int) -> Tensor:
    """Positions of a video's features ``t x h x w``: their places in the frame, the same in every frame."""
    frames, height, width = shape
    return image_layout((height, width), bucket_size).repeat(frames)


def audio_layout(shape: tuple[int, ...], bucket_size: int) -> Tensor:
    """Positions of a sound's features ``t x f``: they fill the smallest square that holds them row by row (as published)."""
    count = math.prod(shape)
    side = math.isqrt(count - 1) + 1  # ceil(sqrt(count))
    if side > bucket_size:
        raise UserError(
            f"{count} audio tokens exceed {bucket_size} x {bucket_size}: use a larger --audio-hop-size, shorter sounds"
            " (--max-audio-seconds) or a larger --image-bucket-size"
        )
    return grid_positions(side, side, bucket_size)[:count]


@functools.lru_cache(maxsize=32)
@torch.inference_mode(False)
def positions_on(layout: Layout, shape: tuple[int, ...], bucket_size: int, device: torch.device) -> Tensor:
    """A layout's position ids on a device.  The same grid gives the same tensor, by which what follows from it is found again."""
    return layout(shape, bucket_size).to(device)


def has_norm(cfg: Any, name: str) -> bool:
    """Whether a model's configuration gives a modality (its name in lower case) a layer norm of its own."""
    chosen = cfg.modality_layernorm_media
    return cfg.modality_layernorm and (chosen is None or name in split_names(chosen))


class Statistics(NamedTuple):
    """Mean and deviation per channel of pixels between 0 and 1."""

    mean: tuple[float, ...]
    std: tuple[float, ...]

    def normalise(self, values: Tensor) -> Tensor:
        """Bytes ``n x channels x …`` -> float32, whatever the precision of the model: half precision would round the bytes."""
        shape = [-1, *[1] * (values.dim() - 2)]
        mean, std = (torch.tensor(numbers, device=values.device).view(shape) for numbers in self)
        return (values.float() / 255 - mean) / std


class MediaEmbedding(nn.Module):
    """Backbone, projection to the model's width, and the table of positions.

    Args:
        backbone: media ``n x …`` -> features ``n x out_channels x …``; has ``out_channels``.
        dim: width of the model.
        bucket_size: largest side of the grid of tokens.
        frozen: the backbone is not trained at all (weights, batch-norm statistics, dropout, SpecAugment).
        frozen_norms: batch norms that stay in eval mode even if the rest is trained.
        norm: a layer norm of this modality's own after the projection.
        layout: which position each feature has.
        statistics: of media that may come as bytes (uint8): they are normalised here, on the device.
        is_grid: positions are places in a picture, so that those of a larger grid may be interpolated.
    """

    def __init__(
        self,
        backbone: nn.Module,
        dim: int,
        bucket_size: int,
        frozen: bool = False,
        frozen_norms: list[nn.Module] | None = None,
        norm: bool = False,
        layout: Layout = image_layout,
        is_grid: bool = True,
        statistics: Statistics | None = None,
    ):
        super().__init__()
        self.backbone = backbone
        self.proj = nn.Linear(int(backbone.out_channels), dim)  # type: ignore[arg-type]
        self.norm = nn.LayerNorm(dim) if norm else None
        self.positions = nn.Embedding(bucket_size**2 + 1, dim)
        self.bucket_size = bucket_size
        self.frozen = frozen
        self.layout = layout
        self.is_grid = is_grid
        self.statistics = statistics
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
        """Embed media ``n x …``, floats or bytes; see :class:`MediaTokens`."""
        if values.dtype == torch.uint8:
            assert self.statistics is not None, "bytes, and nothing says how they are normalised"
            values = self.statistics.normalise(values).to(self.proj.weight.dtype)
        try:
            with torch.set_grad_enabled(torch.is_grad_enabled() and not self.frozen):
                features = self.backbone(values)
        except ValueError as error:
            if "more than 1 value per channel" not in str(error):
                raise
            raise UserError(
                f"a batch with one item of {tuple(values.shape[1:])} has one feature only, too few for batch norms in training:"
                " use larger media, a larger --batch-size or --freeze-batchnorm"
            ) from error
        tokens = self.proj(features.flatten(2).transpose(1, 2))  # N x L x C
        if self.norm is not None:
            tokens = self.norm(tokens)
        return MediaTokens(tokens, positions_on(self.layout, tuple(features.shape[2:]), self.bucket_size, values.device))
