"""What media files say about their own length: decoders take many files that are cut off for shorter ones."""

import struct
from typing import Any

from unival.errors import UserError

MP4_STARTS = (b"ftyp", b"moov", b"mdat", b"wide", b"free", b"skip")  # kinds of the first box of MP4 and QuickTime files
UNKNOWN_SIZE = 0x7FFF0000  # programs that write to a pipe put this much or more where the size belongs


def declared_size(data: bytes) -> int | None:
    """Bytes that a RIFF (AVI, WebP, WAV), MP4 or Matroska (WebM) file says it has; None if it does not say, or is something else.

    Decoders take many files that are cut off for shorter ones.
    """
    if data[:4] == b"RIFF" and len(data) >= 12:
        size = int.from_bytes(data[4:8], "little")
        return None if size in (0, 2**32 - 1) else 8 + size  # live recordings do not know
    if data[:4] == b"\x1a\x45\xdf\xa3":
        header_end = _element_end(data, 4)
        if header_end is not None and data[header_end : header_end + 4] == b"\x18\x53\x80\x67":
            return _element_end(data, header_end + 4)
    return _cut_box_end(data) if data[4:8] in MP4_STARTS else None


def _cut_box_end(data: bytes) -> int | None:
    """Where the box of an MP4 file ends that the data ends in, if it is one of those that matter."""
    position = 0
    while position + 16 <= len(data):
        size, kind = struct.unpack_from(">I4s", data, position)
        if size == 1:
            (size,) = struct.unpack_from(">Q", data, position + 8)
        if size < 8:  # the rest of the file, or no box
            return None
        position += size
        if position > len(data):
            return position if kind in (b"moov", b"mdat", b"moof") else None
    return None


def _element_end(data: bytes, position: int) -> int | None:
    """Where the Matroska element ends whose size stands at ``position``; None if it does not say."""
    if position >= len(data) or not data[position]:
        return None
    length = 9 - data[position].bit_length()  # the leading zeros say how many bytes the size has
    limit = 1 << 7 * length
    size = int.from_bytes(data[position : position + length], "big") - limit
    return None if size == limit - 1 else position + length + size


def missing_bytes(data: bytes) -> int:
    """How many bytes are missing at the end of a file, by its own account; 0 if it does not say.

    For WAV, AIFF, AU, Ogg, MP4, AVI, MKV and WebM.
    """
    if data[:4] == b"RIFF" and data[8:12] == b"WAVE":
        end = _end_of_samples(data, b"data", "little")
    elif data[:4] == b"FORM":
        end = _end_of_samples(data, b"SSND", "big")
    elif data[:4] == b".snd":  # AU: where the samples begin, their bytes
        size = int.from_bytes(data[8:12], "big")
        end = int.from_bytes(data[4:8], "big") + size if size < UNKNOWN_SIZE else 0
    elif data[:4] == b"OggS":
        end = _end_of_last_page(data)
    else:
        end = declared_size(data) or 0
    return max(end - len(data), 0)


def _end_of_samples(data: bytes, name: bytes, order: Any) -> int:
    """Where the chunk of samples of a WAV or AIFF file ends.  (The size of the whole in the first chunk is often wrong.)"""
    position = 12
    while position + 8 <= len(data):
        size = int.from_bytes(data[position + 4 : position + 8], order)
        if data[position : position + 4] == name:
            return position + 8 + size if size < UNKNOWN_SIZE else 0
        position += 8 + size + size % 2
    return 0


def ogg_links(data: bytes) -> list[bytes]:
    """The Ogg files that follow one another in an Ogg file (chained); others as a whole.

    Raises:
        UserError: there is something else between its pages.
    """
    if data[:4] != b"OggS" or b"\x80theora" in data[:256]:
        return [data]
    starts, position, was_first = [0], 0, True
    while data.startswith(b"OggS", position) and position + 27 <= len(data):
        is_first = bool(data[position + 5] & 2)  # of the pages of a stream; the streams of a file all begin before they go on
        if is_first and not was_first:
            starts.append(position)
        was_first = is_first
        segments = data[position + 26]
        position += 27 + segments + sum(data[position + 27 : position + 27 + segments])
    if b"OggS" in data[position:]:
        raise UserError(f"cannot decode the sound: it is damaged at byte {position} of {len(data)}")
    return [data[start:end] for start, end in zip(starts, [*starts[1:], len(data)], strict=True)]


def _end_of_last_page(data: bytes) -> int:
    """Where the last page of an Ogg file ends: its header lists the sizes of its segments, 255 at most each."""
    start = data.rfind(b"OggS")
    header = start + 27
    if header > len(data):
        return header
    segments = data[header - 1]
    return header + segments + sum(data[header : header + segments])
