"""Audio files: opened, decoded in parts as they are needed, resampled."""

import contextlib
import io
import itertools
import math
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch

from unival.errors import UserError
from unival.modalities import decord_reader
from unival.modalities.containers import missing_bytes, ogg_links
from unival.modalities.pyav_audio import AudioReader, open_track, packet_samples

MAX_FILTER_VALUES = 2**26  # of a resampling filter (256 MB): rates that share a divisor need a few thousand
UNKNOWN_FORMAT, UNKNOWN_CODEC = 1, 4  # libsndfile's numbers for files that it does not recognise, or cannot decode
MP3_PADDING = 4 * 1152  # samples that encoders put around a sound, at most
MAX_FRAMES = 2**40  # libsndfile says 2**63 - 1 where a file does not say how long it is
INSTALL = 'pip install "unival[audio]"'
MP3_WARMUP = 32 * 1152  # samples before a place, as a packet may need the 511 bytes before it: libsndfile decodes too few of them
BLOCK = 2**18  # samples decoded at a time to come to others


@contextlib.contextmanager
def open_audio(data: bytes, backend: str = "pyav") -> Iterator[AudioReader]:
    """Open a sound: wav, flac, ogg, mp3 and what else libsndfile knows; other sounds, and the sound tracks of videos, with ``backend``.

    What libsndfile does not know is decoded as a whole: long videos are better extracted to sound files first.  Channels are
    averaged, but by decord: see :func:`unival.modalities.decord_reader.open_audio_track`.  Ogg files that follow one another in
    one file (chained) are one sound.

    Raises:
        UserError: also when samples are asked for that cannot be decoded.
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
    """A sound that is open as long as ``stack``."""
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
        reason = f"cannot decode the audio ({len(data)} bytes): {error.error_string}"
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
    """Samples that a FLAC file says it holds, of a channel; 0 if it does not say, or is none."""
    return int.from_bytes(data[21:26], "big") % 2**36 if data[:4] == b"fLaC" else 0


def joined(sounds: Sequence[AudioReader]) -> AudioReader:
    """Sounds one after another, at the rate of the first."""
    rate = sounds[0].rate
    sounds = [sound if sound.rate == rate else _resampled(sound, rate) for sound in sounds]
    starts = [0, *itertools.accumulate(sound.frames for sound in sounds)]

    def read(first: int, count: int) -> np.ndarray:
        blocks = []
        for start, sound in zip(starts, sounds, strict=False):
            begin, end = max(first - start, 0), min(first + count - start, sound.frames)
            if begin < end:
                blocks.append(sound.read(begin, end - begin))
        return np.concatenate(blocks) if blocks else np.zeros(0, dtype=np.float32)

    return AudioReader(rate, starts[-1], read)


def _resampled(sound: AudioReader, rate: int) -> AudioReader:
    """A sound at another rate, decoded as a whole."""
    whole = resampler(sound.rate, rate)(torch.from_numpy(sound.read(0, sound.frames))).numpy()
    return AudioReader(rate, len(whole), lambda first, count: whole[first : first + count])


def _from_file(file: Any, data: bytes, stack: contextlib.ExitStack) -> AudioReader:
    """An open soundfile.SoundFile as an AudioReader; what ``stack`` closes."""
    import soundfile

    total = file.frames
    # libsndfile comes to wrong places in Ogg Vorbis, and to none in some compressed WAV, AIFF and AU files
    can_seek = file.seekable() and file.subtype != "VORBIS"
    warmup = MP3_WARMUP if file.subtype == "MPEG_LAYER_III" else 0
    position = 0

    def decode(count: int) -> np.ndarray:
        try:
            return file.read(count, dtype="float32", always_2d=True).mean(axis=1)  # of samples x channels
        except soundfile.LibsndfileError as error:
            raise UserError(f"cannot decode the audio ({len(data)} bytes): {error.error_string}") from error

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
        read(total - 1, 1)  # whether it is cut off shows only at the end
    return AudioReader(file.samplerate, total, read)


def is_longer(file: Any, data: bytes) -> bool:
    """Whether an MP3 file may hold more than the samples that libsndfile sees in it: its header is wrong, or only guessed at."""
    start = 0
    if data[:3] == b"ID3":  # tags: 7 bits of the size per byte
        start = 10 + sum(byte << shift for byte, shift in zip(data[6:10], (21, 14, 7, 0), strict=False))
    head = data[start : start + 256]
    if file.format != "MP3" or not (b"Xing" in head or b"Info" in head):
        return True
    return packet_samples(data) - file.frames > MP3_PADDING


def resampler(old: int, new: int) -> Any:
    """torchaudio's resampling from one rate to another."""
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
