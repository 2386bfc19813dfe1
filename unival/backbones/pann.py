"""PANNs, CNNs for audio (Kong et al. 2020, arXiv:1912.10211): log-mel spectrogram and CNN, without pooling and classifier."""

import logging
import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from unival.backbones.folding import Foldable
from unival.backbones.recomputing import run_layer
from unival.errors import UserError, unknown

logger = logging.getLogger(__name__)


class Plan(NamedTuple):
    """The architecture of a PANN."""

    channels: tuple[int, ...]  # of each block
    kernel: int  # size of the square kernels
    convolutions: int  # per block
    poolings: int  # the first blocks, so many, halve time and frequency


PANNS = {  # Kong et al. 2020, table 1
    "cnn6": Plan((64, 128, 256, 512), 5, 1, 4),
    "cnn10": Plan((64, 128, 256, 512), 3, 2, 4),
    "cnn14": Plan((64, 128, 256, 512, 1024, 2048), 3, 2, 5),
    "clap_cnn10": Plan((64, 128, 256, 512, 1024), 3, 2, 5),  # a fifth block, as in LAION's CLAP and the published UnIVAL code
}
DROPOUT = 0.2  # after each pooling (section III-A of the paper)
STRIPES = 2  # stripes of time, and of frequency, that SpecAugment masks in each example
TIME_STRIPE, MEL_STRIPE = 64, 8  # upper limits (exclusive) of the width of a stripe, in frames and in mel bands
MIN_POWER = 1e-10  # of a mel band: -100 dB
MAX_WINDOW = 16384  # samples; the Fourier kernels have the square of it as elements
MIN_RATE = 1000  # Hz; a smaller number was probably meant in kHz
COMMON_RATES = (8000, 16000, 22050, 32000, 44100, 48000)  # Hz
HALF_TYPES = (torch.float16, torch.bfloat16)

# Slaney's mel scale (Auditory Toolbox, 1998): linear up to 1 kHz, logarithmic above
MEL_HZ = 200 / 3  # Hz per mel below the break
BREAK_HZ, BREAK_MEL = 1000.0, 1000.0 / MEL_HZ
MEL_LOG_STEP = math.log(6.4) / 27  # ln(Hz) per mel above the break


def _mel_of(hertz: float) -> float:
    return hertz / MEL_HZ if hertz < BREAK_HZ else BREAK_MEL + math.log(hertz / BREAK_HZ) / MEL_LOG_STEP


def mel_filters(sample_rate: int, window_size: int, mel_bins: int, fmin: float, fmax: float) -> Tensor:
    """Mel filter bank on Slaney's scale: triangular filters of equal area, equal to ``librosa.filters.mel(...).T``.

    Args:
        sample_rate: in Hz.
        window_size: samples of the Fourier transform.
        mel_bins: number of bands.
        fmin: lower edge of the lowest band, in Hz.
        fmax: upper edge of the highest band, in Hz.

    Returns:
        ``window_size // 2 + 1 x mel_bins`` (float32); a power spectrum times this matrix gives the mel bands.
    """
    mels = np.linspace(_mel_of(fmin), _mel_of(fmax), mel_bins + 2)
    above = BREAK_HZ * np.exp(MEL_LOG_STEP * (mels - BREAK_MEL))
    edges = np.where(mels < BREAK_MEL, MEL_HZ * mels, above)  # Hz; band i spans edges[i] to edges[i + 2]
    bins = np.fft.rfftfreq(window_size, 1 / sample_rate)[:, None]
    rise = (bins - edges[None, :-2]) / np.diff(edges)[None, :-1]
    fall = (edges[None, 2:] - bins) / np.diff(edges)[None, 1:]
    triangles = np.maximum(0, np.minimum(rise, fall)).astype(np.float32)  # rounded here and below, as the published filters are
    return torch.from_numpy((triangles * (2 / (edges[2:] - edges[:-2]))).astype(np.float32))


