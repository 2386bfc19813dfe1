"""The length that media files declare in their headers, to detect truncated files, many of which decoders read as shorter ones."""

import math
import re
import struct
from collections.abc import Callable, Sequence
from typing import Any

from unival.errors import UserError

MP4_STARTS = (b"ftyp", b"moov", b"mdat", b"wide", b"free", b"skip")  # kinds of the first box of MP4 and QuickTime files
UNKNOWN_SIZE = 0x7FFF0000  # programs that write to a pipe set the size to this or more


def declared_size(data: bytes) -> int | None:
    """Size in bytes that a RIFF (AVI, WebP, WAV), MP4 or Matroska (WebM) file declares; None if it does not, or is of another format."""
    if data[:4] == b"RIFF" and len(data) >= 12:
        size = int.from_bytes(data[4:8], "little")
        return None if size in (0, 2**32 - 1) else 8 + size  # unknown in live recordings
    if data[:4] == b"\x1a\x45\xdf\xa3":
        header_end = _element_end(data, 4)
        if header_end is not None and data[header_end : header_end + 4] == b"\x18\x53\x80\x67":
            return _element_end(data, header_end + 4)
    return _cut_box_end(data) if data[4:8] in MP4_STARTS else None


def _cut_box_end(data: bytes) -> int | None:
    """Declared end of the last box of an MP4 file, if the data ends inside it and it is a box with content; else None."""
    position = 0
    while position + 16 <= len(data):
        size, kind = struct.unpack_from(">I4s", data, position)
        if size == 1:
            (size,) = struct.unpack_from(">Q", data, position + 8)
        if size < 8:  # 0 stands for the rest of the file; anything else is invalid
            return None
        position += size
        if position > len(data):
            return position if kind in (b"moov", b"mdat", b"moof") else None
    return None


def _element_end(data: bytes, position: int) -> int | None:
    """End of the Matroska element whose size field is at ``position``; None if the size is unknown."""
    if position >= len(data) or not data[position]:
        return None
    length = 9 - data[position].bit_length()  # the number of leading zeros tells the length of the size field
    limit = 1 << 7 * length
    size = int.from_bytes(data[position : position + length], "big") - limit
    return None if size == limit - 1 else position + length + size


def missing_bytes(data: bytes) -> int:
    """Number of bytes that are missing at the end of a file, by the size that it declares; 0 if it declares none.

    Supported: WAV (also with 64-bit sizes: RF64, BW64, W64), AIFF, IFF, AU, CAF, VOC, AVR, NIST, SoX, SDS, Psion, Ogg, MP4, AVI, MKV
    and WebM.
    """
    ends = [end_of(data) for start, end_of in AUDIO_ENDS.items() if data.startswith(start)]
    if not ends or data[:4] == b"RIFF" and data[8:12] != b"WAVE":
        ends = [declared_size(data) or 0]
    return max(ends[0] - len(data), 0)


def _number(data: bytes, at: int, length: int, order: Any = "big") -> int:
    return int.from_bytes(data[at : at + length], order)


def _end_of_chunk(data: bytes, position: int, names: Sequence[bytes], order: Any = "big") -> int:
    """Declared end of the chunk with the samples; 0 if it is unknown. (The declared size of the whole file is often wrong.)

    A chunk consists of its name (four bytes), its size (32 bits) and its content, padded to an even length.

    Args:
        data: bytes of the file.
        position: start of the first chunk.
        names: possible names of the chunk.
        order: byte order of sizes.
    """
    while position + 8 <= len(data):
        size = _number(data, position + 4, 4, order)
        if data[position : position + 4] in names:
            return position + 8 + size if size < UNKNOWN_SIZE else 0
        position += 8 + size + size % 2
    return 0


def _end_of_wav(data: bytes) -> int:
    end = _end_of_chunk(data, 12, (b"data",), "little")
    if end == 0 and data[12:16] == b"ds64":  # chunk with the 64-bit size
        size = _number(data, 28, 8, "little")
        place = data.find(b"data\xff\xff\xff\xff", 36)
        return place + 8 + size if place >= 0 and size < 2**62 else 0
    return end


