"""Videos and their audio tracks read with decord, as in the published code (``--video-backend decord``).

decord 0.6 returns wrong frames for many kinds of files without an error, so only files are accepted for which it is known to be right.
"""

import contextlib
import os
import re
import tempfile
from collections.abc import Iterator
from typing import Any

import numpy as np
from PIL import Image

from unival.errors import UserError, counted
from unival.modalities.pyav_audio import PEAK, AudioReader
from unival.modalities.pyav_index import is_plain
from unival.modalities.pyav_pixels import display_matrix
from unival.modalities.pyav_reader import Frames, Video, decoding

INSTALL = 'pip install "unival[decord]"'
# Containers and codecs for which decord was found to return the requested frames, if the packets can be trusted
RIGHT = {"mov,mp4,m4a,3gp,3g2,mj2": ("h264", "hevc", "vp9"), "matroska,webm": ("vp8", "vp9")}


@contextlib.contextmanager
def open_video(data: bytes) -> Iterator[Frames]:
    """Open a video with decord.

    Args:
        data: bytes of the file.

    Yields:
        The number of frames, and a function from frame number to image.

    Raises:
        UserError: decord might return wrong frames of this file, or the video, or later a requested frame, cannot be decoded.
    """
    decord = import_decord("videos")
    check(data)
    errors = (decord.DECORDError, decord.DECORDLimitReachedError, RuntimeError, AssertionError)
    with as_file(data) as path:
        with _decoding(data, *errors):
            reader = decord.VideoReader(path, num_threads=1, fault_tol=1e-9)  # never replace a broken frame by another one

        def frame(index: int) -> Image.Image:
            with _decoding(data, *errors):
                return Image.fromarray(reader.get_batch([index]).asnumpy()[0])

        yield len(reader), frame


def import_decord(what: str) -> Any:
    """Import decord and silence its log; raises UserError, naming ``what`` needs it, if it is not installed."""
    try:
        import decord
    except (ImportError, OSError) as error:  # OSError: its library does not run on this machine
        raise UserError(f"--video-backend decord: {what} need the package decord: {INSTALL} ({error})") from error
    decord.logging.set_level(decord.logging.QUIET)  # errors are raised as exceptions, too
    return decord


def check(data: bytes) -> None:
    """Raise UserError for a video for which decord is not known to be right."""
    with contextlib.closing(Video(data)) as video, decoding(data, "video"):
        total = video.open()
        container = video.container.format.name
        is_known = bool(video.times) and video.codec in RIGHT.get(container, ()) and len(video.container.streams.video) == 1
        is_known = is_known and is_plain(video.packets) and is_turned(video.frame(0)) and not has_false_keys(video)
        # Where a frame of HEVC is missing, decoders also drop the frames that depend on it, but decord counts them
        if is_known and (video.codec != "hevc" or video.count() == total):
            return
    raise UserError(
        f"decord may return wrong frames of this video ({video.codec} in {container.split(',')[0]}): use --video-backend pyav"
    )


def is_turned(frame: Any) -> bool:
    """Whether a frame is shown unchanged or rotated by right angles, but not mirrored, which decord does not do."""
    a, b, c, d = display_matrix(frame)
    return (a, b) == (d, -c) and bool(a) != bool(b)


def has_false_keys(video: Video) -> bool:
    """Whether the file marks frames as key frames that are not, by their own bytes."""
    marked = sum(entry.is_keyframe for entry in video.stream.index_entries)
    return marked > sum(packet.is_entry for packet in video.packets)


@contextlib.contextmanager
def as_file(data: bytes) -> Iterator[str]:
    """Path of a temporary file with the bytes: given the bytes, decord 0.6 reads past the end of truncated files and crashes."""
    if hasattr(os, "memfd_create"):
        with os.fdopen(os.memfd_create("video"), "wb") as file:
            file.write(data)
            file.flush()
            yield f"/proc/self/fd/{file.fileno()}"
    else:
        with tempfile.TemporaryDirectory() as folder:
            path = os.path.join(folder, "video")
            with open(path, "wb") as file:
                file.write(data)
            yield path


