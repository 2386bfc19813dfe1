"""Audio in formats that libsndfile does not read, and the audio tracks of videos, decoded with PyAV (FFmpeg)."""

import contextlib
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np

from unival.errors import UserError, counted
from unival.modalities.pyav_reader import decoded, decoding, open_container

SKIPS = ("mp3", "mp3float")  # packets that cannot be decoded are skipped: they depend on missing ones, or are headers of joined files
PEAK = 100.0  # largest amplitude (full scale is 1) before a file counts as broken; a mix of many channels reaches a few times 1
KEPT = 2**24  # samples kept in memory (64 MB, six minutes at 48 kHz); longer audio is decoded again when it is read


class AudioReader(NamedTuple):
    """An open audio file."""

    rate: int  # in Hz
    frames: int  # samples per channel
    read: Callable[[int, int], np.ndarray]  # (first, count) -> mono samples, float32


def open_track(data: bytes) -> AudioReader:
    """Open an audio file, or the audio track of a video, as mono (mean of the channels).

    It is decoded as a whole from the start, with the same result as the ffmpeg command: encoder delay is removed, and gaps are not filled.

    Args:
        data: bytes of the file.

    Raises:
        UserError: it cannot be decoded, is damaged, or its sample rate changes.
    """
    with decoding(data, "audio"):
        track = Track(data)
    return AudioReader(track.rate, track.frames, track.read)


class Track:
    """The samples of an audio track: kept in memory if they are few, else decoded again when they are read."""

    def __init__(self, data: bytes):
        self.data = data
        self.rate, self.frames = 0, 0
        blocks = []
        for rate, block in self.decode():
            if self.rate not in (0, rate):
                raise UserError(f"cannot decode the audio: its sample rate changes from {self.rate} to {rate} Hz")
            self.rate = rate
            self.frames += len(block)
            if self.frames <= KEPT:
                blocks.append(block)
        self.rate = self.rate or 1
        self.kept = np.concatenate(blocks) if blocks and self.frames <= KEPT else None

    def decode(self) -> Iterator[tuple[int, np.ndarray]]:
        """Yield sample rate in Hz and mono samples, block by block."""
        with contextlib.closing(open_container(self.data, "audio")) as container:
            stream = audio_stream(container, len(self.data))
            for frame in decoded(container.demux(stream), stream.codec_context, may_skip=stream.codec_context.name in SKIPS):
                if frame.is_corrupt:
                    raise UserError(f"cannot decode the audio ({counted(len(self.data), 'byte')}): it is damaged")
                yield frame.sample_rate, mono(frame)

    def read(self, first: int, count: int) -> np.ndarray:
        """``count`` mono samples from number ``first`` on."""
        if self.kept is not None:
            return self.kept[first : first + count]
        values, position = np.zeros(count, dtype=np.float32), 0
        with decoding(self.data, "audio"):
            for _, block in self.decode():
                part = block[max(first - position, 0) : max(first + count - position, 0)]
                start = max(position - first, 0)
                values[start : start + len(part)] = part
                position += len(block)
                if position >= first + count:
                    break
        return values


def packet_samples(data: bytes) -> int:
    """Number of samples in the packets of an MP3 file, without decoding them."""
    with decoding(data, "audio"), contextlib.closing(open_container(data, "audio")) as container:
        stream = audio_stream(container, len(data))
        packets = sum(1 for packet in container.demux(stream) if packet.size)
        return packets * (stream.codec_context.frame_size or 1152)


def audio_stream(container: Any, size: int) -> Any:
    """Choose the audio stream that the ffmpeg command chooses: among default streams (else all), the one with most channels.

    Raises:
        UserError: there is no audio stream; ``size`` is that of the file in bytes, for the message.
    """
    from av.stream import Disposition

    streams = [stream for stream in container.streams.audio if stream.codec_context is not None]
    if not streams:
        if container.streams.audio:
            reason = "its codec is unknown"
        else:
            reason = "it is a video without an audio track" if container.streams.video else "it is not audio"
        raise UserError(f"cannot decode the audio ({counted(size, 'byte')}): {reason}")
    stream = max(streams, key=lambda one: (bool(one.disposition & Disposition.default), one.codec_context.channels))
    stream.codec_context.thread_count = 1  # per data worker
    return stream


def mono(frame: Any) -> np.ndarray:
    """Mean of the channels of a frame, float32, with full scale 1."""
    values = frame.to_ndarray()  # channels x samples, or 1 x interleaved
    if not frame.format.is_planar:
        values = values.reshape(-1, len(frame.layout.channels)).T
    if values.dtype == np.uint8:
        values = values.astype(np.float32) / 128 - 1
    elif values.dtype.kind == "i":
        values = values / np.float64(2 ** (8 * values.itemsize - 1))
    return values.astype(np.float32).mean(axis=0)
