"""Frames of videos of every kind: the one asked for is the one read."""

import contextlib
import functools
import io
import itertools
import multiprocessing
import os

import numpy as np
import pytest
from PIL import Image

from tests.modalities import clips
from unival.errors import UserError
from unival.modalities.pyav_index import may_lose_frames, shows_frame, unit_places, unit_type
from unival.modalities.pyav_reader import Video
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


@functools.cache
def made(kind, frames=N):
    """The clip of a kind, and how many frames it has."""
    frames = 4 if "dnxhd" in kind else frames
    return frames, clips.clip(frames=frames, **KINDS[kind])


def decoded_in_order(data):
    """The numbers that a decoding from the start shows: what is right, by definition."""
    import av

    with av.open(io.BytesIO(data)) as container:
        container.streams.video[0].codec_context.thread_count = 1
        return [clips.number_of(frame.to_ndarray(format="rgb24")) for frame in container.decode(video=0)]


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


# Times and cuts -------------------------------------------------------------------------------------------------------

CODINGS = {"x264": X264, "open GOP": OPEN_GOP, "refresh": REFRESH, "hevc": X265, "mpeg4": MPEG4_B, "mpeg2": MPEG2, "vp9": VP9}
CUTS = {
    "before its key frame": {"shift": 15, "keep": lambda i, packet: i >= 12},  # hidden by an edit list, or shown
    "in the middle": {"shift": 15, "keep": lambda i, packet: i >= 15},
    "early end": {"keep": lambda i, packet: i < 33},
    "lost packet": {"keep": lambda i, packet: i != 7},
    "late": {"shift": -50},
    "before time zero": {"shift": 7},
}


@pytest.mark.parametrize("container", ["mp4", "mov", "matroska", "mpegts", "flv", "avi"])
@pytest.mark.parametrize("coding", CODINGS)
def test_cut_without_encoding_again(coding, container):
    """The frames are those of a decoding from the start, or the file is refused."""
    data = clips.clip("matroska" if coding == "vp9" else "nut", frames=N, **CODINGS[coding])
    found = set()
    for cut in CUTS.values():
        try:
            piece = clips.remux(data, container, **cut)
        except ValueError:  # the container does not take the codec
            continue
        try:
            total, numbers = read(piece)
        except UserError as error:
            assert "cannot decode the video" in str(error) and "\n" not in str(error)
        else:
            expected = decoded_in_order(piece)
            assert (total, numbers) == (len(expected), [expected[i] for i in frame_indices(total, 8, None)])
            assert read(piece, range(total)) == (total, expected)
            found.add(total)
    assert N in found or not found


@pytest.mark.parametrize("coding", ["x264", "open GOP", "hevc", "mpeg4"])
def test_edit_lists(coding):
    data = clips.clip("mp4", frames=N, **CODINGS[coding])
    for edits in ([(40, 0)], [(35, 5)], [(10, 15)], [(20, -1), (40, 0)], [(10, 0), (10, 0)], [(10, 24), (10, 0)]):
        expected = [i for n, first in edits if first >= 0 for i in range(first, first + n)]
        total, numbers = read(clips.with_edits(data, edits), range(len(expected)))
        assert (total, numbers) == (len(expected), expected)


@pytest.mark.parametrize("container", ["mp4", "matroska", "flv", "avi", "mpegts", "asf"])
def test_variable_frame_rates(container):
    times = [0, 1, 2, 5, 9, 10, 11, 30, 31, 32, 40, 41, 42, 43, 44, 80, 81, 82, 83, 90]
    assert read(clips.clip(container, frames=20, times=times, **X264))[1] == frame_indices(20, 8, None)


@pytest.mark.parametrize("container", ["mpegts", "mpeg2video", "h264"])
def test_concatenated_streams_with_times_that_start_again(container):
    data = clips.clip(container, frames=20, **(MPEG2 if container == "mpeg2video" else X264))
    assert read(2 * data, range(40)) == (40, 2 * list(range(20)))


@pytest.mark.parametrize("flags", ["frag_keyframe+empty_moov", "frag_every_frame+empty_moov", "negative_cts_offsets"])
def test_other_ways_of_writing_mp4(flags):
    data = clips.clip("mp4", frames=N, container_options={"movflags": flags}, **X264)
    assert read(data)[1] == frame_indices(N, 8, None)


