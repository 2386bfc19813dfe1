"""Reading audio files: open, decode the samples that are needed, resample."""

import contextlib
import io
import itertools
import math
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch

from unival.errors import UserError, counted
from unival.modalities import decord_reader
from unival.modalities.containers import missing_bytes, ogg_links
from unival.modalities.pyav_audio import AudioReader, open_track, packet_samples

MAX_FILTER_VALUES = 2**26  # values of a resampling filter (256 MB); rates with a common divisor need a few thousand
UNKNOWN_FORMAT, UNKNOWN_CODEC = 1, 4  # libsndfile's error codes
MP3_PADDING = 4 * 1152  # most samples that encoders add at both ends
MAX_FRAMES = 2**40  # libsndfile gives 2**63 - 1 for files without a length
INSTALL = 'pip install "unival[audio]"'
MP3_WARMUP = 32 * 1152  # samples decoded before a position: a packet may need the 511 bytes before it, and libsndfile decodes too few
BLOCK = 2**18  # samples decoded at a time on the way to a position


@contextlib.contextmanager
def open_audio(data: bytes, backend: str = "pyav") -> Iterator[AudioReader]:
    """Open an audio file, or the audio track of a video.

    libsndfile decodes wav, flac, ogg, mp3 and a few more; ``backend`` decodes all else, as a whole: extract the audio of long
    videos to files of their own.  Channels are averaged, except by decord (see
    :func:`unival.modalities.decord_reader.open_audio_track`).  Chained Ogg files are read as one.

    Args:
        data: bytes of the file.
        backend: one of :data:`unival.modalities.video.BACKENDS`.

    Yields:
        A reader of mono samples, valid inside the ``with`` block.

    Raises:
        UserError: the file cannot be decoded; also raised by the reader, where requested samples cannot be.
    """
    if not data:
        raise UserError("cannot decode the audio: the file is empty")
    if missing := missing_bytes(data):
        raise UserError(f"cannot decode the audio: it is truncated, {missing} of its {len(data) + missing} bytes are missing")
    with contextlib.ExitStack() as stack:
        parts = ogg_links(data)
        if len(parts) > 1:
            yield joined([_open(part, backend, stack) for part in parts])
        else:
            yield _open(data, backend, stack)


def _open(data: bytes, backend: str, stack: contextlib.ExitStack) -> AudioReader:
    """Open one file; closing ``stack`` closes it."""
    try:
        import soundfile
    except (ImportError, OSError) as error:  # OSError: libsndfile is missing
        raise UserError(f"audio needs the package soundfile: {INSTALL} ({error})") from error
    try:
        file = stack.enter_context(soundfile.SoundFile(io.BytesIO(data)))
    except soundfile.LibsndfileError as error:
        is_unknown = error.code == UNKNOWN_FORMAT or data[8:12] == b"AVI "
        if is_unknown and backend == "decord":
            return stack.enter_context(decord_reader.open_audio_track(data))
        reason = f"cannot decode the audio ({counted(len(data), 'byte')}): {error.error_string}"
        try:
            track = open_track(data)
        except UserError as other:
            if is_unknown or error.code == UNKNOWN_CODEC or data[:4] == b"OggS":
                raise
            raise UserError(reason) from other
        if track.frames < flac_samples(data):
            raise UserError(reason) from error
        return track
    if file.subtype in ("MPEG_LAYER_I", "MPEG_LAYER_II") or (file.subtype == "MPEG_LAYER_III" and is_longer(file, data)):
        return open_track(data)
    return _from_file(file, data, stack)


def flac_samples(data: bytes) -> int:
    """Samples per channel by the header of a FLAC file; 0 if it is unknown or the file is not FLAC."""
    return int.from_bytes(data[21:26], "big") % 2**36 if data[:4] == b"fLaC" else 0