def _end_of_w64(data: bytes) -> int:
    position = 40  # after the file header; sizes include the headers of chunks, which are aligned to 8 bytes
    while position + 24 <= len(data):
        size = _number(data, position + 16, 8, "little")
        if size < 24 or size >= 2**62:
            return 0
        if data[position : position + 4] == b"data":
            return position + size
        position += -(-size // 8) * 8
    return 0


def _end_of_caf(data: bytes) -> int:
    position = 8
    while position + 12 <= len(data):
        size = _number(data, position + 4, 8)
        if size >= 2**62:  # -1: to the end of the file
            return 0
        if data.startswith(b"data", position):
            return position + 12 + size
        position += 12 + size
    return 0


def _end_of_voc(data: bytes) -> int:
    position = _number(data, 20, 2, "little")
    while 26 <= position < len(data) and data[position]:  # type of the block; 0 is the terminator
        position += 4 + _number(data, position + 1, 3, "little")
    return position if position >= 26 else 0


def _end_of_avr(data: bytes) -> int:
    return 128 + _number(data, 26, 4) * _number(data, 14, 2) // 8  # a lower bound: programs differ in whether they count channels


def _end_of_nist(data: bytes) -> int:
    head = data[: 2**16].split(b"end_head")[0]
    found = [re.search(rb"\n" + name + rb" -i (\d{1,12})\s", head) for name in (b"sample_count", b"channel_count", b"sample_n_bytes")]
    start = re.match(rb"NIST_1A\n\s*(\d{1,6})\n", head)
    if start is None or None in found or re.search(rb"\nsample_coding -s\d+ \S*,", head):  # compressed
        return 0
    return int(start[1]) + math.prod(int(match[1]) for match in found if match)


def _end_of_sox(data: bytes) -> int:
    order = "little" if data[:1] == b"." else "big"
    return 4 + _number(data, 4, 4, order) + 4 * _number(data, 8, 8, order)


def _end_of_sds(data: bytes) -> int:
    if data[3:4] != b"\1" or len(data) < 21:
        return 0
    samples = data[10] + (data[11] << 7) + (data[12] << 14)
    per_packet = 120 // max(1, -(-data[6] // 7))  # 7 bits per byte
    return 21 + 127 * -(-samples // max(1, per_packet))


def _end_of_au(data: bytes) -> int:
    size = _number(data, 8, 4)
    return _number(data, 4, 4) + size if size < UNKNOWN_SIZE else 0


def _end_of_last_page(data: bytes) -> int:
    """Declared end of the last page of an Ogg file, whose header lists the sizes of its segments."""
    start = data.rfind(b"OggS")
    header = start + 27
    if header > len(data):
        return header
    segments = data[header - 1]
    return header + segments + sum(data[header : header + segments])


# First bytes of audio files -> function that returns the declared end of the samples
AUDIO_ENDS: dict[bytes, Callable[[bytes], int]] = {
    **dict.fromkeys((b"RIFF", b"RF64", b"BW64"), _end_of_wav),
    b"riff\x2e\x91\xcf\x11": _end_of_w64,
    b"FORM": lambda data: _end_of_chunk(data, 12, (b"SSND", b"BODY")),
    b".snd": _end_of_au,
    b"caff": _end_of_caf,
    b"Creative Voice File\x1a": _end_of_voc,
    b"2BIT": _end_of_avr,
    b"NIST_1A\n": _end_of_nist,
    **dict.fromkeys((b".SoX", b"XoS."), _end_of_sox),
    b"\xf0\x7e": _end_of_sds,
    b"ALawSoundFile**": lambda data: 32 + _number(data, 18, 4),
    b"OggS": _end_of_last_page,
}


def ogg_links(data: bytes) -> list[bytes]:
    """Split a chained Ogg file into its links; any other file is returned whole.

    Raises:
        UserError: there are other bytes between its pages.
    """
    if data[:4] != b"OggS" or b"\x80theora" in data[:256]:
        return [data]
    starts, position, was_first = [0], 0, True
    while data.startswith(b"OggS", position) and position + 27 <= len(data):
        is_first = bool(data[position + 5] & 2)  # first page of a stream; the first pages of all streams of a link come first
        if is_first and not was_first:
            starts.append(position)
        was_first = is_first
        segments = data[position + 26]
        position += 27 + segments + sum(data[position + 27 : position + 27 + segments])
    if b"OggS" in data[position:]:
        raise UserError(f"cannot decode the audio: it is damaged at byte {position} of {len(data)}")
    return [data[start:end] for start, end in zip(starts, [*starts[1:], len(data)], strict=True)]
