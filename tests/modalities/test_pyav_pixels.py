"""Frames of videos as they are looked at: upright, in the right colours, on white."""

import io

import numpy as np
import pytest

from tests.modalities import clips
from tests.modalities.test_pyav_reader import X264
from unival.modalities.composed import MediaOptions
from unival.modalities.video import VideoLoader, open_frames

av = pytest.importorskip("av")

TURNS = {
    "hflip": ((-1, 0, 0, 1), lambda x: x[:, ::-1]),
    "vflip": ((1, 0, 0, -1), lambda x: x[::-1]),
    "180": ((-1, 0, 0, -1), lambda x: np.rot90(x, 2)),
    "90": ((0, 1, -1, 0), lambda x: np.rot90(x, -1)),
    "270": ((0, -1, 1, 0), np.rot90),
    "transpose": ((0, 1, 1, 0), lambda x: x.swapaxes(0, 1)),
    "transverse": ((0, -1, -1, 0), lambda x: np.rot90(x, 2).swapaxes(0, 1)),
}


@pytest.mark.parametrize("turn", TURNS)
def test_frames_are_upright(turn):
    matrix, expected = TURNS[turn]
    data = clips.clip(frames=5, width=96, height=64, **X264)
    with open_frames(data) as (_, frame):
        plain = np.asarray(frame(3))
    with open_frames(clips.with_matrix(data, *matrix)) as (_, frame):
        assert np.array_equal(np.asarray(frame(3)), expected(plain))


def gradient_clip(container, codec, pix_fmt, colours=None, to=None, alpha=None, **options):
    """Five equal frames of a colour gradient, and the gradient."""

    y, x = np.mgrid[:48, :64]
    image = np.stack([4 * x, 5 * y, 255 - 2 * x - 2 * y], 2).astype(np.uint8)
    source = image if alpha is None else np.dstack([image, alpha])
    buffer = io.BytesIO()
    with av.open(buffer, "w", format=container) as out:
        stream = clips.encoder(out, codec, 64, 48, 25, pix_fmt, options, **(colours or {}))
        for i in range(5):
            frame = av.VideoFrame.from_ndarray(source, format="rgb24" if alpha is None else "rgba").reformat(format=pix_fmt, **(to or {}))
            frame.pts = i
            out.mux(stream.encode(frame))
        out.mux(stream.encode())
    return buffer.getvalue(), image


BT709 = {"colorspace": 1, "color_primaries": 1, "color_trc": 1}
COLOURS = {
    "BT.601": ("libx264", "yuv444p", {}, {}),
    "BT.709": ("libx264", "yuv444p", BT709, {"dst_colorspace": "ITU709"}),
    "full range": ("libx264", "yuvj444p", {}, {}),
    "10 bit": ("libx264", "yuv444p10le", {}, {}),
    "RGB": ("libx264rgb", "rgb24", {}, {}),
    "JPEG": ("mjpeg", "yuvj444p", {}, {}),
}


@pytest.mark.parametrize("kind", COLOURS)
def test_colours(kind):
    codec, pix_fmt, colours, to = COLOURS[kind]
    data, image = gradient_clip("matroska", codec, pix_fmt, colours, to, **({"crf": "1"} if "264" in codec else {"qmax": "2", "qmin": "1"}))
    with open_frames(data) as (total, frame):
        difference = np.asarray(frame(2)).astype(int) - image
    assert total == 5 and np.abs(difference).mean() < 3 and np.abs(difference.mean((0, 1))).max() < 1.5


@pytest.mark.parametrize("kind", ["BT.601", "BT.709", "full range"])
def test_ordinary_frames_are_those_of_decord(kind):
    pytest.importorskip("decord")
    codec, pix_fmt, colours, to = COLOURS[kind]
    data, _ = gradient_clip("mp4", codec, pix_fmt.replace("444", "420"), colours, to)
    with open_frames(data) as (_, ours), open_frames(data, "decord") as (_, theirs):
        assert np.abs(np.asarray(ours(2)).astype(int) - np.asarray(theirs(2))).max() <= 2


@pytest.mark.parametrize(
    "container, codec, pix_fmt",
    [
        ("mov", "prores_ks", "yuva444p10le"),
        ("webm", "libvpx-vp9", "yuva420p"),
        ("webm", "libvpx", "yuva420p"),
        ("matroska", "ffv1", "bgra"),
        ("mov", "qtrle", "argb"),
    ],
)
def test_transparent_frames_are_on_white(container, codec, pix_fmt):
    alpha = np.repeat(np.repeat(np.array([[0, 0, 128, 255]], np.uint8), 16, 1), 48, 0)
    data, image = gradient_clip(container, codec, pix_fmt, alpha=alpha, **({"auto-alt-ref": "0", "b": "2M"} if "vpx" in codec else {}))
    with open_frames(data) as (_, frame):
        found = np.asarray(frame(2)).astype(int)
    share = alpha[..., None] / 255
    assert (found[:, :30] > 247).all() and np.abs(found - (image * share + 255 * (1 - share))).mean() < 5


def test_the_fourth_byte_of_uncompressed_avi_is_no_transparency():
    data, image = gradient_clip("avi", "rawvideo", "bgra", alpha=np.zeros((48, 64), np.uint8))
    with open_frames(data) as (_, frame):
        assert np.array_equal(np.asarray(frame(2)), image)


def test_frames_that_change_their_size():
    data = b"".join(clips.clip("h264", frames=20, **{**X264, "width": width}) for width in (64, 128))
    with open_frames(data) as (total, frame):
        assert total == 40 and [frame(i).size for i in (19, 20)] == [(64, 64), (128, 64)]
    for train in (False, True):
        loader = VideoLoader(MediaOptions(patch_frame_size=32, use_dataaug=True))
        assert loader(data, np.random.default_rng(0), train).values.shape == (3, 8, 32, 32)
