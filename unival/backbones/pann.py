"""PANNs for sounds (Kong et al. 2020, arXiv:1912.10211): a log-mel front end and a CNN, without pooling and classifier."""

import logging
import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from unival.errors import UserError

logger = logging.getLogger(__name__)


class Plan(NamedTuple):
    """Channels of each block, side of the kernels, convolutions per block, blocks (the first ones) that halve time and frequency."""

    channels: tuple[int, ...]
    kernel: int
    convolutions: int
    poolings: int


PANNS = {  # Kong et al. 2020, table 1
    "cnn6": Plan((64, 128, 256, 512), 5, 1, 4),
    "cnn10": Plan((64, 128, 256, 512), 3, 2, 4),
    "cnn14": Plan((64, 128, 256, 512, 1024, 2048), 3, 2, 5),
    "clap_cnn10": Plan((64, 128, 256, 512, 1024), 3, 2, 5),  # with a fifth block, as in LAION's CLAP and the published UnIVAL code
}
DROPOUT = 0.2  # after each pooling (section III-A of the paper)
STRIPES = 2  # of time, and of frequency, that SpecAugment masks in each sound
TIME_STRIPE, MEL_STRIPE = 64, 8  # a stripe is narrower than this many frames, or mel bands
MIN_POWER = 1e-10  # of a mel band: -100 dB
MAX_WINDOW = 16384  # samples; the Fourier kernels take the square of it
MIN_RATE = 1000  # Hz; smaller numbers are kHz, or a mistake
COMMON_RATES = (8000, 16000, 22050, 32000, 44100, 48000)  # Hz
HALF_TYPES = (torch.float16, torch.bfloat16)

# Slaney's mel scale (Auditory Toolbox, 1998): linear up to 1 kHz, logarithmic above
MEL_HZ = 200 / 3  # Hz per mel below the break
BREAK_HZ, BREAK_MEL = 1000.0, 1000.0 / MEL_HZ
MEL_LOG_STEP = math.log(6.4) / 27  # ln(Hz) per mel above the break


def _mel_of(hertz: float) -> float:
    return hertz / MEL_HZ if hertz < BREAK_HZ else BREAK_MEL + math.log(hertz / BREAK_HZ) / MEL_LOG_STEP


def mel_filters(sample_rate: int, window_size: int, mel_bins: int, fmin: float, fmax: float) -> Tensor:
    """Triangular filters ``window_size // 2 + 1 x mel_bins`` (float32) of equal area, on Slaney's mel scale.

    A power spectrum times these gives the mel bands.  The same numbers as ``librosa.filters.mel(...).T``.

    Args:
        sample_rate: Hz.
        window_size: samples of the Fourier transform.
        mel_bins: number of bands.
        fmin: where the lowest band begins, in Hz.
        fmax: where the highest band ends, in Hz.
    """
    mels = np.linspace(_mel_of(fmin), _mel_of(fmax), mel_bins + 2)
    above = BREAK_HZ * np.exp(MEL_LOG_STEP * (mels - BREAK_MEL))
    edges = np.where(mels < BREAK_MEL, MEL_HZ * mels, above)  # Hz; band i reaches from edges[i] to edges[i + 2]
    bins = np.fft.rfftfreq(window_size, 1 / sample_rate)[:, None]
    rise = (bins - edges[None, :-2]) / np.diff(edges)[None, :-1]
    fall = (edges[None, 2:] - bins) / np.diff(edges)[None, 1:]
    triangles = np.maximum(0, np.minimum(rise, fall)).astype(np.float32)  # rounded twice, as the published filters are
    return torch.from_numpy((triangles * (2 / (edges[2:] - edges[:-2]))).astype(np.float32))


def filters_sample_rate(filters: Tensor, fmin: float = 50.0, fmax: float = 14000.0) -> int | None:
    """Which of :data:`COMMON_RATES` (Hz) given filters ``frequencies x mel bands`` are for; None: none of them.

    ``fmax`` is lowered to half the rate where that is less.
    """
    window, bands = 2 * (filters.size(0) - 1), filters.size(1)
    for rate in COMMON_RATES:
        expected = mel_filters(rate, window, bands, fmin, min(fmax, rate / 2))
        if torch.allclose(filters.float().cpu(), expected, rtol=1e-3, atol=1e-6):  # also filters kept in half precision
            return rate
    return None


