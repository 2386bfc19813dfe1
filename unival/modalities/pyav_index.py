"""The packets of a video as its container lists them, and whether they predict the decoded frames reliably."""

import bisect
import itertools
import statistics
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from unival.modalities import h264

CODECS = ("h264", "hevc", "vp8", "vp9", "av1")  # one frame per packet; frames shown after a key frame do not depend on earlier ones
WITHOUT_TIMES = ("avi", "mpeg")  # containers (AVI, MPEG program streams) that do not store a timestamp for every frame

# Types of NAL units of H.264 and HEVC: slices of frames, slices of frames that depend on no other, and end of sequence, after which
# decoders drop frames that depend on earlier ones
SLICES = {"h264": range(1, 6), "hevc": range(32)}
ENTRIES = {"h264": range(5, 6), "hevc": range(16, 22)}
ENDS = {"h264": frozenset((10, 11)), "hevc": frozenset((16, 17, 18, 36, 37))}

MAX_GAP = 1.5  # times the median interval between frames: phones vary by less, and a lost frame makes it 2
MAX_DEPTH = 2  # largest reorder depth of plain files, in frames


class Packet(NamedTuple):
    """A packet as the container and its first bytes describe it; timestamps are in units of the stream's time base."""

    pts: int | None  # presentation timestamp
    dts: int | None  # decoding timestamp
    is_key: bool  # by the container
    is_discarded: bool  # not to be shown, by an edit list for example
    is_hidden: bool  # contains no frame that is shown
    is_whole: bool  # neither empty nor marked as damaged
    is_entry: bool  # decoding can start here, by the bytes of the packet
    ends_sequence: bool  # decoders drop later frames that depend on earlier ones
    continues: bool  # H.264: no frame that others depend on is missing so far, by the numbers of the frames


def packets_of(container: Any, stream: Any) -> list[Packet]:
    """All packets of a PyAV stream, without decoding them."""
    codec, extradata = stream.codec_context.codec.canonical_name, stream.codec_context.extradata or b""
    found, order = [], h264.Order()
    if codec == "h264":
        order.add(header_units(extradata))
    for packet in container.demux(stream):
        if packet.buffer_ptr:  # not the empty packet that flushes the decoder
            data = memoryview(packet)
            is_whole = len(data) > 0 and not packet.is_corrupt
            places = list(unit_places(data, codec, extradata)) if codec in SLICES else []
            units = [unit_type(data[place], codec) for place in places]
            if codec == "h264":
                order.add(bytes(data[place : place + h264.HEADER]) for place in places)
            found.append(
                Packet(
                    pts=packet.pts,
                    dts=packet.dts,
                    is_key=packet.is_keyframe,
                    is_discarded=packet.is_discard,
                    is_hidden=is_whole and not shows_frame(data, codec, units),
                    is_whole=is_whole,
                    is_entry=is_whole and is_entry(data, codec, units),
                    ends_sequence=not ENDS.get(codec, frozenset()).isdisjoint(units),
                    continues=order.is_whole,
                )
            )
    return found


def shows_frame(data: memoryview, codec: str, units: Sequence[int]) -> bool:
    """Whether a packet contains a frame that is shown.

    Args:
        data: bytes of the packet.
        codec: name of the codec.
        units: types of its NAL units, for H.264 and HEVC.
    """
    if codec == "vp8":
        return bool(data[0] & 0x10)
    if codec == "vp9":  # the last byte marks a superframe, whose last frame is shown
        return data[-1] & 0xE0 == 0xC0 or data[0] >> 4 & 3 == 3 or bool(data[0] & 0x0A)
    return codec not in SLICES or any(unit in SLICES[codec] for unit in units)


def is_entry(data: memoryview, codec: str, units: Sequence[int]) -> bool:
    """Whether decoding can start at a packet (arguments as for :func:`shows_frame`); not checked for AV1."""
    if codec in SLICES:
        slices = [unit for unit in units if unit in SLICES[codec]]
        return bool(slices) and all(unit in ENTRIES[codec] for unit in slices)
    if codec == "vp8":
        return not data[0] & 1
    return codec != "vp9" or data[0] & (0xCE if data[0] >> 4 & 3 == 3 else 0xCC) == 0x80