@contextlib.contextmanager
def _decoding(data: bytes, *errors: type[BaseException]) -> Iterator[None]:
    """Turn what decord raises into a UserError of one line."""
    try:
        yield
    except errors as error:
        text = " ".join(str(error).split())
        if "cannot find video stream" in text:
            reason = "it has no video stream"
        elif text.startswith("Error reading"):
            reason = "unknown format, or truncated"
        else:  # without times, source lines and paths, and without the code of a failed check if it has a message
            text = re.sub(r"\[[\d:]+\] \S+: |\[/\S*\] ?", "", text)
            reason = re.sub(r"Check failed: .*?\(-?\d+ vs\. -?\d+\) (?=\w)", "", text)
        size = counted(len(data), "byte")
        raise UserError(f"cannot decode the video ({size}) with decord: {reason}; --video-backend pyav may read it") from error


# Audio tracks ---------------------------------------------------------------------------------------------------------

# decord does not tell the sample rate of a track and resamples badly, but the number of resampled samples tells the rate
TRACK_RATES = (8000, 11025, 12000, 16000, 22050, 24000, 32000, 44100, 48000, 64000, 88200, 96000, 192000)  # Hz
PROBE_RATE = 16000  # Hz
RATE_TOLERANCE = 0.03  # the rates are at least 8 % apart


@contextlib.contextmanager
def open_audio_track(data: bytes) -> Iterator[AudioReader]:
    """Open the audio track of a video with decord.

    It is decoded as a whole and mixed to mono by FFmpeg's rule, because decord cannot read the channels safely: stereo becomes
    ``(left + right) / sqrt(2)``, 3 dB above the mean.

    Args:
        data: bytes of the file.

    Yields:
        The open track.

    Raises:
        UserError: there is no audio track, or it cannot be decoded.
    """
    decord = import_decord("audio tracks of videos")
    with as_file(data) as path:

        def decode(rate: int) -> Any:
            # mono: with several channels, decord 0.6 writes out of bounds
            return decord.AudioReader(path, sample_rate=rate, mono=True)

        try:
            track = decode(-1)
            frames = track.shape[1]
            rate = track_rate(frames, decode(PROBE_RATE).shape[1]) if frames else PROBE_RATE
        except (decord.DECORDError, RuntimeError, UnicodeDecodeError) as error:
            text = " ".join(str(error).split())
            if "find audio stream" in text:
                reason = "it is a video without an audio track"
            elif "ERROR opening" in text or "Error reading" in text:  # decord's messages for a file that it cannot open
                reason = "unknown format, or truncated"
            else:
                reason = re.sub(r"\[[\d:]+\] \S+: ", "", text)  # without times and source lines
            raise UserError(f"cannot decode the audio ({counted(len(data), 'byte')}): {reason}") from error

        def read(first: int, count: int) -> np.ndarray:
            values = track.get_batch(range(first, first + count)).asnumpy()[0]
            if np.abs(values).max(initial=0) > PEAK:  # decord returns huge values for broken packets
                raise UserError(f"cannot decode the audio ({counted(len(data), 'byte')}): its audio track is damaged")
            return values

        yield AudioReader(rate, frames, read)


def track_rate(frames: int, probe_frames: int) -> int:
    """Sample rate in Hz of an audio track.

    Args:
        frames: number of samples of the track.
        probe_frames: number of samples after resampling to ``PROBE_RATE``.

    Raises:
        UserError: the rate is not close to any of ``TRACK_RATES``.
    """
    measured = frames * PROBE_RATE / max(probe_frames, 1)
    rate = min(TRACK_RATES, key=lambda known: abs(known - measured))
    if abs(measured / rate - 1) > RATE_TOLERANCE:
        raise UserError(f"cannot decode the audio: expected a sample rate of {TRACK_RATES} Hz, got about {measured:.0f}")
    return rate
