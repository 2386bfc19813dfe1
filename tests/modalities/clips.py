"""Clips whose frames say their number, made with PyAV: in big blocks, which lossy coding leaves readable."""

import io
import os
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
