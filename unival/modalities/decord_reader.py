"""The published way of reading videos and their sound tracks: decord (``--video-backend decord``).

decord 0.6 shows wrong frames of many kinds of files without an error; those of which it is not known to be right are refused.
"""

import contextlib
import os
import re
import tempfile
from collections.abc import Iterator
from typing import Any

import numpy as np
from PIL import Image

from unival.errors import UserError
from unival.modalities.pyav_audio import PEAK, AudioReader
from unival.modalities.pyav_index import is_plain
from unival.modalities.pyav_pixels import display_matrix
from unival.modalities.pyav_reader import Frames, Video, decoding

INSTALL = 'pip install "unival[decord]"'
# Container and codecs of which decord has been found to give the frames asked for, if the container is to be trusted at all
RIGHT = {"mov,mp4,m4a,3gp,3g2,mj2": ("h264", "hevc", "vp9"), "matroska,webm": ("vp8", "vp9")}


@contextlib.contextmanager
def open_video(data: bytes) -> Iterator[Frames]:
    """Open a video with decord.

    Raises:
        UserError: also for a file of which decord may show other frames than asked for, and when one cannot be decoded.
    """
    decord = import_decord("videos")
    check(data)
    errors = (decord.DECORDError, decord.DECORDLimitReachedError, RuntimeError, AssertionError)
    with as_file(data) as path:
        with _decoding(data, *errors):
            reader = decord.VideoReader(path, num_threads=1, fault_tol=1e-9)  # no frame may stand in for a broken one

        def frame(index: int) -> Image.Image:
            with _decoding(data, *errors):
                return Image.fromarray(reader.get_batch([index]).asnumpy()[0])

        yield len(reader), frame


def import_decord(what: str) -> Any:
    """The package, quiet; a UserError says what needs it."""
    try:
        import decord
    except (ImportError, OSError) as error:  # OSError: its library does not fit this machine
        raise UserError(f"--video-backend decord: {what} need the package decord: {INSTALL} ({error})") from error
    decord.logging.set_level(decord.logging.QUIET)  # what is wrong comes as an exception
    return decord


def check(data: bytes) -> None:
    """Refuse a video of which decord is not known to be right."""
    with contextlib.closing(Video(data)) as video, decoding(data, "video"):
        total = video.open()
        container = video.container.format.name
        is_known = bool(video.times) and video.codec in RIGHT.get(container, ()) and len(video.container.streams.video) == 1
        is_known = is_known and is_plain(video.packets) and is_turned(video.frame(0)) and not has_false_keys(video)
        # Where a frame of HEVC is missing, those made from it are left out too, and decord counts them
        if is_known and (video.codec != "hevc" or video.count() == total):
            return
    raise UserError(
        f"decord may show wrong frames of this video ({video.codec} in {container.split(',')[0]}): use --video-backend pyav"
    )


def is_turned(frame: Any) -> bool:
    """Whether a frame is to be shown as it is, or turned by right angles; decord does not mirror."""
    a, b, c, d = display_matrix(frame)
    return (a, b) == (d, -c) and bool(a) != bool(b)


def has_false_keys(video: Video) -> bool:
    """Whether the file marks frames as key frames which are none by their own bytes."""
    marked = sum(entry.is_keyframe for entry in video.stream.index_entries)
    return marked > sum(packet.is_entry for packet in video.packets)


@contextlib.contextmanager
def as_file(data: bytes) -> Iterator[str]:
    """A path to the bytes.  Given the bytes themselves, decord 0.6 reads past the end of truncated files and dies."""
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
            reason = "it is in no known format, or cut off"
        else:  # without times, source lines and paths, and without the code of a failed check if there are words for it
            text = re.sub(r"\[[\d:]+\] \S+: |\[/\S*\] ?", "", text)
            reason = re.sub(r"Check failed: .*?\(-?\d+ vs\. -?\d+\) (?=\w)", "", text)
        raise UserError(f"cannot decode the video ({len(data)} bytes): {reason} (by decord: --video-backend pyav may)") from error


# Sound tracks ---------------------------------------------------------------------------------------------------------

# decord resamples badly, but how many samples it makes tells the rate of the track
TRACK_RATES = (8000, 11025, 12000, 16000, 22050, 24000, 32000, 44100, 48000, 64000, 88200, 96000, 192000)  # Hz
PROBE_RATE = 16000  # Hz
RATE_TOLERANCE = 0.03  # the rates are at least 8 % apart


@contextlib.contextmanager
def open_audio_track(data: bytes) -> Iterator[AudioReader]:
    """Open the sound track of a video with decord.

    It is decoded as a whole and mixed by ffmpeg's rule, as decord has no safe way to the channels: mono stays as it is, stereo
    becomes ``(left + right) / sqrt(2)``, 3 dB above the mean.

    Raises:
        UserError: also when what is read is no sound.
    """
    decord = import_decord("sound tracks of videos")
    with as_file(data) as path:

        def decode(rate: int) -> Any:
            # mono: with several channels, decord 0.6 writes to memory that is not its own
            return decord.AudioReader(path, sample_rate=rate, mono=True)

        try:
            track = decode(-1)
            frames = track.shape[1]
            rate = track_rate(frames, decode(PROBE_RATE).shape[1]) if frames else PROBE_RATE
        except (decord.DECORDError, RuntimeError, UnicodeDecodeError) as error:
            text = " ".join(str(error).split())
            if "find audio stream" in text:
                reason = "it is a video without a sound track"
            elif "ERROR opening" in text or "Error reading" in text:  # decord's words for a file that it cannot open
                reason = "it is in no known format, or cut off"
            else:
                reason = re.sub(r"\[[\d:]+\] \S+: ", "", text)  # without times and source lines
            raise UserError(f"cannot decode the sound ({len(data)} bytes): {reason}") from error

        def read(first: int, count: int) -> np.ndarray:
            values = track.get_batch(range(first, first + count)).asnumpy()[0]
            if np.abs(values).max(initial=0) > PEAK:  # decord makes wild numbers of broken packets
                raise UserError(f"cannot decode the sound ({len(data)} bytes): its sound track is damaged")
            return values

        yield AudioReader(rate, frames, read)


def track_rate(frames: int, probe_frames: int) -> int:
    """The rate in Hz of a sound track with ``frames`` samples, of which resampling to 16000 Hz makes ``probe_frames``."""
    measured = frames * PROBE_RATE / max(probe_frames, 1)
    rate = min(TRACK_RATES, key=lambda known: abs(known - measured))
    if abs(measured / rate - 1) > RATE_TOLERANCE:
        raise UserError(f"cannot decode the sound: its sample rate of about {measured:.0f} Hz is none of {TRACK_RATES}")
    return rate