def unit_type(first: int, codec: str) -> int:
    """The type of an H.264 or HEVC NAL unit by its first byte."""
    return first & 31 if codec == "h264" else first >> 1 & 63


def unit_places(data: memoryview, codec: str, extradata: bytes) -> Iterator[int]:
    """Where the NAL units of an H.264 or HEVC packet start, which are separated by length fields or by start codes."""
    at = {"h264": 4, "hevc": 21}[codec]
    if len(extradata) > at and extradata[0] == 1:  # length fields; with start codes, extradata is missing or starts with one
        width, position = (extradata[at] & 3) + 1, 0
        while position + width < len(data):
            yield position + width
            position += width + int.from_bytes(data[position : position + width], "big")
    else:
        content = bytes(data)
        position = content.find(b"\0\0\1")
        while 0 <= position < len(content) - 3:
            yield position + 3
            position = content.find(b"\0\0\1", position + 3)


def header_units(extradata: bytes) -> list[bytes]:
    """The SPS in an H.264 stream's header, up to :data:`h264.HEADER` bytes of each."""
    if not extradata.startswith(b"\1"):
        return [extradata[place : place + h264.HEADER] for place in unit_places(memoryview(extradata), "h264", b"")]
    found, position = [], 6
    for _ in range(extradata[5] & 31 if len(extradata) > 5 else 0):
        size = int.from_bytes(extradata[position : position + 2], "big")
        found.append(extradata[position + 2 : position + 2 + min(size, h264.HEADER)])
        position += 2 + size
    return found


def is_trusted(packets: Sequence[Packet], codec: str, container: str) -> bool:
    """Whether the packets predict which frames decoding returns and when they are shown."""
    if codec not in CODECS or container in WITHOUT_TIMES or not packets or not packets[0].is_key:
        return False
    if not all(packet.is_whole and packet.pts is not None for packet in packets):
        return False
    pts = [packet.pts for packet in packets if packet.pts is not None]
    dts = [packet.dts for packet in packets if packet.dts is not None]
    is_ascending = all(a < b for a, b in itertools.pairwise(dts))
    shown = shown_times(packets)
    return bool(shown) and len(set(pts)) == len(pts) and is_ascending and min(shown) >= pts[0]


def may_lose_frames(packets: Sequence[Packet]) -> bool:
    """Whether decoding may drop frames of trusted packets: those that depend on a lost frame, or on one before an end of sequence."""
    times = sorted(shown_times(packets))
    gaps = [after - before for before, after in itertools.pairwise(times)]
    has_hole = bool(gaps) and max(gaps) > MAX_GAP * statistics.median(gaps)
    return has_hole or any(packet.ends_sequence for packet in packets[:-1])


def reorder_depth(packets: Sequence[Packet]) -> int:
    """Reorder depth: the largest number of frames that are decoded before, but shown after, another frame."""
    waiting: list[int] = []  # pts of the frames so far, ascending
    depth = 0
    for packet in packets:
        if packet.pts is not None:
            place = bisect.bisect_right(waiting, packet.pts)
            depth = max(depth, len(waiting) - place)
            waiting.insert(place, packet.pts)
    return depth


def shown_times(packets: Sequence[Packet]) -> list[int]:
    """Presentation timestamps of the packets whose frames are shown."""
    return [p.pts for p in packets if p.pts is not None and not p.is_discarded and not p.is_hidden]


def is_plain(packets: Sequence[Packet]) -> bool:
    """Whether trusted packets are simple enough for decord.

    Every packet is shown, packets that follow a key frame are shown after it, key frames are such by their own bytes, and the
    reorder depth is at most ``MAX_DEPTH``.
    """
    newest = None
    for packet in packets:
        if packet.is_key:
            newest = packet.pts
        if packet.is_key and not packet.is_entry:
            return False
        if packet.is_discarded or (newest is not None and packet.pts is not None and packet.pts < newest):
            return False
    return reorder_depth(packets) <= MAX_DEPTH
