"""Frames that no other one depends on are not decoded on the way to the one asked for, whose pixels stay the same bits."""

import contextlib
import io

import numpy as np
import pytest

from tests.modalities import clips
from unival.errors import UserError
from unival.modalities import pyav_reader
from unival.modalities.video import frame_indices, open_frames

pytest.importorskip("av")

N = 32
VARIABLE = {"rate": 100, "times": [4 * i + i % 2 for i in range(N)]}


def x264(**options):
    options = {"scenecut": 0, "b-adapt": 0, "log": -1, **options}
    return {"codec": "libx264", "options": {"x264-params": ":".join(f"{name}={value}" for name, value in options.items())}}


SKIPPING = {
    "no pyramid": x264(bframes=3, **{"b-pyramid": "none"}),
    "strict pyramid": x264(bframes=4, **{"b-pyramid": "strict"}),
    "pyramid, matroska": {"container": "matroska", **x264(bframes=7, ref=8, direct="temporal")},
    "key frames, mpegts": {"container": "mpegts", **x264(bframes=5, keyint=16)},
    "variable frame rate, flv": {"container": "flv", **VARIABLE, **x264(bframes=3)},
    "10 bits, slices": {"pix_fmt": "yuv420p10le", **x264(bframes=3, slices=3)},
}
WHOLE = {
    "no B-frames": x264(bframes=0),
    "open GOP": x264(bframes=5, keyint=14, **{"min-keyint": 14, "open-gop": 1}),
    "intra refresh": x264(bframes=2, keyint=16, **{"intra-refresh": 1}),  # what is shown after a key frame needs the frames before it
    "order of decoding as times": {"container": "asf", **x264(bframes=3)},
    "interlaced": x264(bframes=3, tff=1),
    "hevc": {"codec": "libx265", "options": {"preset": "ultrafast", "x265-params": "log-level=none:bframes=3:b-adapt=0"}},
    "mpeg4": {"codec": "mpeg4", "options": {"g": "12", "bf": "2"}},
    "vp9": {"container": "webm", "codec": "libvpx-vp9", "options": {"cpu-used": "8", "lag-in-frames": "12"}},
}


@pytest.fixture
def decoded(monkeypatch):
    """A list of all frames that decoders have returned."""
    found, decode = [], pyav_reader.decoded

    def noted(*args, **how):
        for frame in decode(*args, **how):
            found.append(frame.pts)
            yield frame

    monkeypatch.setattr(pyav_reader, "decoded", noted)
    return found


def frames(data, chosen):
    """The pixels of the chosen frames, or of all."""
    with open_frames(data) as (total, frame):
        return [np.asarray(frame(i)) for i in (range(total) if chosen is None else chosen)]


def all_frames(data):
    """The pixels of all frames, by PyAV alone."""
    import av

    with av.open(io.BytesIO(data)) as container:
        container.streams.video[0].codec_context.thread_count = 1
        return [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]