@pytest.mark.parametrize("container", ["mp4", "matroska", "mpegts"])
@pytest.mark.parametrize("coding", ["x264", "open GOP", "hevc"])
def test_packets_without_a_frame_do_not_count(coding, container):
    """Of a codec whose packets hold frames, some hold only remarks (SEI)."""
    import av

    remark = bytes.fromhex("0000000106050100 80" if coding != "hevc" else "000000014e01050100 80")
    count = itertools.count()

    def without_frame(packet):
        if next(count) not in (8, 21):
            return packet
        empty = av.Packet(remark)
        empty.stream, empty.pts, empty.dts, empty.time_base = packet.stream, packet.pts, packet.dts, packet.time_base
        return empty

    data = clips.clip(container, frames=N, each_packet=without_frame, **CODINGS[coding])
    for chosen in (range(4), [20], None):
        try:
            total, numbers = read(data, chosen)
        except UserError as error:  # FFmpeg takes some of them for damage
            assert "by its packets" in str(error) or "damaged" in str(error)
        else:
            expected = decoded_in_order(data)  # which may leave out what is made from missing frames
            assert total == len(expected) <= N - 2
            assert numbers == [expected[i] for i in (frame_indices(total, 8, None) if chosen is None else chosen)]


def unit_types(packet, codec, extradata):
    """Types of the NAL units of a packet."""
    return [unit_type(packet[place], codec) for place in unit_places(packet, codec, extradata)]


def test_what_packets_show():
    """By the bits of VP8's and VP9's headers, and by the types of the units of H.264 and HEVC."""
    shown = [("vp8", "10"), ("vp9", "8200"), ("vp9", "8800"), ("vp9", "80000000c2"), ("av1", "00")]
    hidden = [("vp8", "01"), ("vp9", "8000"), ("h264", "00000109f0"), ("hevc", "0000014e01"), ("h264", "")]
    for is_shown, cases in ((True, shown), (False, hidden)):
        for codec, content in cases:
            packet = memoryview(bytes.fromhex(content))
            units = unit_types(packet, codec, b"") if codec in ("h264", "hevc") else []
            assert shows_frame(packet, codec, units) == is_shown
    lengths = bytes([1, 100, 0, 30, 0xFF])  # of MP4: four bytes each
    assert unit_types(memoryview(bytes.fromhex("0000000209f0 0000000265ff")), "h264", lengths) == [9, 5]
    assert unit_types(memoryview(bytes.fromhex("0000000209f0 0000000306ff00")), "h264", lengths) == [9, 6]


def joined_after_the_end_of_a_sequence(data, container, unit):
    """A clip whose last packet ends a sequence, and once more its packets from the second key frame on."""
    import av

    buffer = io.BytesIO()
    with av.open(io.BytesIO(data)) as source, av.open(buffer, "w", format=container) as out:
        stream = source.streams.video[0]
        copy = out.add_stream_from_template(stream)
        packets = [packet for packet in source.demux(stream) if packet.size]
        second = packets[[i for i, packet in enumerate(packets) if packet.is_keyframe][1] :]
        step = packets[1].dts - packets[0].dts
        shift = packets[-1].dts + step - second[0].dts
        for packet, later in [*((packet, 0) for packet in packets), *((packet, shift) for packet in second)]:
            end = len(unit).to_bytes(4, "big") + unit if packet is packets[-1] and not later else b""
            new = av.Packet(bytes(packet) + end)
            new.pts, new.dts, new.time_base = packet.pts + later, packet.dts + later, packet.time_base
            new.stream, new.is_keyframe = copy, packet.is_keyframe
            out.mux(new)
    return buffer.getvalue()


