"""Clips whose frames say their number, made with PyAV: in big blocks, which lossy coding leaves readable."""

import io
import os
import struct
from collections.abc import Callable, Iterable, Sequence
from fractions import Fraction
from typing import Any

import numpy as np

ROWS, COLUMNS = 2, 4  # blocks of a frame: the bits of its number, the highest first


def picture(number: int, width: int = 64, height: int = 64) -> np.ndarray:
    """The frame with a number below 256: height x width x 3, grey."""
    rows = [i * ROWS // height for i in range(height)]
    columns = [i * COLUMNS // width for i in range(width)]
    bits = np.array([number >> (ROWS * COLUMNS - 1 - i) & 1 for i in range(ROWS * COLUMNS)]).reshape(ROWS, COLUMNS)
    grey = (40 + 175 * bits[rows][:, columns]).astype(np.uint8)
    return np.repeat(grey[..., None], 3, axis=2)


def number_of(frame: Any) -> int:
    """The number that a frame (anything that becomes height x width x 3) shows."""
    grey = np.asarray(frame, dtype=float).mean(axis=2)
    height, width = grey.shape
    bits = [
        grey[(2 * i + 1) * height // (2 * ROWS), (2 * j + 1) * width // (2 * COLUMNS)] > 128
        for i in range(ROWS)
        for j in range(COLUMNS)
    ]
    return int("".join("01"[int(bit)] for bit in bits), 2)


def encoder(
    container: Any,
    codec: str,
    width: int = 64,
    height: int = 64,
    rate: int = 25,
    pix_fmt: str = "yuv420p",
    options: dict[str, str] | None = None,
    **attributes: Any,
) -> Any:
    """A video stream to write frames to; ``attributes`` are set on its codec context."""
    stream = container.add_stream(codec, rate=rate, options=options or {})
    stream.width, stream.height, stream.pix_fmt = width, height, pix_fmt
    stream.codec_context.thread_count = 1
    for name, value in attributes.items():
        setattr(stream.codec_context, name, value)
    return stream


def frames_of(numbers: Iterable[int], width: int, height: int, pix_fmt: str) -> Iterable[Any]:
    """The pictures of some numbers as PyAV's frames."""
    import av

    for number in numbers:
        yield av.VideoFrame.from_ndarray(picture(number, width, height), format="rgb24").reformat(format=pix_fmt)


def clip(
    container: str = "mp4",
    codec: str = "libx264",
    frames: int = 60,
    times: Sequence[int] | None = None,
    container_options: dict[str, str] | None = None,
    each_packet: Callable[[Any], Any] | None = None,
    **how: Any,
) -> bytes:
    """A clip of frames 0, 1, …; ``times`` are their presentation times in frames, ``how`` goes to :func:`encoder`.

    ``each_packet`` may change a packet before it is written, or drop it by returning None.
    """
    import av

    os.environ.setdefault("SVT_LOG", "1")  # the AV1 encoder speaks of errors only
    buffer = io.BytesIO()
    with av.open(buffer, "w", format=container, options=container_options or {}) as out:
        stream = encoder(out, codec, **how)
        size = stream.width, stream.height
        packets = []
        for frame, time in zip(
            frames_of(range(frames), *size, stream.pix_fmt), times or range(frames), strict=False
        ):
            frame.pts, frame.time_base = time, Fraction(1, how.get("rate", 25))
            packets += stream.encode(frame)
        for packet in packets + stream.encode():
            if each_packet is not None:
                packet = each_packet(packet)
            if packet is not None:
                out.mux(packet)
    return buffer.getvalue()


def remux(data: bytes, container: str, keep: Callable[[int, Any], bool] = lambda i, packet: True, shift: int = 0) -> bytes:
    """The packets of a clip that are to be kept, in another container, ``shift`` frames (of 25 a second) earlier."""
    import av

    buffer = io.BytesIO()
    with av.open(io.BytesIO(data)) as source, av.open(buffer, "w", format=container) as out:
        stream = source.streams.video[0]
        copy = out.add_stream_from_template(stream)
        ticks = round(shift / 25 / stream.time_base)
        for i, packet in enumerate(source.demux(stream)):
            if packet.size and keep(i, packet):
                packet.stream = copy
                packet.pts, packet.dts = (None if time is None else time - ticks for time in (packet.pts, packet.dts))
                out.mux(packet)
    return buffer.getvalue()


def with_edits(data: bytes, edits: Sequence[tuple[int, int]]) -> bytes:
    """An MP4 file of one track whose edit list is another: (frames, first frame or -1 for a pause), at 25 frames a second."""
    import av

    with av.open(io.BytesIO(data)) as source:
        frame = round(1 / (25 * source.streams.video[0].time_base))
    start = data.index(b"elst") - 4
    (size,) = struct.unpack_from(">I", data, start)
    (offset,) = struct.unpack_from(">i", data, start + 20)
    table = [struct.pack(">IiI", 40 * n, first if first < 0 else offset + first * frame, 65536) for n, first in edits]
    box = struct.pack(">I4sII", 16 + 12 * len(edits), b"elst", 0, len(edits)) + b"".join(table)
    changed = bytearray(data[:start] + box + data[start + size :])
    for kind in (b"edts", b"trak", b"moov"):  # the boxes around it, which come before
        at = changed.rindex(kind, 0, start) - 4
        struct.pack_into(">I", changed, at, struct.unpack_from(">I", changed, at)[0] + len(box) - size)
    return bytes(changed)


def with_matrix(data: bytes, a: int, b: int, c: int, d: int) -> bytes:
    """An MP4 file of one track that is to be shown with (x, y) at (ax + cy, bx + dy)."""
    at = data.index(struct.pack(">9i", 65536, 0, 0, 0, 65536, 0, 0, 0, 2**30), data.index(b"tkhd"))
    matrix = struct.pack(">9i", 65536 * a, 65536 * b, 0, 65536 * c, 65536 * d, 0, 0, 0, 2**30)
    return data[:at] + matrix + data[at + 36 :]