def compare(data):
    """Compare frames, read in several ways, with those of a full decoding."""
    expected = all_frames(data)
    total = len(expected)
    random = [frame_indices(total, 5, np.random.default_rng(seed)) for seed in range(2)]
    for chosen in (frame_indices(total, 8, None), *random, [total - 2], [total - 1], [0, 2, total // 2], range(total)):
        np.testing.assert_array_equal(frames(data, chosen), [expected[i] for i in chosen])


@pytest.mark.parametrize("kind", [*SKIPPING, *WHOLE])
def test_frames_that_no_other_one_depends_on_are_skipped(kind, decoded, monkeypatch):
    data = clips.clip(frames=N, **(SKIPPING | WHOLE)[kind])
    compare(data)
    counts = []
    for codecs in (pyav_reader.SKIPS, ()):
        monkeypatch.setattr(pyav_reader, "SKIPS", codecs)
        decoded.clear()
        frames(data, [N - 6])
        counts.append(len(decoded))
    with_skips, without = counts
    if kind in SKIPPING:
        assert with_skips < without - 2
    else:
        assert with_skips >= without  # more, where skipping was tried at first


def test_frames_are_read_whole_where_some_are_lost():
    """What a decoder puts in place of a lost frame depends on the frames before it, also on those that it could skip."""
    data = clips.clip("mpegts", frames=N, **SKIPPING["strict pyramid"])
    for lost in ({11}, {12}, {5, 6, 17}):
        piece = clips.remux(data, "mpegts", keep=lambda i, packet, lost=lost: i not in lost)
        with contextlib.closing(pyav_reader.Video(piece)) as video:
            video.open()
            assert not video.skips
        compare(piece)


def rewritten(data, change):
    """The packets of a clip as ``change`` returns them: a list of (bytes, packet); times are given anew, without holes."""
    import av

    buffer = io.BytesIO()
    with av.open(io.BytesIO(data)) as source, av.open(buffer, "w", format="matroska") as out:
        stream = source.streams.video[0]
        copy = out.add_stream_from_template(stream)
        packets = change([(bytes(packet), packet) for packet in source.demux(stream) if packet.size])
        step = round(1 / 25 / stream.time_base)
        places = sorted(packet.pts for _, packet in packets)
        first = packets[0][1].dts
        for number, (content, packet) in enumerate(packets):
            new = av.Packet(content)
            new.pts, new.dts = places[0] + places.index(packet.pts) * step, first + number * step
            new.time_base, new.is_keyframe, new.stream = packet.time_base, packet.is_keyframe, copy
            out.mux(new)
    return buffer.getvalue()


def test_frames_are_read_whole_where_lost_ones_leave_no_hole_in_the_times():
    """Frames whose numbers do not continue: those that a decoder puts in place of lost references depend on all frames before."""
    data = clips.clip(frames=N, **SKIPPING["strict pyramid"])
    for lost in ((), (1,), (6, 11)):
        piece = rewritten(data, lambda packets, lost=lost: [packet for i, packet in enumerate(packets) if i not in lost])
        with contextlib.closing(pyav_reader.Video(piece)) as video:
            video.open()
            assert video.skips == (not lost)
        compare(piece)


def test_damaged_frames_end_the_skipping(monkeypatch):
    """What a decoder makes of a damaged frame, which it may not report, depends on all frames before it."""
    import av

    data = clips.clip(frames=N, **SKIPPING["no pyramid"])
    ended = 0
    for bit in (66, 68, 70):  # of a P frame: some leave a frame that decoders repair, without marking it

        def flip(packets, bit=bit):
            content = bytearray(packets[5][0])
            content[bit // 8] ^= 128 >> bit % 8
            return [*packets[:5], (bytes(content), packets[5][1]), *packets[6:]]

        piece, results = rewritten(data, flip), []
        for codecs in (pyav_reader.SKIPS, ()):
            with monkeypatch.context() as patch, contextlib.closing(pyav_reader.Video(piece)) as video:
                patch.setattr(pyav_reader, "SKIPS", codecs)
                assert video.open() == N
                skips = video.skips
                try:
                    results.append([video.frame(i).to_ndarray(format="rgb24").tobytes() for i in (3, 12, N - 3)])
                    ended += skips and not video.skips
                except (UserError, av.FFmpegError) as error:
                    results.append(str(error))
        assert results[0] == results[1]
    assert ended


def test_what_is_skipped_against_the_packets_is_read_from_the_start(monkeypatch, decoded):
    """Where the decoder does not return the frame asked for, nothing is skipped from there on."""
    data = clips.clip(frames=N, **SKIPPING["no pyramid"])
    expected = all_frames(data)
    needed = pyav_reader.Video.needed

    def too_few(video, packets):
        for packet in needed(video, packets):
            if video.skips:
                video.decoder.skip_frame = "NONREF"
            yield packet

    monkeypatch.setattr(pyav_reader.Video, "needed", too_few)
    chosen = [8, 9, 10, 29]
    np.testing.assert_array_equal(frames(data, chosen), [expected[i] for i in chosen])
    assert len(decoded) > chosen[-1], "all frames up to the last one"


def test_interlaced_frames_end_the_skipping():
    """A clip that begins with frames that are not interlaced: later ones might have a packet for each field."""
    import av

    buffer = io.BytesIO()
    parts = [clips.clip("mpegts", frames=N // 2, **how) for how in (x264(bframes=3), x264(bframes=3, tff=1))]
    with av.open(io.BytesIO(parts[0])) as first, av.open(buffer, "w", format="mpegts") as out:
        copy = out.add_stream_from_template(first.streams.video[0])
        for number, part in enumerate(parts):
            with av.open(io.BytesIO(part)) as source:
                stream = source.streams.video[0]
                shift = round(number * N // 2 / 25 / stream.time_base)
                for packet in source.demux(stream):
                    if packet.size:
                        packet.stream, packet.pts, packet.dts = copy, packet.pts + shift, packet.dts + shift
                        out.mux(packet)
    data = buffer.getvalue()
    compare(data)
    with contextlib.closing(pyav_reader.Video(data)) as video:
        assert video.open() == N and video.skips
        video.frame(N - 5)
        assert not video.skips
