"""Audio: decode, mix to mono, resample, cut or pad to a fixed length; a PANN turns it into tokens."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Optional

import numpy as np
import torch
from torch import Tensor

from unival.backbones.pann import MIN_RATE, PANNS, filters_sample_rate
from unival.errors import UserError, counted, flag
from unival.modalities import decord_reader, kinds
from unival.modalities.audio_files import INSTALL, open_audio, resampler
from unival.modalities.base import (
    CLASSIFIER,
    Media,
    MediaEmbedding,
    Modality,
    Network,
    Published,
    Shapes,
    audio_layout,
    embed_with,
)
from unival.modalities.geometry import Loaded
from unival.modalities.options import at_least, one_of, option, positive
from unival.modalities.pyav_audio import PEAK, AudioReader

FILLINGS = ("repeatpad", "repeat", "pad")


@dataclass(frozen=True)
class AudioOptions:
    """How audio is read."""

    audio_sample_rate: int = option(
        48000,
        "audio is resampled to this many Hz",
        at_least(MIN_RATE, f"it is in Hz, at least {MIN_RATE} (published: 48000)"),
    )
    max_audio_seconds: float = option(
        10.0, "length of audio: longer audio is cut, shorter padded", positive("number of seconds (published: 10)")
    )
    audio_filling: str = option(
        "repeatpad",
        "how short audio is padded: repeated as a whole, then silence (repeatpad), repeated (repeat), silence (pad)",
        one_of(*FILLINGS),
    )


@dataclass(frozen=True)
class AudioModelOptions:
    """The spectrogram and the audio CNN."""

    audio_backbone: str = option("cnn14", "audio CNN (PANN): cnn6, cnn10, cnn14, clap_cnn10")
    audio_sample_rate: Optional[int] = option(None, "audio is resampled to this many Hz (default: 48000)")
    audio_hop_size: int = option(
        480, "samples between two frames of the spectrogram (published recipes: 200)", silent=True
    )
    audio_window_size: int = option(1024, "samples per frame of the spectrogram")
    audio_mel_bins: int = option(64, "mel bands of the spectrogram")
    audio_fmin: float = option(50.0, "lowest frequency of the mel bands in Hz")
    audio_fmax: float = option(14000.0, "highest frequency of the mel bands in Hz")
    spec_augment: bool = option(True, "in training, mask spans of time and bands of frequency of the spectrogram")
    audio_backbone_weights: Optional[str] = option(
        None, "file with weights of the audio CNN (Cnn14_mAP=0.431.pth) to start from"
    )
    freeze_audio_backbone: bool = option(
        False, "do not train the audio CNN: weights, batch-norm statistics, dropout, SpecAugment, all of it"
    )
    sample_audio_patch_num: int = option(0, "in training, keep this many randomly chosen tokens per audio clip (0: all)")


class AudioLoader:
    """Load audio files, and the audio tracks of videos, as mono float32 waveforms of ``max_audio_seconds``.

    Channels are averaged (see :func:`open_audio`).  Longer audio is cut to a random span in training and to its start in
    evaluation; only that part of a file is read.  Shorter audio is padded (``audio_filling``): ``repeatpad`` repeats it a whole
    number of times and pads with zeros, ``repeat`` truncates the last repetition instead, ``pad`` only appends zeros.

    Args:
        options: options of all modalities; ``video_backend`` decodes what libsndfile cannot.
    """

    def __init__(self, options: Any):
        seconds = options.max_audio_seconds
        if round(seconds * options.audio_sample_rate) < 1:
            raise UserError(f"--max-audio-seconds is {seconds}; it must be a positive number of seconds (published: 10)")
        self.rate = options.audio_sample_rate
        self.samples = round(seconds * self.rate)
        self.filling = options.audio_filling
        self.backend = options.video_backend
        self._resamplers: dict[int, Any] = {}  # rate -> resampler; making its filter costs as much as applying it

    def __call__(self, data: bytes, rng: np.random.Generator, train: bool) -> Loaded:
        """Decode, resample and cut or pad one file.

        Args:
            data: bytes of the file.
            rng: chooses the span of longer audio; used in training only.
            train: whether the span is random.

        Returns:
            A waveform of ``samples`` values.

        Raises:
            UserError: the bytes are not audio, are a video without an audio track, are truncated, or have no samples or samples
                that are not finite; or a package is missing.  The caller adds file, row and column.
        """
        with open_audio(data, self.backend) as audio:
            if audio.frames == 0:
                raise UserError(f"cannot decode the audio ({counted(len(data), 'byte')}): it has no samples")
            return Loaded(fill(self.span(audio, rng if train else None), self.samples, self.filling))

    def span(self, audio: AudioReader, rng: np.random.Generator | None) -> Tensor:
        """Read and resample a span of at most ``samples`` samples: the first ones or, with ``rng``, a random span.

        The values equal those of resampling the whole audio and then cutting.
        """
        divisor = math.gcd(audio.rate, self.rate)
        old, new = audio.rate // divisor, self.rate // divisor  # ``old`` samples become ``new``
        resample = self.resampler(audio.rate) if old != new else None
        needed = -(-self.samples * old // new)
        start = 0  # in steps of ``old``
        if rng is not None and audio.frames > needed:
            start = int(rng.integers((audio.frames - needed) // old + 1))
        width = resample.width if resample else 0  # samples to either side that the filter looks at
        before = min(start, -(-width // old))
        first = (start - before) * old
        count = min(before * old + needed + width + old, audio.frames - first)
        values = audio.read(first, count)
        if not np.isfinite(values).all():
            raise UserError("cannot use the audio: some of its samples are infinite or not a number")
        if (peak := float(np.abs(values).max(initial=0))) > PEAK:
            raise UserError(f"cannot use the audio: its samples reach {peak:g} times full scale")
        x = torch.from_numpy(np.ascontiguousarray(values, dtype=np.float32))
        x = resample(x) if resample else x
        return x[before * new :][: self.samples]

    def resampler(self, rate: int) -> Any:
        """The resampler from a rate, kept for the next file."""
        if rate not in self._resamplers:
            self._resamplers[rate] = resampler(rate, self.rate)
        return self._resamplers[rate]


def fill(x: Tensor, samples: int, filling: str) -> Tensor:
    """Pad 1 to ``samples`` samples to exactly ``samples``; ``filling`` is one of :data:`FILLINGS`."""
    if filling == "repeat":
        return x.repeat(-(-samples // len(x)))[:samples]
    if filling == "repeatpad":
        x = x.repeat(samples // len(x))
    return torch.nn.functional.pad(x, (0, samples - len(x)))


def _embedding(cfg: Any) -> MediaEmbedding:
    from unival.backbones.pann import Pann

    rate = cfg.audio_sample_rate
    backbone = Pann(
        cfg.audio_backbone,
        sample_rate=AudioOptions().audio_sample_rate if rate is None else rate,
        hop_size=cfg.audio_hop_size,
        window_size=cfg.audio_window_size,
        mel_bins=cfg.audio_mel_bins,
        fmin=cfg.audio_fmin,
        fmax=cfg.audio_fmax,
        spec_augment=cfg.spec_augment,
    )
    is_grid = False  # its tokens are not places in an image
    return embed_with(backbone, cfg, "audio", frozen=cfg.freeze_audio_backbone, layout=audio_layout, is_grid=is_grid)


def _packages(options: Any) -> dict[str, str]:
    needs = {
        "soundfile": f"audio needs it: {INSTALL}",
        "torchaudio": f"audio at another rate than --audio-sample-rate needs it: {INSTALL}",
    }
    if options.video_backend == "decord":
        return {**needs, "decord": f"with --video-backend decord, the audio tracks of videos need it: {decord_reader.INSTALL}"}
    return {**needs, "av": f"the audio tracks of videos, and audio other than wav, flac, ogg and mp3, need it: {INSTALL}"}


FILTERS = "mel_filters"
# Settings of the spectrogram that are constants in the published code
SPECTROGRAM = {"audio_window_size": 1024, "audio_fmin": 50.0, "audio_fmax": 14000.0}
CNN6_MEL_BINS = 64


def _spectrogram(shapes: Shapes) -> dict[str, Any]:
    if FILTERS not in shapes:
        return {}
    frequencies, bins = shapes[FILTERS]
    return {"audio_window_size": 2 * (frequencies - 1), "audio_mel_bins": bins}


def _filters_rate(given: Mapping[str, Tensor], own: Mapping[str, Tensor], cfg: Any) -> tuple[bool, int | None]:
    """Compare given mel filters with the model's own: (whether they are equal, else the usual sample rate that they are for or None)."""
    if FILTERS not in given or FILTERS not in own:
        return True, None
    if torch.allclose(given[FILTERS].float().cpu(), own[FILTERS].float().cpu(), atol=1e-4):  # the model may be on a GPU
        return True, None
    return False, filters_sample_rate(given[FILTERS], cfg.audio_fmin, cfg.audio_fmax)


