"""Frames of videos of every kind: the one asked for is the one read."""

import pytest

from tests.modalities import clips
from unival.errors import UserError
from unival.modalities.video import frame_indices, open_frames

pytest.importorskip("av")

N = 40
X264 = {"codec": "libx264", "options": {"preset": "ultrafast", "bf": "2", "x264-params": "keyint=12:log=-1"}}
X264_LONG = {"codec": "libx264", "options": {"preset": "ultrafast", "x264-params": "bframes=3:log=-1"}}
OPEN_GOP = {"codec": "libx264", "options": {"x264-params": "keyint=10:min-keyint=10:scenecut=0:bframes=3:open-gop=1:b-adapt=0:log=-1"}}
REFRESH = {"codec": "libx264", "options": {"x264-params": "intra-refresh=1:keyint=12:bframes=0:log=-1"}}
INTERLACED = {"codec": "libx264", "options": {"x264-params": "tff=1:keyint=12:log=-1"}}
NO_B = {"codec": "libx264", "options": {"preset": "ultrafast", "bf": "0"}}
X265 = {"codec": "libx265", "options": {"preset": "ultrafast", "x265-params": "log-level=none:keyint=12:bframes=3:open-gop=1"}}
X265_CLOSED = {"codec": "libx265", "options": {"preset": "ultrafast", "x265-params": "log-level=none:keyint=12:open-gop=0"}}
MPEG4_B = {"codec": "mpeg4", "options": {"g": "12", "bf": "2", "b": "2M"}}
MPEG2 = {"codec": "mpeg2video", "options": {"g": "12", "bf": "2", "b": "2M"}}
MPEG1 = {"codec": "mpeg1video", "options": {"g": "12", "bf": "2", "b": "2M"}}
VP8 = {"codec": "libvpx", "options": {"g": "12", "auto-alt-ref": "1", "lag-in-frames": "12", "cpu-used": "8", "b": "1M"}}
VP9 = {"codec": "libvpx-vp9", "options": {"g": "16", "auto-alt-ref": "1", "lag-in-frames": "12", "cpu-used": "8", "b": "1M"}}
AV1 = {"codec": "libsvtav1", "options": {"g": "12", "preset": "8", "crf": "10"}}
MJPEG = {"codec": "mjpeg", "pix_fmt": "yuvj420p"}

KINDS = {
    **{f"h264 {container}": {"container": container, **X264} for container in ("mp4", "mov", "matroska", "avi", "asf", "flv")},
    **{f"h264 {container}": {"container": container, **X264} for container in ("mpeg", "mpegts", "3gp", "h264", "nut", "mxf")},
    **{f"h264 keyint 250 {container}": {"container": container, **X264_LONG} for container in ("mp4", "matroska", "mpegts", "avi")},
    **{f"h264 open GOP {container}": {"container": container, **OPEN_GOP} for container in ("mp4", "matroska", "mpegts", "flv")},
    **{f"h264 intra refresh {container}": {"container": container, **REFRESH} for container in ("mp4", "matroska", "mpegts")},
    **{f"h264 interlaced {container}": {"container": container, **INTERLACED} for container in ("mp4", "mpegts")},
    **{f"h264 without B-frames {container}": {"container": container, **NO_B} for container in ("mp4", "matroska", "flv", "asf")},
    **{f"h264 {format}": {**X264_LONG, "pix_fmt": format} for format in ("yuv422p", "yuv444p", "gray", "yuv420p10le", "yuv422p10le")},
    **{f"hevc open GOP {container}": {"container": container, **X265} for container in ("mp4", "matroska", "mpegts", "hevc")},
    "hevc mp4": X265_CLOSED,
    **{f"mpeg4 {container}": {"container": container, **MPEG4_B} for container in ("mp4", "avi", "matroska", "mpegts", "3gp", "m4v")},
    **{f"mpeg2 {container}": {"container": container, **MPEG2} for container in ("mpeg", "mpegts", "mp4", "matroska", "avi", "mpeg2video")},
    **{f"mpeg1 {container}": {"container": container, **MPEG1} for container in ("mpeg", "mpegts", "mpeg1video")},
    **{f"{codec} asf": {"container": "asf", "codec": codec} for codec in ("wmv1", "wmv2", "msmpeg4v3")},
    "msmpeg4 avi": {"container": "avi", "codec": "msmpeg4v3"},
    "flv1 flv": {"container": "flv", "codec": "flv"},
    "h263 3gp": {"container": "3gp", "codec": "h263", "width": 128, "height": 96},
    **{f"vp8 {container}": {"container": container, **VP8} for container in ("webm", "avi", "ogg", "ivf")},
    **{f"vp9 {container}": {"container": container, **VP9} for container in ("webm", "mp4", "avi", "ivf")},
    **{f"av1 {container}": {"container": container, **AV1} for container in ("mp4", "webm", "ivf")},
    **{f"mjpeg {container}": {"container": container, **MJPEG} for container in ("avi", "mov", "matroska")},
    "prores mov": {"container": "mov", "codec": "prores_ks", "pix_fmt": "yuv422p10le"},
    "prores 4444 mov": {"container": "mov", "codec": "prores_ks", "pix_fmt": "yuva444p10le"},
    "ffv1 matroska": {"container": "matroska", "codec": "ffv1"},
    "huffyuv avi": {"container": "avi", "codec": "huffyuv", "pix_fmt": "yuv422p"},
    "rgb avi": {"container": "avi", "codec": "utvideo", "pix_fmt": "gbrp"},
    "raw avi": {"container": "avi", "codec": "rawvideo"},
    "dnxhd mov": {"container": "mov", "codec": "dnxhd", "pix_fmt": "yuv422p", "width": 1920, "height": 1080, "options": {"b": "36M"}},
    **{f"h264 {w} x {h}": {**X264, "width": w, "height": h} for w, h in ((72, 72), (16, 16), (98, 54), (34, 66))},
    **{f"{w} x {h}": {"codec": "ffv1", "container": "matroska", "width": w, "height": h} for w, h in ((33, 65), (15, 17))},
    **{f"h264 yuv444p {w} x {h}": {**X264, "pix_fmt": "yuv444p", "width": w, "height": h} for w, h in ((73, 41),)},
}


def made(kind, **more):
    """The clip of a kind."""
    how = {**KINDS[kind], **more}
    frames = how.pop("frames", 4 if "dnxhd" in kind else N)
    return frames, clips.clip(frames=frames, **how)


def read(data, indices=None, count=8, backend="pyav"):
    """Number of frames, and the numbers that the frames asked for show."""
    with open_frames(data, backend) as (total, frame):
        chosen = frame_indices(total, count, None) if indices is None else indices
        return total, [clips.number_of(frame(i)) for i in chosen]


@pytest.mark.parametrize("kind", KINDS)
def test_the_frames_asked_for(kind):
    total, data = made(kind)
    assert read(data, range(total)) == (total, list(range(total)))
    for chosen in (frame_indices(total, 8, None)[:total], [total - 1], [total // 2, total - 1]):
        assert read(data, chosen) == (total, list(chosen))


@pytest.mark.parametrize("kind", KINDS)
def test_decord_shows_the_frames_asked_for_or_is_not_used(kind):
    pytest.importorskip("decord")
    total, data = made(kind)
    try:
        found = read(data, backend="decord")
    except UserError as error:
        assert "--video-backend pyav" in str(error) and "\n" not in str(error)
    else:
        assert found == (total, frame_indices(total, 8, None)[:total])