def read_in_many_ways(data):
    """Compare what reading gives, whatever it seeks past, with a decoding from the start."""
    expected = decoded_in_order(data)
    total = len(expected)
    for chosen in (range(total), [0, total // 2, total - 1], [total - 1], [total // 2]):
        assert read(data, chosen) == (total, [expected[i] for i in chosen])
    return total


@pytest.mark.parametrize("container", ["mp4", "flv"])
def test_frames_left_out_after_the_end_of_a_sequence(container):
    for codec, unit in (("hevc", "4801"), ("hevc", "4a01"), ("h264", "0a")):
        _, data = made(f"{codec} open GOP mp4")
        read_in_many_ways(joined_after_the_end_of_a_sequence(data, container, bytes.fromhex(unit)))


@pytest.mark.parametrize("container", ["mp4", "matroska", "flv"])
def test_frames_left_out_where_packets_are_lost(container):
    totals = set()
    for kind in ("h264 without B-frames mp4", "hevc open GOP mp4", "hevc mp4"):
        _, data = made(kind)
        for lost in ((5, 6, 17), (12, 24)):
            with contextlib.suppress(UserError):
                totals.add(read_in_many_ways(clips.remux(data, container, keep=lambda i, packet, lost=lost: i not in lost)))
    assert min(totals) < N - 3  # frames are left out beside those that are lost


def test_what_makes_reading_slow():
    """Times that jitter do not; a hole in them does, and only decoding as a whole tells whether frames are left out."""
    rng = np.random.default_rng(0)
    for jitter, hole, is_slow in ((0, 0, False), (20, 0, False), (20, 90, True), (80, 0, True)):
        times = [100 * i + int(rng.integers(jitter + 1)) + hole * (i >= 20) for i in range(N)]
        with contextlib.closing(Video(clips.clip(frames=N, times=[time - times[0] for time in times], rate=2500, **NO_B))) as video:
            assert video.open() == N
            assert may_lose_frames(video.packets) == is_slow


# Streams, and what is refused -----------------------------------------------------------------------------------------


def file_of(container, *streams):
    """A file of videos (numbers of frames, side, whether it is cover art) that all show their numbers."""
    import av

    buffer = io.BytesIO()
    with av.open(buffer, "w", format=container) as out:
        made = []
        for frames, side, is_cover in streams:
            stream = clips.encoder(out, "png" if is_cover else "libx264", side, side, pix_fmt="rgb24" if is_cover else "yuv420p")
            if is_cover:
                stream.disposition = av.stream.Disposition.attached_pic
            made.append((frames, stream))
        for frames, stream in made:
            for i, frame in enumerate(clips.frames_of(range(frames), stream.width, stream.height, stream.pix_fmt)):
                frame.pts = i
                out.mux(stream.encode(frame))
            out.mux(stream.encode())
    return buffer.getvalue()


def test_cover_art_is_no_video():
    assert read(file_of("mp4", (1, 256, True), (20, 64, False))) == (20, frame_indices(20, 8, None))
    with pytest.raises(UserError, match="it has no video stream"):
        read(file_of("mp4", (1, 256, True)))


def test_of_several_videos_the_default_or_the_one_with_most_pixels_is_read():
    videos = ((10, 64, False), (20, 128, False), (15, 96, False))
    assert read(file_of("matroska", *videos))[0] == 20
    assert read(file_of("mp4", *videos))[0] == 10  # MP4 marks the first as the default


def all_keys(data, container):
    """A clip whose container says that every packet is a key frame."""

    def marked(packet):
        packet.is_keyframe = True
        return packet

    return clips.clip(container, frames=N, each_packet=marked, **data)


def test_what_decord_is_not_given():
    """Files of which it shows wrong frames: false key frames, several videos, mirrored, many reordered frames."""
    pytest.importorskip("decord")
    deep = "keyint=10:min-keyint=10:scenecut=0:bframes=8:b-adapt=0:b-pyramid=strict:open-gop=1:log=-1"
    plain = clips.clip(frames=N, **X264)
    doubtful = [all_keys(coding, container) for coding in (NO_B, X264, X265_CLOSED) for container in ("mp4", "mov")]
    doubtful += [plain.replace(b"stss", b"free"), clips.clip(codec="libx264", frames=N, options={"x264-params": deep})]
    doubtful += [file_of("mp4", (20, 64, False), (20, 64, False)), file_of("mp4", (1, 64, True), (20, 64, False))]
    doubtful += [clips.with_matrix(plain, *m) for m in ((-1, 0, 0, 1), (1, 0, 0, -1), (0, 1, 1, 0), (0, -1, -1, 0))]
    for data in doubtful:
        with pytest.raises(UserError, match="--video-backend pyav"):
            read(data, backend="decord")
    for matrix in ((1, 0, 0, 1), (0, 1, -1, 0), (-1, 0, 0, -1), (0, -1, 1, 0)):
        assert read(clips.with_matrix(plain, *matrix), backend="decord")[0] == N


@pytest.mark.parametrize("form", ["PPM", "PCX", "DDS", "JPEG2000", "AVIF", "ICO"])
def test_pictures_are_no_videos(form):
    buffer = io.BytesIO()
    Image.fromarray(clips.picture(3)).save(buffer, form)
    with pytest.raises(UserError, match="it is an image"):
        read(buffer.getvalue())


def test_pictures_in_a_row_are_no_video():
    with pytest.raises(UserError, match="JPEG images without timestamps"):
        read(clips.clip("mjpeg", frames=5, **MJPEG))


def test_frames_with_notes_that_pyav_does_not_know():
    data = clips.clip("mov", "tiff", frames=5, pix_fmt="rgb24")
    try:
        assert read(data, range(5)) == (5, list(range(5)))
    except UserError as error:
        assert "cannot read the side data" in str(error)


@pytest.mark.parametrize(
    "text",
    [
        "#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\n{path}\n#EXT-X-ENDLIST\n",
        "ffconcat version 1.0\nfile {path}\n",
        "v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nt=0 0\nm=video 5004 RTP/AVP 96\na=rtpmap:96 H264/90000\n",
    ],
)
def test_playlists_open_nothing(text, tmp_path):
    path = tmp_path / "clip.ts"
    path.write_bytes(clips.clip("mpegts", frames=10, **X264))
    for name in (path, path.as_uri()):
        with pytest.raises(UserError, match="cannot decode the video") as error:
            read(text.format(path=name).encode())
        assert str(tmp_path) not in str(error.value)


def test_frames_too_large_for_memory(monkeypatch):
    monkeypatch.setattr("unival.modalities.pyav_reader.MAX_PIXELS", 64 * 64 - 1)
    with pytest.raises(UserError, match="64 x 64 pixels"):
        read(clips.clip(frames=5, **X264))
    growing = b"".join(clips.clip("h264", frames=5, **{**X264, "width": width}) for width in (48, 128))
    with pytest.raises(UserError, match="cannot decode the video"):
        read(growing)


DAMAGED = (
    *("h264 mp4", "h264 matroska", "h264 mpegts", "hevc mp4", "mpeg4 avi", "mpeg2 mpeg", "wmv2 asf"),
    *("vp9 webm", "av1 mp4", "mjpeg avi"),
)


@pytest.mark.parametrize("kind", DAMAGED)
def test_damaged_files_are_refused_or_read_as_a_decoding_from_the_start_does(kind, capfd):
    total, data = made(kind, frames=20)
    rng = np.random.default_rng(0)
    refused = 0
    for trial in range(12):
        broken = bytearray(data)
        at = int(rng.integers(len(data)))
        if trial % 3 == 0:
            del broken[at:]
        elif trial % 3 == 1:
            broken[at] ^= 1 << int(rng.integers(8))
        else:
            broken[at : at + 100] = rng.bytes(len(broken[at : at + 100]))
        try:
            total, numbers = read(bytes(broken))
        except UserError as error:
            refused += 1
            assert str(error).isprintable() and "cannot decode the video" in str(error) and len(str(error)) < 150
        else:
            indices = frame_indices(total, 8, None)
            assert numbers == indices or numbers == [decoded_in_order(bytes(broken))[i] for i in indices]
    assert refused or "mpegts" in kind  # whose frames are all decoded if some are lost
    assert not capfd.readouterr().err


def test_workers_read_what_the_process_that_forks_them_has_read():
    """Without threads of the decoder's own, which a fork would leave behind."""
    kinds = ("h264 mp4", "hevc mp4", "av1 mp4", "vp9 webm", "mpeg4 avi")
    clips_of = [made(kind)[1] for kind in kinds]
    expected = [read(data) for data in clips_of]
    threads = len(os.listdir("/proc/self/task")) if os.path.isdir("/proc/self/task") else 0
    with contextlib.ExitStack() as stack:
        for data in clips_of:
            stack.enter_context(open_frames(data))[1](0)
        if threads:
            assert len(os.listdir("/proc/self/task")) == threads
        with multiprocessing.get_context("fork").Pool(2) as pool:
            assert pool.map_async(read, 2 * clips_of).get(timeout=60) == 2 * expected
