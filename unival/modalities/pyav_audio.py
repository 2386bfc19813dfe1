"""Sounds of the formats that libsndfile does not know, and the sound tracks of videos, decoded with PyAV (FFmpeg)."""

import contextlib
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np

from unival.errors import UserError
from unival.modalities.pyav_reader import decoded, decoding, open_container

SKIPS = ("mp3", "mp3float")  # their packets may need earlier ones, or hold a header, as where files were put together
PEAK = 100.0  # times full scale, which is 1: more is a broken file; the mix of many channels is a few times that
KEPT = 2**24  # samples kept from counting them (64 MB, six minutes at 48 kHz): more are decoded again when they are read


class AudioReader(NamedTuple):
    """An open sound: Hz, samples per channel, and ``read(first, count)`` -> samples of all channels mixed."""

    rate: int
    frames: int
    read: Callable[[int, int], np.ndarray]


def open_track(data: bytes) -> AudioReader:
    """Open a sound, or the sound track of a video; its channels are averaged.

    It is decoded as a whole, from the beginning, and as the ffmpeg command writes it: without what the encoder put before it, and
    with nothing put into gaps.

    Raises:
        UserError: also when it is damaged, or its sample rate changes.
    """
    with decoding(data, "sound"):
        track = Track(data)
    return AudioReader(track.rate, track.frames, track.read)


class Track:
    """The samples of a sound track: kept if they are few, else decoded when they are asked for."""

    def __init__(self, data: bytes):
        self.data = data
        self.rate, self.frames = 0, 0
        blocks = []
        for rate, block in self.decode():
            if self.rate not in (0, rate):
                raise UserError(f"cannot decode the sound: its sample rate changes from {self.rate} to {rate} Hz")
            self.rate = rate
            self.frames += len(block)
            if self.frames <= KEPT:
                blocks.append(block)
        self.rate = self.rate or 1
        self.kept = np.concatenate(blocks) if blocks and self.frames <= KEPT else None

    def decode(self) -> Iterator[tuple[int, np.ndarray]]:
        """Rate in Hz and samples, mixed, block by block."""
        with contextlib.closing(open_container(self.data, "sound")) as container:
            stream = audio_stream(container, len(self.data))
            for frame in decoded(container.demux(stream), stream.codec_context, may_skip=stream.codec_context.name in SKIPS):
                if frame.is_corrupt:
                    raise UserError(f"cannot decode the sound ({len(self.data)} bytes): it is damaged")
                yield frame.sample_rate, mono(frame)

    def read(self, first: int, count: int) -> np.ndarray:
        """Samples, mixed."""
        if self.kept is not None:
            return self.kept[first : first + count]
        values, position = np.zeros(count, dtype=np.float32), 0
        with decoding(self.data, "sound"):
            for _, block in self.decode():
                part = block[max(first - position, 0) : max(first + count - position, 0)]
                start = max(position - first, 0)
                values[start : start + len(part)] = part
                position += len(block)
                if position >= first + count:
                    break
        return values


def packet_samples(data: bytes) -> int:
    """Samples in the packets of an MP3 file, which are not decoded."""
    with decoding(data, "sound"), contextlib.closing(open_container(data, "sound")) as container:
        stream = audio_stream(container, len(data))
        packets = sum(1 for packet in container.demux(stream) if packet.size)
        return packets * (stream.codec_context.frame_size or 1152)


def audio_stream(container: Any, size: int) -> Any:
    """The stream that FFmpeg's command decodes: of those that are default, else of all, the first of those with most channels."""
    from av.stream import Disposition

    streams = [stream for stream in container.streams.audio if stream.codec_context is not None]
    if not streams:
        if container.streams.audio:
            reason = "its codec is unknown"
        else:
            reason = "it is a video without a sound track" if container.streams.video else "it is no sound"
        raise UserError(f"cannot decode the sound ({size} bytes): {reason}")
    stream = max(streams, key=lambda one: (bool(one.disposition & Disposition.default), one.codec_context.channels))
    stream.codec_context.thread_count = 1  # of each of the data workers
    return stream


def mono(frame: Any) -> np.ndarray:
    """The mean of a frame's channels; full scale is 1."""
    values = frame.to_ndarray()  # channels x samples, or 1 x interleaved
    if not frame.format.is_planar:
        values = values.reshape(-1, len(frame.layout.channels)).T
    if values.dtype == np.uint8:
        values = values.astype(np.float32) / 128 - 1
    elif values.dtype.kind == "i":
        values = values / np.float64(2 ** (8 * values.itemsize - 1))
    return values.astype(np.float32).mean(axis=0)
