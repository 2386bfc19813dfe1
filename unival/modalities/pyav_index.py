"""What a container says of the frames of a video, and whether it can be relied on."""

import itertools
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

CODECS = ("h264", "hevc", "vp8", "vp9", "av1")  # a packet is a frame, and what is shown after a key frame needs none before it
WITHOUT_TIMES = ("avi", "mpeg")  # containers (AVI, MPEG program streams) that do not give every frame a time of its own


class Packet(NamedTuple):
    """What a container says of a packet; times are in units of the stream."""

    pts: int | None  # when its frame is shown
    dts: int | None  # when it is decoded
    is_key: bool
    is_discarded: bool  # cut away, by an edit list for example
    is_hidden: bool  # it holds no frame that is shown
    is_whole: bool  # neither empty nor marked as damaged


def packets_of(container: Any, stream: Any) -> list[Packet]:
    """All packets of PyAV's stream, none of which is decoded."""
    codec, extradata = stream.codec_context.codec.canonical_name, stream.codec_context.extradata or b""
    found = []
    for packet in container.demux(stream):
        if packet.buffer_ptr:  # else it is the one that flushes the decoder
            data = memoryview(packet)
            is_whole = len(data) > 0 and not packet.is_corrupt
            is_hidden = is_whole and not shows_frame(data, codec, extradata)
            found.append(Packet(packet.pts, packet.dts, packet.is_keyframe, packet.is_discard, is_hidden, is_whole))
    return found


def shows_frame(data: memoryview, codec: str, extradata: bytes) -> bool:
    """Whether a packet of some bytes holds a frame that is shown."""
    if codec == "vp8":
        return bool(data[0] & 0x10)
    if codec == "vp9":  # the last byte tells of several frames, of which the last is shown
        return data[-1] & 0xE0 == 0xC0 or data[0] >> 4 & 3 == 3 or bool(data[0] & 0x0A)
    if codec in ("h264", "hevc"):
        return any(is_slice(first, codec) for first in unit_headers(data, codec, extradata))
    return True


def is_slice(header: int, codec: str) -> bool:
    """Whether the unit of H.264 or HEVC that begins with a byte is a part of a frame."""
    return 1 <= header & 31 <= 5 if codec == "h264" else header >> 1 & 63 < 32


def unit_headers(data: memoryview, codec: str, extradata: bytes) -> Iterator[int]:
    """First bytes of the units (NAL) of a packet, which have their lengths before them or a start code."""
    at = {"h264": 4, "hevc": 21}[codec]
    if len(extradata) > at and extradata[0] == 1:  # else it begins with a start code, or is missing
        width, position = (extradata[at] & 3) + 1, 0
        while position + width < len(data):
            yield data[position + width]
            position += width + int.from_bytes(data[position : position + width], "big")
    else:
        content = bytes(data)
        position = content.find(b"\0\0\1")
        while 0 <= position < len(content) - 3:
            yield content[position + 3]
            position = content.find(b"\0\0\1", position + 3)


def is_trusted(packets: Sequence[Packet], codec: str, container: str) -> bool:
    """Whether the packets tell which frames decoding gives, and when they are shown."""
    if codec not in CODECS or container in WITHOUT_TIMES or not packets or not packets[0].is_key:
        return False
    if not all(packet.is_whole and packet.pts is not None for packet in packets):
        return False
    pts = [packet.pts for packet in packets if packet.pts is not None]
    dts = [packet.dts for packet in packets if packet.dts is not None]
    is_ascending = all(a < b for a, b in itertools.pairwise(dts))
    shown = shown_times(packets)
    return bool(shown) and len(set(pts)) == len(pts) and is_ascending and min(shown) >= pts[0]


def shown_times(packets: Sequence[Packet]) -> list[int]:
    """The pts of those packets whose frames are shown."""
    return [p.pts for p in packets if p.pts is not None and not p.is_discarded and not p.is_hidden]


def is_plain(packets: Sequence[Packet]) -> bool:
    """Whether all of trusted packets are shown, those from a key frame on after those before it."""
    newest = None
    for packet in packets:
        if packet.is_key:
            newest = packet.pts
        if packet.is_discarded or (newest is not None and packet.pts is not None and packet.pts < newest):
            return False
    return True
