"""Sounds: decode, mix to mono, resample, fill up to a fixed length; a PANN turns them into tokens."""

import contextlib
import io
import math
import pathlib
import re
import tempfile
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from unival.backbones.pann import MIN_RATE
from unival.errors import UserError
from unival.modalities import kinds
from unival.modalities.base import MediaEmbedding, MediaOptions, Modality, audio_layout
from unival.modalities.containers import missing_bytes

FILLINGS = ("repeatpad", "repeat", "pad")
MAX_FILTER_VALUES = 2**26  # of a resampling filter (256 MB): rates that share a divisor need a few thousand
UNKNOWN_FORMAT = 1  # libsndfile's number for a file that it does not recognise
MAX_FRAMES = 2**40  # libsndfile says 2**63 - 1 where a file does not say how long it is
INSTALL = 'pip install "unival[audio]"'

# Sound tracks: decord resamples badly, but how many samples it makes tells the rate of the track
TRACK_RATES = (8000, 11025, 12000, 16000, 22050, 24000, 32000, 44100, 48000, 64000, 88200, 96000, 192000)  # Hz
PROBE_RATE = 16000  # Hz
TRACK_PEAK = 100.0  # full scale is 1, the mix of many channels a few times that; decord makes wild numbers of broken packets
RATE_TOLERANCE = 0.03  # the rates are at least 8 % apart


class Sound(NamedTuple):
    """An open sound: Hz, samples per channel, and ``read(first, count)`` -> samples of all channels mixed."""

    rate: int
    frames: int
    read: Callable[[int, int], np.ndarray]


