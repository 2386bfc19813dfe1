"""The descriptor of a modality: everything that the rest of the package needs to know about it, in one object.

Nothing outside of ``unival/modalities`` compares the names of modalities; the descriptor is asked instead."""

import functools
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from unival.backbones.folding import Foldable
from unival.backbones.recomputing import Mode
from unival.errors import UserError
from unival.instructions import AttributeSpec
from unival.modalities.geometry import Geometry, Loaded
from unival.modalities.options import NoOptions
from unival.modalities.target import Target
from unival.text import split_names
from unival.vocab import Vocabulary


class MediaLoader(Protocol):
    """Reads the bytes of a media file: the tensor that the embedding takes, and the geometry of its transforms."""

    def __call__(self, data: bytes, rng: np.random.Generator, train: bool) -> Loaded: ...


Shapes = Mapping[str, tuple[int, ...]]  # key of a state dict -> shape
RESNET_PROBES = ("conv1.weight", "bn1.weight", "layer1.0.conv1.weight")
CLASSIFIER = "the classifier of its own training"
PARTS = {"cnn": "backbone", "proj": "proj", "norm": "norm", "positions": "positions"}  # of a MediaEmbedding


@dataclass(frozen=True)
class Network:
    """The backbone of a modality: its options, and its keys in checkpoints and in public weight files.

    Attributes:
        option: name of the model's option that chooses the network.
        choices: values of this option.
        weights: name of the option for a file of weights to start from.
        frozen: name of the option that freezes the network.
        inflated: name of the option for weights of a 2-D network, whose kernels are repeated over time; empty if not supported.
        probes: keys by which the network is found in a file, whatever prefix a training program added.
        left_out: prefix of keys that the network does not use -> reason.
        renamed: key in public files -> key here.
        stages: numbers of stages that a residual network may have; empty for other networks.
        options_of: function of a file's shapes -> options of the model that follow from them, in addition to ``option``.
        check: function of a file's path, its weights, the network's own weights and the model's configuration; raises a UserError if
            the weights do not fit.
        compare: the same for a checkpoint's weights, without the path: returns a warning or None.
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
    """Names of a modality's network in published checkpoints.

    Attributes:
        encoder: the published option that names the network; a checkpoint without it lacks the modality, unless there is a ``default``.
        encoders: value of this option -> our options.
        default: value of this option where a checkpoint lacks it.
        more: further published option -> our option, and its allowed values.
        parts: prefixes of the network's keys in other programs' checkpoints, in addition to ``encoder.embed_{key}s.``
        check: function of our options; raises a UserError for what the published code lacks.
    """

    encoder: str
    encoders: Mapping[str, Mapping[str, Any]]
    default: str | None = None
    more: Mapping[str, tuple[str, tuple[str, ...]]] = field(default_factory=dict)
    parts: tuple[str, ...] = ()
    check: Callable[[Mapping[str, Any]], None] = lambda options: None


@dataclass(frozen=True)
class Media:
    """How the files of a modality become tokens of the encoder.

    Attributes:
        loader: function of the options of all modalities (:class:`unival.modalities.composed.MediaOptions`) -> loader of files.
        embedding: function of the model's configuration -> :class:`MediaEmbedding`.
        has_geometry: whether ``loader`` gives a geometry, so that boxes may refer to the media.
        geometry_of: function of the loader's options and of the bytes of a file -> geometry, where the header of the file has it; None if
            the file has to be decoded.
        type_row: row in the type embedding with one row per modality (row 0 is text).
        packages: function of the loader's options -> optional package -> purpose, and how to install it.
        takes: kinds of files (:mod:`unival.modalities.kinds`) that slots of the modality take, the usual one first.
        from_array: function of a numpy array or tensor, as given in Python -> bytes of a file for ``loader``, or a UserError; None if
            the modality takes no arrays.
        sampled: name of the model's option that keeps a random subset of the tokens in training; empty if there is none.
        network: the backbone, if it has options and weight files.
        published: names in published checkpoints; None if these lack the modality.
        always: whether models from before ``--modalities`` have the modality.
        parts: name of a part -> its module in the embedding; ``--trainable`` and ``--freeze`` know it as ``image_cnn``, for example.
    """

    loader: Callable[[Any], MediaLoader]
    embedding: Callable[[Any], "MediaEmbedding"]
    type_row: int
    packages: Callable[[Any], Mapping[str, str]] = lambda options: {}
    takes: tuple[str, ...] = ()
    has_geometry: bool = False
    geometry_of: Callable[[Any, bytes], Geometry] | None = None
    from_array: Callable[[np.ndarray | Tensor], bytes] | None = None
    sampled: str = ""
    network: Network | None = None
    published: Published | None = None
    always: bool = False
    parts: Mapping[str, str] = field(default_factory=lambda: dict(PARTS))


@dataclass(frozen=True)
class Modality:
    """One modality.

    Attributes:
        name: name in instructions, such as IMAGE; batches, checkpoint keys and options have it in lower case, see :attr:`key`.
        attributes: attributes that slots of the modality may have in an instruction.
        options: dataclass of options for reading its cells (see :func:`unival.modalities.options.option`); they are options of the task.
        model_options: dataclass of its part of the model's configuration.  An option that ``options`` has too takes its value from there.
        media: how its files become tokens of the encoder; None if its cells become token ids, as those of text.
        target: function of vocabulary and options -> conversion of cells to token ids and back; None if its cells are media.
        is_source: whether slots of it may be in the source.
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
        """Whether slots of it may be in the target."""
        return self.target is not None

    @property
    def key(self) -> str:
        """The name in lower case."""
        return self.name.lower()


