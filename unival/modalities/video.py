"""Videos: decode a few frames, fit them to squares, augment; a 3-D ResNeXt turns the normalised pixels into tokens."""

import contextlib
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Optional

import numpy as np
import torch
from PIL import Image, ImageEnhance, ImageOps
from torch import Tensor

from unival.backbones.layouts import RESNETS3D
from unival.errors import UserError
from unival.modalities import decord_reader, kinds, pyav_reader
from unival.modalities.base import (
    CLASSIFIER,
    RESNET_PROBES,
    Media,
    MediaEmbedding,
    Modality,
    Network,
    Published,
    embed_with,
    video_layout,
)
from unival.modalities.containers import declared_size
from unival.modalities.geometry import Geometry, Loaded
from unival.modalities.image import statistics_of
from unival.modalities.options import at_least, one_of, option
from unival.modalities.pillow import check_memory, decoding, open_image
from unival.modalities.pixels import orientation, to_rgb, upright
from unival.modalities.pyav_reader import STILL, Frames
from unival.modalities.torch_images import as_tensor, resized

SAMPLE_TYPES = ("rand", "middle")
FRAME_FITS = ("crop", "squash", "published")
RESIZES = ("torch", "pil")
BACKENDS = ("pyav", "decord")  # decoders of videos and of their audio tracks

Fit = Callable[[Image.Image], Image.Image | Tensor]  # a frame -> its square: an image, or ``side x side x 3`` pixels

CROP_SCALE = (0.5, 1.0)  # area of a random crop, as a fraction of the frame
CROP_RATIO = (3 / 4, 4 / 3)  # width / height of a random crop
CROP_ATTEMPTS = 10
AUGMENT_OPS = 2  # operations in a row
AUGMENT_STRENGTH = 0.7  # magnitude 7 of 10
GREY = (128, 128, 128)  # colour of the area that shears, shifts and rotations leave empty