class AudioLoader:
    """Bytes of a sound file, or of a video with a sound track -> waveform of ``max_audio_seconds``, mono, float32.

    Channels are averaged (sound tracks: see :func:`open_sound`).  Of a longer sound a random stretch is taken in training and the
    beginning in evaluation; only that part of a file is read.  Shorter sounds are filled up (``audio_filling``): ``repeatpad``
    repeats them a whole number of times and fills the rest with zeros, ``repeat`` cuts off the last repetition instead, ``pad``
    only adds zeros.
    """

    def __init__(self, options: MediaOptions):
        if options.audio_filling not in FILLINGS:
            raise UserError(f"unknown --audio-filling {options.audio_filling!r}; choose from {', '.join(FILLINGS)}")
        if options.audio_sample_rate < MIN_RATE:
            raise UserError(
                f"--audio-sample-rate is {options.audio_sample_rate}; it is in Hz, at least {MIN_RATE} (published: 48000)"
            )
        seconds = options.max_audio_seconds
        if round(seconds * options.audio_sample_rate) < 1:
            raise UserError(f"--max-audio-seconds is {seconds}; it must be a positive number of seconds (published: 10)")
        self.rate = options.audio_sample_rate
        self.samples = round(seconds * self.rate)
        self.filling = options.audio_filling
        self._resamplers: dict[int, Any] = {}  # rate -> what resamples from it; a filter costs as much as using it

    def __call__(self, data: bytes, rng: np.random.Generator, train: bool) -> Tensor:
        """Decode and transform: ``samples``.

        Raises:
            UserError: the bytes are no sound, a video without a sound track, cut off, empty, or hold samples that are no numbers;
                a package is missing.  The caller adds file, row and column.
        """
        with open_sound(data) as sound:
            if sound.frames == 0:
                raise UserError(f"cannot decode the sound ({len(data)} bytes): it holds no samples")
            return fill(self.stretch(sound, rng if train else None), self.samples, self.filling)

    def stretch(self, sound: Sound, rng: np.random.Generator | None) -> Tensor:
        """At most ``samples`` resampled samples, from the beginning or, with ``rng``, from anywhere.

        The same numbers as resampling the whole sound and then cutting.
        """
        divisor = math.gcd(sound.rate, self.rate)
        old, new = sound.rate // divisor, self.rate // divisor  # `old` samples become `new`
        resample = self.resampler(sound.rate) if old != new else None
        needed = -(-self.samples * old // new)
        start = 0  # in steps of `old`
        if rng is not None and sound.frames > needed:
            start = int(rng.integers((sound.frames - needed) // old + 1))
        width = resample.width if resample else 0  # samples to either side that the filter looks at
        before = min(start, -(-width // old))
        first = (start - before) * old
        count = min(before * old + needed + width + old, sound.frames - first)
        values = sound.read(first, count)
        if not np.isfinite(values).all():
            raise UserError("cannot use the sound: some of its samples are infinite or not a number")
        if (peak := float(np.abs(values).max(initial=0))) > TRACK_PEAK:
            raise UserError(f"cannot use the sound: its samples reach {peak:g} times full scale")
        x = torch.from_numpy(np.ascontiguousarray(values, dtype=np.float32))
        x = resample(x) if resample else x
        return x[before * new :][: self.samples]

    def resampler(self, rate: int) -> Any:
        """torchaudio's resampling from a rate, kept for the next sound."""
        if rate not in self._resamplers:
            try:
                from torchaudio.transforms import Resample
            except (ImportError, OSError) as error:  # OSError: built for another torch
                raise UserError(f"sounds at {rate} Hz need the package torchaudio: {INSTALL} ({error})") from error
            divisor = math.gcd(rate, self.rate)
            if rate // divisor * (self.rate // divisor) > MAX_FILTER_VALUES:
                raise UserError(
                    f"cannot resample a sound from {rate} to {self.rate} Hz: the rates have no large common divisor; convert the"
                    f" file first (ffmpeg -i old.wav -ar {self.rate} new.wav)"
                )
            self._resamplers[rate] = Resample(rate, self.rate)
        return self._resamplers[rate]


def fill(x: Tensor, samples: int, filling: str) -> Tensor:
    """Exactly ``samples`` samples from at most as many (and at least one); ``filling`` is one of :data:`FILLINGS`."""
    if filling == "repeat":
        return x.repeat(-(-samples // len(x)))[:samples]
    if filling == "repeatpad":
        x = x.repeat(samples // len(x))
    return torch.nn.functional.pad(x, (0, samples - len(x)))


# Decoding -------------------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def open_sound(data: bytes) -> Iterator[Sound]:
    """Open a sound: wav, flac, ogg, mp3 and what else libsndfile knows; the sound track of a video with decord, if installed.

    A sound track is decoded as a whole, and mixed by ffmpeg's rule, as decord has no safe way to the channels: mono stays as it
    is, stereo becomes ``(left + right) / sqrt(2)``, 3 dB above the mean.  Long videos are better extracted to sound files first.

    Raises:
        UserError: also when samples are asked for that cannot be decoded.
    """
    if not data:
        raise UserError("cannot decode the sound: the file is empty")
    try:
        import soundfile
    except (ImportError, OSError) as error:  # OSError: libsndfile is missing
        raise UserError(f"sounds need the package soundfile: {INSTALL} ({error})") from error
    if missing := missing_bytes(data):
        raise UserError(f"cannot decode the sound: it is cut off, {missing} of its {len(data) + missing} bytes are missing")
    with contextlib.ExitStack() as stack:
        try:
            file = stack.enter_context(soundfile.SoundFile(io.BytesIO(data)))
        except soundfile.LibsndfileError as error:
            if error.code != UNKNOWN_FORMAT and data[8:12] != b"AVI ":
                raise UserError(f"cannot decode the sound ({len(data)} bytes): {error.error_string}") from error
            file = None
        yield _from_file(file, data) if file else stack.enter_context(_sound_track(data))


def _from_file(file: Any, data: bytes) -> Sound:
    """An open soundfile.SoundFile as a Sound."""
    import soundfile

    def decode(count: int) -> np.ndarray:
        try:
            return file.read(count, dtype="float32", always_2d=True).mean(axis=1)  # of samples x channels
        except soundfile.LibsndfileError as error:
            raise UserError(f"cannot decode the sound ({len(data)} bytes): {error.error_string}") from error

    def read(first: int, count: int) -> np.ndarray:
        try:
            file.seek(first)
        except soundfile.LibsndfileError as error:
            raise UserError(f"cannot decode the sound: it ends before sample {first} of {file.frames}") from error
        values = decode(count)
        if len(values) < count:
            raise UserError(f"cannot decode the sound: it ends after {first + len(values)} of {file.frames} samples")
        return values

    if file.frames > MAX_FRAMES:
        raise UserError(
            "cannot decode the sound: the file does not say how long it is, as one from a pipe; convert it (ffmpeg -i old.flac new.flac)"
        )
    if file.format == "MP3" and not _mp3_knows_its_length(data):
        whole = decode(-1)  # the number of frames is a guess
        return Sound(file.samplerate, len(whole), lambda first, count: whole[first : first + count])
    if file.format in ("MP3", "FLAC") and file.frames:
        read(file.frames - 1, 1)  # whether it is cut off shows only at the end
    return Sound(file.samplerate, file.frames, read)


def _mp3_knows_its_length(data: bytes) -> bool:
    """Whether an MP3 file has the header that says how many frames it has, in its first frame."""
    start = 0
    if data[:3] == b"ID3":  # tags: 7 bits of the size per byte
        start = 10 + sum(byte << shift for byte, shift in zip(data[6:10], (21, 14, 7, 0), strict=False))
    head = data[start : start + 256]
    return b"Xing" in head or b"Info" in head


@contextlib.contextmanager
def _sound_track(data: bytes) -> Iterator[Sound]:
    """The sound track of a video."""
    try:
        import decord
    except (ImportError, OSError) as error:  # OSError: its library does not fit this machine
        raise UserError(
            f"cannot decode the sound ({len(data)} bytes): it is no wav, flac, ogg or mp3 file; if it is a video, its sound track"
            f' needs the package decord: pip install "unival[video]" ({error})'
        ) from error
    decord.logging.set_level(decord.logging.QUIET)  # what is wrong comes as an exception
    with tempfile.TemporaryDirectory() as folder:  # given bytes, decord reads past the end of broken files
        path = pathlib.Path(folder, "media")
        path.write_bytes(data)

        def decode(rate: int) -> Any:
            # mono: with several channels, decord 0.6 writes to memory that is not its own
            return decord.AudioReader(str(path), sample_rate=rate, mono=True)

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
            if np.abs(values).max(initial=0) > TRACK_PEAK:
                raise UserError(f"cannot decode the sound ({len(data)} bytes): its sound track is damaged")
            return values

        yield Sound(rate, frames, read)


def track_rate(frames: int, probe_frames: int) -> int:
    """The rate in Hz of a sound track with ``frames`` samples, of which resampling to 16000 Hz makes ``probe_frames``."""
    measured = frames * PROBE_RATE / max(probe_frames, 1)
    rate = min(TRACK_RATES, key=lambda known: abs(known - measured))
    if abs(measured / rate - 1) > RATE_TOLERANCE:
        raise UserError(f"cannot decode the sound: its sample rate of about {measured:.0f} Hz is none of {TRACK_RATES}")
    return rate


def _embedding(cfg: Any) -> MediaEmbedding:
    from unival.backbones.pann import Pann
    from unival.backbones.resnet import freeze_batchnorm  # imports timm: only where a model is built

    rate = cfg.audio_sample_rate
    backbone = Pann(
        cfg.audio_backbone,
        sample_rate=MediaOptions().audio_sample_rate if rate is None else rate,
        hop_size=cfg.audio_hop_size,
        window_size=cfg.audio_window_size,
        mel_bins=cfg.audio_mel_bins,
        fmin=cfg.audio_fmin,
        fmax=cfg.audio_fmax,
        spec_augment=cfg.spec_augment,
    )
    return MediaEmbedding(
        backbone,
        cfg.encoder_embed_dim,
        cfg.image_bucket_size,
        cfg.freeze_audio_backbone,
        freeze_batchnorm(backbone) if cfg.freeze_batchnorm else [],
        norm=cfg.modality_layernorm,
        layout=audio_layout,
    )


PACKAGES = {
    "soundfile": f"sounds need it: {INSTALL}",
    "torchaudio": f"sounds at another rate than --audio-sample-rate need it: {INSTALL}",
    "decord": 'the sound tracks of videos need it: pip install "unival[video]"',
}
AUDIO = Modality("AUDIO", AudioLoader, _embedding, PACKAGES, takes=(kinds.AUDIO, kinds.VIDEO))