@dataclass
class MediaTokens:
    """Embedded media: ``tokens`` ``n x tokens x c``, and ``position_ids``, one per token (row of the 2-D position table, and bucket)."""

    tokens: Tensor
    position_ids: Tensor

    def __getitem__(self, index: int) -> Tensor:
        """The tensor at an index: torch's backward hooks, such as those of fairseq's NanDetector, look for a module's first one."""
        return (self.tokens, self.position_ids)[index]


def grid_positions(height: int, width: int, bucket_size: int, device: torch.device | None = None) -> Tensor:
    """Position ids of a ``height x width`` grid, row-major: ``row * bucket_size + column + 1`` (0 is the special position)."""
    rows = torch.arange(height, device=device)[:, None] * bucket_size
    return (rows + torch.arange(width, device=device)[None, :] + 1).flatten()


# Shape of a feature map (without batch and channels) and bucket size -> position id of every feature, in flattened order.
Layout = Callable[[tuple[int, ...], int], Tensor]


def image_layout(shape: tuple[int, ...], bucket_size: int) -> Tensor:
    """Positions of an image's features ``height x width``: their places in the grid."""
    height, width = shape
    if max(height, width) > bucket_size:
        raise UserError(
            f"a grid of {height} x {width} patches exceeds {bucket_size} per side: use smaller images (--patch-image-size,"
            " of videos --patch-frame-size) or a larger --image-bucket-size"
        )
    return grid_positions(height, width, bucket_size)


def video_layout(shape: tuple[int, ...], bucket_size: int) -> Tensor:
    """Positions of a video's features ``time x height x width``: their places in the frame, the same in every frame."""
    frames, height, width = shape
    return image_layout((height, width), bucket_size).repeat(frames)


def audio_layout(shape: tuple[int, ...], bucket_size: int) -> Tensor:
    """Positions of audio features ``time x frequency``: row by row in the smallest square with room for all of them (as published)."""
    count = math.prod(shape)
    side = math.isqrt(count - 1) + 1  # ceil(sqrt(count))
    if side > bucket_size:
        raise UserError(
            f"{count} audio tokens exceed {bucket_size} x {bucket_size}: use a larger --audio-hop-size, shorter audio"
            " (--max-audio-seconds) or a larger --image-bucket-size"
        )
    return grid_positions(side, side, bucket_size)[:count]


@functools.lru_cache(maxsize=32)
@torch.inference_mode(False)
def positions_on(layout: Layout, shape: tuple[int, ...], bucket_size: int, device: torch.device) -> Tensor:
    """A layout's position ids on a device.  The same grid gives the same tensor object, which others use as a key of their caches."""
    return layout(shape, bucket_size).to(device)