def fourier_kernels(window_size: int) -> Tensor:
    """A windowed Fourier transform as a matrix ``window_size x 2 (window_size // 2 + 1)``: real parts, then imaginary parts.

    The published models hold these numbers rounded to float32; powers of one root are what they were made from.
    """
    n = np.arange(window_size)
    root = np.exp(-2j * np.pi / window_size)
    hann = 0.5 - 0.5 * np.cos(2 * np.pi * n / window_size)  # periodic
    kernels = np.power(root, n[:, None] * n[None, : window_size // 2 + 1]) * hann[:, None]
    return torch.from_numpy(np.concatenate([kernels.real, kernels.imag], axis=1).astype(np.float32))


class ConvBlock(nn.Module):
    """Convolutions, each with batch norm and ReLU, and an average pooling that halves both sides (rounded down)."""

    def __init__(self, inputs: int, outputs: int, plan: Plan, pool: bool):
        super().__init__()
        self.convolutions = plan.convolutions
        self.pool = pool
        for i in range(1, plan.convolutions + 1):
            conv = nn.Conv2d(inputs, outputs, plan.kernel, padding=plan.kernel // 2, bias=False)
            nn.init.xavier_uniform_(conv.weight)
            self.add_module(f"conv{i}", conv)
            self.add_module(f"bn{i}", nn.BatchNorm2d(outputs))
            inputs = outputs

    def forward(self, x: Tensor) -> Tensor:
        """``n x inputs x t x f`` -> ``n x outputs x t' x f'``."""
        for i in range(1, self.convolutions + 1):
            x = F.relu(self.get_submodule(f"bn{i}")(self.get_submodule(f"conv{i}")(x)), inplace=True)
        return F.dropout(F.avg_pool2d(x, 2), DROPOUT, self.training) if self.pool else x


def mask_stripes(x: Tensor, axis: int, limit: int) -> Tensor:
    """Zero :data:`STRIPES` random stripes of each sound along an axis (SpecAugment, Park et al. 2019).

    Widths are uniform in ``[0, limit)``, starts uniform among those where the stripe fits.  ``x`` n x …, drawn from torch's generator.
    """
    size = x.size(axis)
    width = torch.randint(min(limit, size), (len(x), STRIPES, 1), device=x.device)
    start = (torch.rand(width.shape, device=x.device) * (size - width)).long()
    place = torch.arange(size, device=x.device)
    masked = ((place >= start) & (place < start + width)).any(1)  # N x size
    shape = [1] * x.dim()
    shape[0], shape[axis] = len(x), size
    return x.masked_fill(masked.view(shape), 0.0)


class Pann(nn.Module):
    """Log-mel spectrogram and CNN up to its last feature map.

    The mel filters are part of the state dict: a checkpoint's own come with it, whatever the settings.  In half precision and
    under autocast the spectrogram is computed in float32.

    Args:
        name: a key of :data:`PANNS`.
        sample_rate: of the waveforms, in Hz.
        hop_size: samples between two frames of the spectrogram.
        window_size: samples per frame.
        mel_bins: bands of the spectrogram.
        fmin: lowest frequency of the bands in Hz.
        fmax: highest frequency of the bands in Hz.
        spec_augment: in training, mask stripes of time and of frequency.
    """

    mel_filters: Tensor
    kernels: Tensor

    def __init__(
        self,
        name: str,
        sample_rate: int = 48000,
        hop_size: int = 480,
        window_size: int = 1024,
        mel_bins: int = 64,
        fmin: float = 50.0,
        fmax: float = 14000.0,
        spec_augment: bool = True,
    ):
        if name not in PANNS:
            raise UserError(f"unknown audio backbone {name!r}; choose from {', '.join(PANNS)}")
        plan = PANNS[name]
        self._check(plan, sample_rate, hop_size, window_size, mel_bins, fmin, fmax)
        super().__init__()
        self.sample_rate, self.hop_size, self.window_size = sample_rate, hop_size, window_size
        self.spec_augment = spec_augment
        self.out_channels = plan.channels[-1]
        self.stride = 2**plan.poolings
        filters = mel_filters(sample_rate, window_size, mel_bins, fmin, fmax)
        if empty := int((filters.amax(0) == 0).sum()):
            logger.warning(
                f"{empty} of {mel_bins} mel bands are narrower than the spectrum's resolution and stay empty: a larger"
                " --audio-window-size or fewer --audio-mel-bins would use them"
            )
        self.register_buffer("mel_filters", filters)  # frequencies x mel bands
        self.register_buffer("kernels", fourier_kernels(window_size), persistent=False)
        self.bn0 = nn.BatchNorm2d(mel_bins)
        self.blocks = len(plan.channels)
        for i, (inputs, outputs) in enumerate(zip((1, *plan.channels[:-1]), plan.channels, strict=True)):
            self.add_module(f"conv_block{i + 1}", ConvBlock(inputs, outputs, plan, i < plan.poolings))
        for module in self.modules():
            if isinstance(module, nn.BatchNorm2d):  # a counter that nothing reads, and that fairseq's EMA cannot average
                module.num_batches_tracked = None

    @staticmethod
    def _check(plan: Plan, rate: int, hop: int, window: int, bins: int, fmin: float, fmax: float) -> None:
        """Settings that describe no spectrogram."""
        if hop < 1:
            raise UserError(f"--audio-hop-size {hop}: it must be at least 1 sample")
        if window < 2 or window % 2 or window > MAX_WINDOW:
            raise UserError(f"--audio-window-size {window}: it must be an even number of samples, at most {MAX_WINDOW}")
        if rate < MIN_RATE:
            raise UserError(f"--audio-sample-rate {rate}: it is in Hz, at least {MIN_RATE} (published: 48000)")
        if bins < 2**plan.poolings:
            raise UserError(
                f"--audio-mel-bins {bins}: this backbone halves them {plan.poolings} times and needs {2**plan.poolings}"
            )
        if not 0 <= fmin < fmax <= rate / 2:
            raise UserError(
                f"mel bands from {fmin:g} to {fmax:g} Hz at {rate} samples per second: needs 0 <= --audio-fmin <"
                f" --audio-fmax <= {rate / 2:g}"
            )

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> "Pann":
        """Move or convert: ``half()`` and ``bfloat16()`` leave the constants of the spectrogram as precise as they are."""
        before = {name: getattr(self, name) for name in ("mel_filters", "kernels")}
        super()._apply(fn, recurse)
        for name, constant in before.items():
            if getattr(self, name).dtype in HALF_TYPES and constant.dtype not in HALF_TYPES:
                setattr(self, name, constant.to(getattr(self, name).device))
        return self

    def log_mel(self, waveform: Tensor) -> Tensor:
        """Waveform ``n x samples`` -> log-mel spectrogram ``n x t x f`` in dB, float32 (float64 in a float64 model).

        Frames are centred on multiples of the hop, ``t = samples // hop + 1``; the borders are reflected.
        """
        with torch.autocast(waveform.device.type, enabled=False):
            half = self.window_size // 2
            x = F.pad(waveform.to(self.kernels.dtype)[:, None], (half, half), mode="reflect")[:, 0]
            # A matrix product, as an FFT would not have the published models' rounded kernels; a strided convolution would be
            # computed in TF32 on recent GPUs
            real, imaginary = (x.unfold(1, self.window_size, self.hop_size) @ self.kernels).chunk(2, dim=-1)
            power = real.square() + imaginary.square()  # N x T x frequencies
            return 10 * (power @ self.mel_filters).clamp(min=MIN_POWER).log10()

    def forward(self, waveform: Tensor) -> Tensor:
        """Waveform ``n x samples`` -> features ``n x out_channels x t x f``.

        ``t = (samples // hop_size + 1) // stride``, ``f = mel_bins // stride``.

        Raises:
            UserError: the sounds are too short for one feature.
        """
        needed = max((self.stride - 1) * self.hop_size, self.window_size // 2 + 1)
        if waveform.size(1) < needed:
            raise UserError(
                f"sounds of {waveform.size(1) / self.sample_rate:.3f} s are too short: the audio backbone needs at least"
                f" {math.ceil(1000 * needed / self.sample_rate) / 1000:.3f} s at a hop of {self.hop_size} samples"
            )
        x = self.log_mel(waveform).to(self.bn0.weight.dtype)
        x = self.bn0(x.transpose(1, 2)[..., None]).transpose(1, 3)  # N x F x T x 1 -> N x 1 x T x F
        if self.training and self.spec_augment:
            x = mask_stripes(mask_stripes(x, 2, TIME_STRIPE), 3, MEL_STRIPE)
        for i in range(self.blocks):
            x = self.get_submodule(f"conv_block{i + 1}")(x)
        return x