def _check_filters(path: str, given: Mapping[str, Tensor], own: Mapping[str, Tensor], cfg: Any) -> None:
    """Refuse weights whose mel filters are for another sample rate than the model's."""
    same, rate = _filters_rate(given, own, cfg)
    if not same:
        hint = f"they are those of {rate} Hz: give --audio-sample-rate {rate}" if rate else "nor those of a usual sample rate"
        raise UserError(
            f"--audio-backbone-weights {path}: its mel filters are not those of {cfg.audio_sample_rate} Hz from"
            f" {cfg.audio_fmin:g} to {cfg.audio_fmax:g} Hz; {hint}"
        )


def _compare_filters(given: Mapping[str, Tensor], own: Mapping[str, Tensor], cfg: Any) -> str | None:
    """Warn where a checkpoint's mel filters are for another sample rate; they are used as they are."""
    same, rate = _filters_rate(given, own, cfg)
    if same:
        return None
    known = f"{rate} Hz" if rate else "no usual sample rate"
    return (
        f"the checkpoint's mel filters are those of {known}, audio is resampled to {cfg.audio_sample_rate} Hz: the filters are kept as"
        " they are"
    )


def _check_published(options: Mapping[str, Any]) -> None:
    """Refuse spectrograms that the published code cannot compute."""
    for name, value in SPECTROGRAM.items():
        if options[name] != value:
            raise UserError(f"{flag(name)} {options[name]:g}: the published code has only {value:g}")
    if options["audio_backbone"] == "cnn6" and options["audio_mel_bins"] != CNN6_MEL_BINS:
        raise UserError(f"--audio-mel-bins {options['audio_mel_bins']}: the published code's CNN6 has only {CNN6_MEL_BINS}")