def frame_indices(total: int, count: int, rng: np.random.Generator | None) -> list[int]:
    """Choose ``count`` of ``total`` frames, in order: one of each of ``count`` equal intervals.

    Every frame of an interval is equally likely; without ``rng`` it is the one in the middle.  Where ``total`` is less than
    ``count``, all frames are read and the last one is repeated.
    """
    intervals = min(total, count)
    bounds = [i * total // intervals for i in range(intervals + 1)]
    if rng is None:
        chosen = [(start + stop - 1) // 2 for start, stop in zip(bounds, bounds[1:], strict=False)]
    else:
        chosen = [int(i) for i in rng.integers(bounds[:-1], bounds[1:])]
    return chosen + chosen[-1:] * (count - intervals)


@dataclass(frozen=True)
class VideoOptions:
    """How videos are read."""

    patch_frame_size: int = option(224, "pixels per side of video frames", at_least(1))
    num_frames: int = option(8, "frames taken from a video", at_least(1))
    sample_type: str = option(
        "rand",
        "frames in training: one of each interval at random (rand) or its middle one, as in evaluation (middle)",
        one_of(*SAMPLE_TYPES),
        training_only=True,
    )
    frame_fit: str = option(
        "crop",
        "how frames become squares: resize the shorter side and crop the centre (crop), resize both sides (squash),"
        " or crop the centre without resizing, as the published evaluation does (published)",
        one_of(*FRAME_FITS),
    )
    video_backend: str = option(
        "pyav",
        "decoder of videos and their audio tracks: FFmpeg through PyAV, with exact frames (pyav), or decord, as"
        " published; files that decord may read wrongly are refused (decord)",
        one_of(*BACKENDS),
    )
    frame_resize: str = option(
        "torch",
        "resize of frames: torch, in a sixth of the time, whose pixels differ from Pillow's by at most 1 of 255, by 2 in few"
        " of a million (torch), or Pillow, as published (pil); --use-dataaug always takes Pillow",
        one_of(*RESIZES),
        before="pil",
    )
    use_dataaug: bool = option(
        False,
        "in training, augment video frames: random crops, mirror images, two random operations",
        training_only=True,
    )


@dataclass(frozen=True)
class VideoModelOptions:
    """The video CNN."""

    video_backbone: str = option(
        "resnext3d101", "video CNN: resnext3d14, resnext3d50, resnext3d101, resnext3d152, resnet3d50, resnet3d101"
    )
    video_backbone_weights: Optional[str] = option(
        None, "file with weights of the video CNN (resnext-101-kinetics.pth) to start from"
    )
    inflate_video_backbone: bool = option(
        False, "--video-backbone-weights is a 2-D ResNeXt: repeat its filters over time (inflation)"
    )
    freeze_video_backbone: bool = option(False, "do not train the video CNN: weights, batch-norm statistics, all of it")
    sample_video_patch_num: int = option(0, "in training, keep this many randomly chosen patches per video (0: all)")


class VideoLoader:
    """Load video files as uint8 pixels ``3 x frames x side x side``.

    Frames: see :func:`frame_indices`; random ones in training with ``sample_type`` rand, else the middle ones.

    Fit (``frame_fit``): ``crop`` resizes the shorter side and crops the centre; ``squash`` resizes to a square, as for images;
    ``published`` crops the centre without resizing and pads smaller frames with black, as the original evaluates.

    Augmentation (``use_dataaug``, in training): see :class:`Augmentation`.
    """

    def __init__(self, options: VideoOptions):
        self.options = options
        self.size = options.patch_frame_size

    def __call__(self, data: bytes, rng: np.random.Generator, train: bool) -> Loaded:
        """Decode and transform one file; everything random comes from ``rng``.

        Raises:
            UserError: the bytes are not a video, or are truncated, or a package is missing; the caller adds file, row and column.
        """
        with open_frames(data, self.options.video_backend) as (total, frame):
            is_random = train and self.options.sample_type == "rand"
            indices = frame_indices(total, self.options.num_frames, rng if is_random else None)
            size: tuple[int, int] | None = None
            fit: Fit | None = None
            fitted: dict[int, np.ndarray] = {}
            is_augmented = train and self.options.use_dataaug
            for i in sorted(set(indices)):
                picture = frame(i)
                size = size or picture.size
                if picture.size != size:  # the size may change within a video
                    picture = picture.resize(size, Image.Resampling.BICUBIC)
                if fit is None:
                    fit = self.fit(picture.size, rng if is_augmented else None)
                fitted[i] = np.asarray(fit(picture))
        pixels = np.stack([fitted[i] for i in indices])  # frames x side x side x 3
        assert size is not None
        geometry = None if is_augmented else fit_geometry(size, self.size, self.options.frame_fit)
        return Loaded(torch.from_numpy(pixels).permute(3, 0, 1, 2), geometry)

    def fit(self, size: tuple[int, int], rng: np.random.Generator | None) -> Fit:
        """The transform to a square for frames of this width and height; with an ``rng`` it augments, too."""
        if rng is not None:
            return draw_augmentation(size, self.size, rng)
        how = self.options.frame_fit
        if self.options.frame_resize == "pil" or how == "published":
            return lambda picture: fit_frame(picture, self.size, how)
        return lambda picture: fit_by_torch(picture, self.size, how)


def fit_frame(frame: Image.Image, size: int, how: str) -> Image.Image:
    """Fit a frame to a square of ``size`` pixels per side; ``how`` is one of :data:`FRAME_FITS`."""
    if how != "published":
        frame = frame.resize(fit_size(frame.size, size, how), Image.Resampling.BICUBIC)
    left, top = crop_offset(frame.size, size)
    return frame.crop((left, top, left + size, top + size))  # black outside the frame


def fit_by_torch(frame: Image.Image, size: int, how: str) -> Tensor:
    """:func:`fit_frame` by torch, for frames that are resized: ``size x size x 3`` pixels, uint8."""
    to = fit_size(frame.size, size, how)
    left, top = crop_offset(to, size)
    return resized(as_tensor(frame), to)[:, top : top + size, left : left + size].permute(1, 2, 0)


def fit_size(frame: tuple[int, int], size: int, how: str) -> tuple[int, int]:
    """Width and height that a frame is resized to before its centre is cropped."""
    if how == "squash":
        return size, size
    width, height = frame
    return frame if how == "published" else (width * size // min(frame), height * size // min(frame))


def crop_offset(frame: tuple[int, int], size: int) -> tuple[int, int]:
    """Left and top of the centre crop of a frame; negative where a smaller frame is padded.

    As in torchvision: crops are rounded, and an odd pixel of padding is on the right or at the bottom.
    """
    left, top = (round((side - size) / 2) if side >= size else -((size - side) // 2) for side in frame)
    return left, top


def fit_geometry(frame: tuple[int, int], size: int, how: str) -> Geometry:
    """Where :func:`fit_frame` puts the pixels of frames of this width and height."""
    resized = fit_size(frame, size, how)
    left, top = crop_offset(resized, size)
    return Geometry(frame, size, (resized[0] / frame[0], resized[1] / frame[1]), (float(-left), float(-top)))


# Augmentation ---------------------------------------------------------------------------------------------------------


def _affine(frame: Image.Image, row_x: tuple[float, float, float], row_y: tuple[float, float, float]) -> Image.Image:
    """Warp around the centre: ``x = row_x . (x', y', 1)`` and so on, shifts in fractions of a side."""
    width, height = frame.size
    (a, b, c), (d, e, f) = row_x, row_y
    x0, y0 = width / 2, height / 2
    data = (a, b, c * width + x0 - a * x0 - b * y0, d, e, f * height + y0 - d * x0 - e * y0)
    return frame.transform(frame.size, Image.Transform.AFFINE, data, Image.Resampling.BILINEAR, fillcolor=GREY)


# name -> operation with a strength in [-1, 1]; full strength: half as bright or sharp again, 0.3 of shear, 10 pixels in 224, 30 degrees
OPERATIONS: dict[str, Callable[[Image.Image, float], Image.Image]] = {
    "identity": lambda frame, strength: frame,
    "autocontrast": lambda frame, strength: ImageOps.autocontrast(frame),
    "equalize": lambda frame, strength: ImageOps.equalize(frame),
    "brightness": lambda frame, strength: ImageEnhance.Brightness(frame).enhance(1 + strength / 2),
    "sharpness": lambda frame, strength: ImageEnhance.Sharpness(frame).enhance(1 + strength / 2),
    "shear_x": lambda frame, strength: _affine(frame, (1, 0.3 * strength, 0), (0, 1, 0)),
    "shear_y": lambda frame, strength: _affine(frame, (1, 0, 0), (0.3 * strength, 1, 0)),
    "translate_x": lambda frame, strength: _affine(frame, (1, 0, strength * 10 / 224), (0, 1, 0)),
    "translate_y": lambda frame, strength: _affine(frame, (1, 0, 0), (0, 1, strength * 10 / 224)),
    "rotate": lambda frame, strength: frame.rotate(30 * strength, Image.Resampling.BILINEAR, fillcolor=GREY),
}


@dataclass(frozen=True)
class Augmentation:
    """One draw of a random resized crop, a horizontal flip and a chain of operations, the same for all frames of a video.

    Flipped frames swap left and right, which makes captions and answers wrong that mention them.
    """

    box: tuple[int, int, int, int]  # left, top, right, bottom in pixels of the decoded frame
    flip: bool
    operations: tuple[tuple[str, float], ...]  # keys of OPERATIONS with signed strengths
    size: int

    def __call__(self, frame: Image.Image) -> Image.Image:
        """Crop, flip and transform a frame to a square of ``size`` pixels per side."""
        frame = frame.resize((self.size, self.size), Image.Resampling.BICUBIC, box=self.box)
        if self.flip:
            frame = frame.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        for name, strength in self.operations:
            frame = OPERATIONS[name](frame, strength)
        return frame


def draw_augmentation(frame_size: tuple[int, int], size: int, rng: np.random.Generator) -> Augmentation:
    """Draw an augmentation for frames of this width and height."""
    box = draw_box(*frame_size, rng)
    flip = bool(rng.random() < 0.5)
    names = [list(OPERATIONS)[i] for i in rng.integers(len(OPERATIONS), size=AUGMENT_OPS)]
    signs = rng.choice((-1.0, 1.0), size=AUGMENT_OPS)
    return Augmentation(box, flip, tuple((n, AUGMENT_STRENGTH * float(s)) for n, s in zip(names, signs, strict=True)), size)


def draw_box(width: int, height: int, rng: np.random.Generator) -> tuple[int, int, int, int]:
    """A crop with area and aspect within :data:`CROP_SCALE` and :data:`CROP_RATIO`; the largest centre crop if no draw fits."""
    for _ in range(CROP_ATTEMPTS):
        area = width * height * rng.uniform(*CROP_SCALE)
        ratio = np.exp(rng.uniform(*np.log(CROP_RATIO)))
        w, h = round(float(np.sqrt(area * ratio))), round(float(np.sqrt(area / ratio)))
        if 0 < w <= width and 0 < h <= height:
            left, top = int(rng.integers(width - w + 1)), int(rng.integers(height - h + 1))
            return left, top, left + w, top + h
    w = min(width, max(1, round(height * CROP_RATIO[1])))  # as much of the centre as the aspects allow
    h = min(height, max(1, round(width / CROP_RATIO[0])))
    left, top = (width - w) // 2, (height - h) // 2
    return left, top, left + w, top + h


# Decoding -------------------------------------------------------------------------------------------------------------

JPEG_START, JPEG_END = b"\xff\xd8\xff", b"\xff\xd9"
FRAME_BYTES = 8  # per pixel: Pillow keeps the previous frame, and the canvas below a frame that will be removed


@contextlib.contextmanager
def open_frames(data: bytes, backend: str = "pyav") -> Iterator[Frames]:
    """Open a video: animated GIF, WebP and PNG with Pillow, all else with ``backend``, one of :data:`BACKENDS`.

    Raises:
        UserError: the file cannot be decoded; also raised by the reader, where a requested frame cannot be.
    """
    if not data:
        raise UserError("cannot decode the video: the file is empty")
    if (size := declared_size(data)) is not None and size > len(data):
        raise UserError(f"cannot decode the video: it is truncated after {len(data)} of {size} bytes")
    is_webp = data[:4] == b"RIFF" and data[8:12] == b"WEBP"
    if is_webp or data.startswith((b"GIF8", b"\x89PNG\r\n")):
        yield _open_animation(data)
    elif data.startswith(JPEG_START) and JPEG_END + JPEG_START in data:
        raise UserError(
            "cannot decode the video: it is a sequence of JPEG images without timestamps (ffmpeg -i old.mjpeg new.mp4)"
        )
    elif kinds.kind_of(data) == kinds.IMAGE:
        raise UserError(STILL)
    else:
        open_video = decord_reader.open_video if backend == "decord" else pyav_reader.open_video
        with open_video(data) as video:
            yield video


def _open_animation(data: bytes) -> Frames:
    with decoding("video", data):
        file = open_image(data, ("GIF", "WEBP", "PNG"))
        check_memory(file, FRAME_BYTES * math.prod(file.size))
        frames = file.n_frames
        first = 1 if file.info.get("default_image") else 0  # a PNG may have a still image before the animation
        total = frames - first
    if frames == 1 and file.format != "GIF":  # a GIF is a video even with one frame
        raise UserError(STILL)

    def frame(index: int) -> Image.Image:
        with decoding("video", data):
            for i in range(min(file.tell() + 1, first + index), first + index + 1):  # Pillow has to decode the previous ones first
                file.seek(i)
                check_memory(file, FRAME_BYTES * math.prod(file.size))  # a GIF's frames may be larger than it says
            return upright(to_rgb(file), orientation(file)).convert("RGB")

    if not data.rstrip(b"\0").endswith((b";", b"IEND\xae\x42\x60\x82")) and file.format != "WEBP":
        frame(total - 1)  # the end mark is missing: the last frame shows whether more is
    return total, frame


def _embedding(cfg: Any) -> MediaEmbedding:
    from unival.backbones.resnext3d import ResNeXt3D

    backbone = ResNeXt3D(cfg.video_backbone)
    how = {"frozen": cfg.freeze_video_backbone, "statistics": statistics_of(cfg), "layout": video_layout}
    return embed_with(backbone, cfg, "video", **how)


def _packages(options: VideoOptions) -> dict[str, str]:
    needs = {"av": f"videos other than animated GIF, WebP and PNG need it: {pyav_reader.INSTALL['video']}"}
    if options.video_backend == "decord":
        needs["decord"] = f"--video-backend decord needs it: {decord_reader.INSTALL}"
    return needs


NETWORK = Network(
    option="video_backbone",
    choices=tuple(RESNETS3D),
    weights="video_backbone_weights",
    frozen="freeze_video_backbone",
    inflated="inflate_video_backbone",
    probes=RESNET_PROBES,
    left_out={"fc.": CLASSIFIER},
    stages=(4,),
)
PUBLISHED = Published(
    encoder="video_encoder_name",
    encoders={f"all_resnext{depth}": {"video_backbone": f"resnext3d{depth}"} for depth in (50, 101, 152)},
)
VIDEO = Modality(
    "VIDEO",
    options=VideoOptions,
    model_options=VideoModelOptions,
    media=Media(
        VideoLoader,
        _embedding,
        type_row=2,
        packages=_packages,
        takes=(kinds.VIDEO,),
        has_geometry=True,
        sampled="sample_video_patch_num",
        network=NETWORK,
        published=PUBLISHED,
    ),
)