def filters_sample_rate(filters: Tensor, fmin: float = 50.0, fmax: float = 14000.0) -> int | None:
    """Find the sample rate that mel filters were made for.

    Args:
        filters: ``frequencies x mel bands``.
        fmin: lower edge of the lowest band, in Hz.
        fmax: upper edge of the highest band, in Hz; limited to half of each rate tried.

    Returns:
        One of :data:`COMMON_RATES`, in Hz; None if the filters are of none of them.
    """
    window, bands = 2 * (filters.size(0) - 1), filters.size(1)
    for rate in COMMON_RATES:
        expected = mel_filters(rate, window, bands, fmin, min(fmax, rate / 2))
        if torch.allclose(filters.float().cpu(), expected, rtol=1e-3, atol=1e-6):  # within half precision
            return rate
    return None


def fourier_kernels(window_size: int) -> Tensor:
    """Windowed Fourier transform as a matrix ``window_size x 2 (window_size // 2 + 1)``: real parts, then imaginary parts.

    Computed as powers of one root of unity and rounded to float32, like the numbers in the published models.
    """
    n = np.arange(window_size)
    root = np.exp(-2j * np.pi / window_size)
    hann = 0.5 - 0.5 * np.cos(2 * np.pi * n / window_size)  # periodic
    kernels = np.power(root, n[:, None] * n[None, : window_size // 2 + 1]) * hann[:, None]
    return torch.from_numpy(np.concatenate([kernels.real, kernels.imag], axis=1).astype(np.float32))


class ConvBlock(nn.Module):
    """Convolutions, each with batch norm and ReLU, then average pooling that halves time and frequency (rounded down)."""

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
        """``n x inputs x frames x mels`` -> ``n x outputs x frames x mels``, or half of both with pooling."""
        for i in range(1, self.convolutions + 1):
            x = F.relu(self.get_submodule(f"bn{i}")(self.get_submodule(f"conv{i}")(x)), inplace=True)
        return F.dropout(F.avg_pool2d(x, 2), DROPOUT, self.training) if self.pool else x


def mask_stripes(x: Tensor, axis: int, limit: int) -> Tensor:
    """Set :data:`STRIPES` random stripes of each example to zero (SpecAugment, Park et al. 2019).

    Widths are uniform in ``[0, limit)``, starts uniform where the stripe fits. Both come from torch's global generator.

    Args:
        x: ``n x ...``.
        axis: along which the stripes are cut.
        limit: upper limit of a stripe's width, exclusive.
    """
    size = x.size(axis)
    width = torch.randint(min(limit, size), (len(x), STRIPES, 1), device=x.device)
    start = (torch.rand(width.shape, device=x.device) * (size - width)).long()
    place = torch.arange(size, device=x.device)
    masked = ((place >= start) & (place < start + width)).any(1)  # n x size, True where set to zero
    shape = [1] * x.dim()
    shape[0], shape[axis] = len(x), size
    return x.masked_fill(masked.view(shape), 0.0)


class Pann(Foldable):
    """Log-mel spectrogram and CNN, up to the last feature map.

    The mel filters are part of the state dict: loading a checkpoint replaces those of the settings. The spectrogram is computed
    in float32 also in half precision and under autocast.

    Args:
        name: a key of :data:`PANNS`.
        sample_rate: of the waveforms, in Hz.
        hop_size: samples between two frames of the spectrogram.
        window_size: samples per frame.
        mel_bins: number of mel bands.
        fmin: lower edge of the lowest band, in Hz.
        fmax: upper edge of the highest band, in Hz.
        spec_augment: whether to mask stripes of time and of frequency in training.

    Raises:
        UserError: unknown name, or settings that describe no spectrogram.
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
            raise UserError(unknown("audio backbone", name, PANNS))
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
                f"{empty} of {mel_bins} mel bands are narrower than the spectrum's resolution and stay empty: use a larger"
                " --audio-window-size or fewer --audio-mel-bins"
            )
        self.register_buffer("mel_filters", filters)  # frequencies x mel bands
        self.register_buffer("kernels", fourier_kernels(window_size), persistent=False)
        self.bn0 = nn.BatchNorm2d(mel_bins)
        self.blocks = len(plan.channels)
        for i, (inputs, outputs) in enumerate(zip((1, *plan.channels[:-1]), plan.channels, strict=True)):
            self.add_module(f"conv_block{i + 1}", ConvBlock(inputs, outputs, plan, i < plan.poolings))
        for module in self.modules():
            if isinstance(module, nn.BatchNorm2d):  # an unused counter, which fairseq's EMA cannot average
                module.num_batches_tracked = None

    @staticmethod
    def _check(plan: Plan, rate: int, hop: int, window: int, bins: int, fmin: float, fmax: float) -> None:
        """Raise an error for settings that describe no spectrogram."""
        if hop < 1:
            raise UserError(f"--audio-hop-size {hop}: must be at least 1 sample")
        if window < 2 or window % 2 or window > MAX_WINDOW:
            raise UserError(f"--audio-window-size {window}: must be an even number of samples, at most {MAX_WINDOW}")
        if rate < MIN_RATE:
            raise UserError(f"--audio-sample-rate {rate}: must be in Hz, at least {MIN_RATE} (published: 48000)")
        if bins < 2**plan.poolings:
            raise UserError(
                f"--audio-mel-bins {bins}: must be at least {2**plan.poolings}, as this backbone halves them {plan.poolings} times"
            )
        if not 0 <= fmin < fmax <= rate / 2:
            raise UserError(
                f"mel bands from {fmin:g} to {fmax:g} Hz at {rate} samples per second: must be 0 <= --audio-fmin <"
                f" --audio-fmax <= {rate / 2:g}"
            )

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> "Pann":
        """Move or convert the module; ``half()`` and ``bfloat16()`` keep the precision of the constants of the spectrogram."""
        before = {name: getattr(self, name) for name in ("mel_filters", "kernels")}
        super()._apply(fn, recurse)
        for name, constant in before.items():
            if getattr(self, name).dtype in HALF_TYPES and constant.dtype not in HALF_TYPES:
                setattr(self, name, constant.to(getattr(self, name).device))
        return self

    def log_mel(self, waveform: Tensor) -> Tensor:
        """Log-mel spectrogram in dB. Frames are centred on multiples of the hop size, with reflection padding at both ends.

        Args:
            waveform: ``n x samples``.

        Returns:
            ``n x frames x mel_bins`` with ``frames = samples // hop_size + 1``, in float32 (float64 in a float64 model).
        """
        with torch.autocast(waveform.device.type, enabled=False):
            half = self.window_size // 2
            x = F.pad(waveform.to(self.kernels.dtype)[:, None], (half, half), mode="reflect")[:, 0]
            # A matrix product, because an FFT does not have the rounded kernels of the published models, and a strided
            # convolution would run in TF32 on recent GPUs
            real, imaginary = (x.unfold(1, self.window_size, self.hop_size) @ self.kernels).chunk(2, dim=-1)
            power = real.square() + imaginary.square()  # n x frames x frequencies
            return 10 * (power @ self.mel_filters).clamp(min=MIN_POWER).log10()

    def forward(self, waveform: Tensor) -> Tensor:
        """Extract features.

        Args:
            waveform: ``n x samples``.

        Returns:
            ``n x out_channels x (samples // hop_size + 1) // stride x mel_bins // stride``.

        Raises:
            UserError: the waveforms are too short for one feature.
        """
        needed = max((self.stride - 1) * self.hop_size, self.window_size // 2 + 1)
        if waveform.size(1) < needed:
            raise UserError(
                f"audio of {waveform.size(1) / self.sample_rate:.3f} s is too short: the audio backbone needs at least"
                f" {math.ceil(1000 * needed / self.sample_rate) / 1000:.3f} s at a hop of {self.hop_size} samples"
            )
        folded = self.ready(waveform)
        if folded is not None:
            return folded(waveform)
        x = self.log_mel(waveform).to(self.bn0.weight.dtype)
        x = self.bn0(x.transpose(1, 2)[..., None]).transpose(1, 3)  # n x mels x frames x 1 -> n x 1 x frames x mels
        if self.training and self.spec_augment:
            x = mask_stripes(mask_stripes(x, 2, TIME_STRIPE), 3, MEL_STRIPE)
        for i in range(self.blocks):
            x = run_layer(self.get_submodule(f"conv_block{i + 1}"), self.mode, x)
        return x