def has_norm(cfg: Any, name: str) -> bool:
    """Whether a model's configuration has a layer norm for a modality (name in lower case)."""
    chosen = cfg.modality_layernorm_media
    return cfg.modality_layernorm and (chosen is None or name in split_names(chosen))


class Statistics(NamedTuple):
    """Mean and deviation per channel of pixels between 0 and 1."""

    mean: tuple[float, ...]
    std: tuple[float, ...]

    def normalise(self, values: Tensor) -> Tensor:
        """Normalise uint8 ``n x channels x … x width`` to float32, whatever the precision of the model: half precision would round."""
        shape = [values.shape[1], *[1] * (values.dim() - 2)]
        mean, std = (torch.tensor(numbers, dtype=torch.float32, device=values.device).view(shape) for numbers in self)
        if values.stride(1) == 1:  # channels are last in memory: with the numbers of a whole line, torch need not go by single pixels
            shape[-1] = values.shape[-1]
            mean, std = (numbers.expand(shape).movedim(0, -1).contiguous().movedim(-1, 0) for numbers in (mean, std))
        return values.to(torch.float32, copy=True).div_(255).sub_(mean).div_(std)


class MediaEmbedding(nn.Module):
    """Embed the media of a modality: backbone, projection to the model's width, position ids.

    Args:
        backbone: network from media ``n x …`` to features ``n x out_channels x …``; it has an attribute ``out_channels``.
        dim: width of the model.
        bucket_size: largest side of the grid of tokens.
        frozen: do not train the backbone at all (weights, batch-norm statistics, dropout, SpecAugment).
        frozen_norms: batch norms that stay in eval mode while the rest is trained.
        norm: apply a layer norm after the projection.
        layout: function of the shape of the features and ``bucket_size`` -> position id of every feature.
        statistics: mean and deviation by which uint8 media are normalised here, on the device; None if media are floats.
        is_grid: whether positions are places in an image, so that those of a larger grid may be interpolated.
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
        """Set the mode of training, except for frozen parts, which stay in eval mode."""
        super().train(mode)
        if self.frozen:
            self.backbone.eval()
        for norm in self._frozen_norms:
            norm.eval()
        return self

    def keep_untrained(self) -> None:
        """Keep what has no trained parameters as it is in training, too: the backbone, or batch norms whose scales are frozen."""
        self.frozen = self.frozen or not any(parameter.requires_grad for parameter in self.backbone.parameters())
        norms = [module for module in self.backbone.modules() if isinstance(module, _BatchNorm)]
        self._frozen_norms = [norm for norm in norms if norm in self._frozen_norms or (norm.affine and not norm.weight.requires_grad)]
        self.train(self.training)

    def keeps(self, norm: nn.Module) -> bool:
        """Whether a batch norm of the backbone keeps its statistics in training."""
        return self.frozen or norm in self._frozen_norms

    def forward(self, values: Tensor) -> MediaTokens:
        """Embed media ``n x …``, floats or bytes; see :class:`MediaTokens`."""
        if values.dtype == torch.uint8:
            assert self.statistics is not None, "uint8 media, and no statistics to normalise them by"
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
        tokens = self.proj(features.flatten(2).transpose(1, 2))  # n x tokens x c
        if self.norm is not None:
            tokens = self.norm(tokens)
        return MediaTokens(tokens, positions_on(self.layout, tuple(features.shape[2:]), self.bucket_size, values.device))


def embed_with(backbone: Foldable, cfg: Any, name: str, **options: Any) -> MediaEmbedding:
    """The embedding of a CNN's features by the options of a model that all CNNs share.

    Args:
        backbone: the CNN.
        cfg: the model's configuration.
        name: the modality, in lower case.
        options: further ones of :class:`MediaEmbedding`.
    """
    from unival.backbones.resnet import freeze_batchnorm  # imports timm: only where a model is built

    backbone.mode = Mode.of(cfg)
    norms = freeze_batchnorm(backbone) if cfg.freeze_batchnorm else []
    sizes = cfg.encoder_embed_dim, cfg.image_bucket_size
    return MediaEmbedding(backbone, *sizes, frozen_norms=norms, norm=has_norm(cfg, name), **options)