def joined(readers: Sequence[AudioReader]) -> AudioReader:
    """Concatenate audio, at the sample rate of the first part."""
    rate = readers[0].rate
    readers = [reader if reader.rate == rate else _resampled(reader, rate) for reader in readers]
    starts = [0, *itertools.accumulate(reader.frames for reader in readers)]

    def read(first: int, count: int) -> np.ndarray:
        blocks = []
        for start, reader in zip(starts, readers, strict=False):
            begin, end = max(first - start, 0), min(first + count - start, reader.frames)
            if begin < end:
                blocks.append(reader.read(begin, end - begin))
        return np.concatenate(blocks) if blocks else np.zeros(0, dtype=np.float32)

    return AudioReader(rate, starts[-1], read)


def _resampled(reader: AudioReader, rate: int) -> AudioReader:
    """Audio at another sample rate, decoded as a whole."""
    whole = resampler(reader.rate, rate)(torch.from_numpy(reader.read(0, reader.frames))).numpy()
    return AudioReader(rate, len(whole), lambda first, count: whole[first : first + count])


def _from_file(file: Any, data: bytes, stack: contextlib.ExitStack) -> AudioReader:
    """Make a reader of an open ``soundfile.SoundFile``; closing ``stack`` closes it."""
    import soundfile

    total = file.frames
    # libsndfile seeks to wrong positions in Ogg Vorbis, and cannot seek in some compressed WAV, AIFF and AU files
    can_seek = file.seekable() and file.subtype != "VORBIS"
    warmup = MP3_WARMUP if file.subtype == "MPEG_LAYER_III" else 0
    position = 0

    def decode(count: int) -> np.ndarray:
        try:
            return file.read(count, dtype="float32", always_2d=True).mean(axis=1)  # samples x channels -> samples
        except soundfile.LibsndfileError as error:
            raise UserError(f"cannot decode the audio ({counted(len(data), 'byte')}): {error.error_string}") from error

    def go_to(first: int) -> None:
        nonlocal file, position
        if can_seek:
            position = file.seek(max(first - warmup, 0))
        elif first < position:
            file.close()
            file, position = stack.enter_context(soundfile.SoundFile(io.BytesIO(data))), 0
        while position < first and (step := len(decode(min(first - position, BLOCK)))):
            position += step

    def read(first: int, count: int) -> np.ndarray:
        nonlocal position
        try:
            go_to(first)
        except soundfile.LibsndfileError as error:
            raise UserError(f"cannot decode the audio: it ends before sample {first} of {total}") from error
        values = decode(count)
        position += len(values)
        if len(values) < count:
            raise UserError(f"cannot decode the audio: it ends after {first + len(values)} of {total} samples")
        return values

    if total > MAX_FRAMES:
        raise UserError(
            "cannot decode the audio: the file does not say how long it is, as one from a pipe; convert it (ffmpeg -i old.flac new.flac)"
        )
    if file.format in ("MP3", "FLAC") and total:
        read(total - 1, 1)  # a truncated file shows only at its end
    return AudioReader(file.samplerate, total, read)


def is_longer(file: Any, data: bytes) -> bool:
    """Whether an MP3 file may have more samples than libsndfile finds: its header is wrong, or missing and guessed."""
    start = 0
    if data[:3] == b"ID3":  # the size of the tags, 7 bits per byte
        start = 10 + sum(byte << shift for byte, shift in zip(data[6:10], (21, 14, 7, 0), strict=False))
    head = data[start : start + 256]
    if file.format != "MP3" or not (b"Xing" in head or b"Info" in head):
        return True
    return packet_samples(data) - file.frames > MP3_PADDING


def resampler(old: int, new: int) -> Any:
    """Make torchaudio's resampler between two rates in Hz.

    Raises:
        UserError: torchaudio is missing, or the rates have no large common divisor.
    """
    try:
        from torchaudio.transforms import Resample
    except (ImportError, OSError) as error:  # OSError: built for another torch
        raise UserError(f"audio at {old} Hz needs the package torchaudio: {INSTALL} ({error})") from error
    divisor = math.gcd(old, new)
    if old // divisor * (new // divisor) > MAX_FILTER_VALUES:
        raise UserError(
            f"cannot resample audio from {old} to {new} Hz: the rates have no large common divisor; convert the"
            f" file first (ffmpeg -i old.wav -ar {new} new.wav)"
        )
    return Resample(old, new)