NETWORK = Network(
    option="audio_backbone",
    choices=tuple(PANNS),
    weights="audio_backbone_weights",
    frozen="freeze_audio_backbone",
    probes=("bn0.weight", "conv_block1.conv1.weight"),
    left_out={
        "fc1.": CLASSIFIER,
        "fc_audioset.": CLASSIFIER,
        "spectrogram_extractor.": "the kernels of the spectrogram follow from the window size",
    },
    renamed={"logmel_extractor.melW": FILTERS},
    options_of=_spectrogram,
    check=_check_filters,
    compare=_compare_filters,
)
PUBLISHED = Published(
    encoder="audio_encoder_name",
    encoders={
        "pann_cnn6": {"audio_backbone": "cnn6"},
        "pann_cnn10": {"audio_backbone": "clap_cnn10"},
        "pann_cnn14": {"audio_backbone": "cnn14"},
    },
    check=_check_published,
)
AUDIO = Modality(
    "AUDIO",
    options=AudioOptions,
    model_options=AudioModelOptions,
    media=Media(
        AudioLoader,
        _embedding,
        type_row=3,
        packages=_packages,
        takes=(kinds.AUDIO, kinds.VIDEO),
        sampled="sample_audio_patch_num",
        network=NETWORK,
        published=PUBLISHED,
    ),
)
