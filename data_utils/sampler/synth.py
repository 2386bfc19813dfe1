"""Synthesised sounds with names ("a low bell", "a high siren"): twelve kinds in three registers. They need no download."""

from collections.abc import Callable

import numpy as np

REGISTERS = {"low": (130.0, 200.0), "middle": (480.0, 680.0), "high": (1700.0, 2400.0)}  # Hz, of the fundamental
_SECONDS = (0.5, 1.2)

Wave = np.ndarray  # samples, float64
Make = Callable[[np.ndarray, float, float, np.random.Generator], Wave]  # times in s, fundamental in Hz, rate, generator


def _sine(times: Wave, pitch: float | Wave) -> Wave:
    """A sine whose frequency in Hz may change from sample to sample."""
    step = times[1] - times[0]
    return np.sin(2 * np.pi * np.cumsum(np.broadcast_to(pitch, times.shape)) * step)


def _tone(times: Wave, pitch: float, rate: float, rng: np.random.Generator) -> Wave:
    return _sine(times, pitch)


def _buzz(times: Wave, pitch: float, rate: float, rng: np.random.Generator) -> Wave:
    """All overtones, as of a sawtooth."""
    count = max(1, min(24, int(0.45 * rate / pitch)))
    return np.sum([_sine(times, pitch * number) / number for number in range(1, count + 1)], axis=0)


def _bell(times: Wave, pitch: float, rate: float, rng: np.random.Generator) -> Wave:
    """Inharmonic overtones that die away, the higher the sooner."""
    ratios, fade = (1.0, 2.0, 2.41, 3.01, 4.17, 5.43), 3.0
    heard = [ratio for ratio in ratios if pitch * ratio < 0.45 * rate]
    return np.sum([_sine(times, pitch * r) * np.exp(-times * fade * r**0.7) / r**0.5 for r in heard], axis=0)


def _string(times: Wave, pitch: float, rate: float, rng: np.random.Generator) -> Wave:
    """Plucked three times: overtones that die away quickly."""
    since = times % (times[-1] / 3 + 1e-9)
    count = max(1, min(8, int(0.45 * rate / pitch)))
    overtones = range(1, count + 1)
    return np.sum([np.sin(2 * np.pi * pitch * n * since) * np.exp(-since * 6 * n**0.5) / n for n in overtones], axis=0)


def _siren(times: Wave, pitch: float, rate: float, rng: np.random.Generator) -> Wave:
    """Up and down, over and over."""
    turns = rng.uniform(2.5, 3.5)
    return _sine(times, pitch * (1.0 + 0.3 * np.sin(2 * np.pi * turns * times)))


def _trill(times: Wave, pitch: float, rate: float, rng: np.random.Generator) -> Wave:
    """Two pitches in quick turns."""
    return _sine(times, np.where((times * rng.uniform(7, 9)) % 1.0 < 0.5, pitch, pitch * 1.5))


def _rising(times: Wave, pitch: float, rate: float, rng: np.random.Generator) -> Wave:
    return _sine(times, pitch * 2.0 ** (1.6 * times / times[-1] - 0.8))


def _falling(times: Wave, pitch: float, rate: float, rng: np.random.Generator) -> Wave:
    return _sine(times, pitch * 2.0 ** (0.8 - 1.6 * times / times[-1]))


def _alarm(times: Wave, pitch: float, rate: float, rng: np.random.Generator) -> Wave:
    """Beeps with silence between them, and a square wave's overtones."""
    on = (times * rng.uniform(4.5, 6)) % 1.0 < 0.5
    count = max(1, min(9, int(0.45 * rate / pitch)))
    return np.sum([_sine(times, pitch * number) / number for number in range(1, count + 1, 2)], axis=0) * on


def _hiss(times: Wave, pitch: float, rate: float, rng: np.random.Generator) -> Wave:
    """Noise of one octave around the pitch."""
    return _band(rng.standard_normal(len(times)), 0.7 * pitch, 1.4 * pitch, rate)


def _rattle(times: Wave, pitch: float, rate: float, rng: np.random.Generator) -> Wave:
    """Short bursts of noise around the pitch, many a second."""
    since = times % (1.0 / rng.uniform(9, 12))
    return _band(rng.standard_normal(len(times)), 0.5 * pitch, 2.5 * pitch, rate) * np.exp(-since * 60)


def _drum(times: Wave, pitch: float, rate: float, rng: np.random.Generator) -> Wave:
    """Two beats; the pitch drops within each."""
    since = times % (times[-1] / 2 + 1e-9)
    beat = np.sin(2 * np.pi * pitch * (since + 0.05 * (1 - np.exp(-since * 25)))) * np.exp(-since * 14)
    return beat + 0.25 * rng.standard_normal(len(times)) * np.exp(-since * 90)


KINDS: dict[str, Make] = {
    "tone": _tone,
    "buzz": _buzz,
    "bell": _bell,
    "plucked string": _string,
    "siren": _siren,
    "trill": _trill,
    "rising sweep": _rising,
    "falling sweep": _falling,
    "alarm": _alarm,
    "hiss": _hiss,
    "rattle": _rattle,
    "drum": _drum,
}
NAMES = tuple(f"{register} {kind}" for kind in KINDS for register in REGISTERS)


def _band(noise: Wave, low: float, high: float, rate: float) -> Wave:
    """The part of ``noise`` between ``low`` and ``high`` Hz."""
    spectrum = np.fft.rfft(noise)
    frequencies = np.fft.rfftfreq(len(noise), 1 / rate)
    spectrum[(frequencies < low) | (frequencies > high)] = 0.0
    return np.fft.irfft(spectrum, len(noise))


def synthesise(name: str, rate: int, most_seconds: float, rng: np.random.Generator) -> np.ndarray:
    """A sound called ``name``, with random pitch, length and details: mono samples, float32."""
    register, _, kind = name.partition(" ")
    low, high = REGISTERS[register]
    seconds = min(most_seconds, rng.uniform(*_SECONDS))
    times = np.arange(round(seconds * rate)) / rate
    wave = KINDS[kind](times, float(rng.uniform(low, high)), float(rate), rng)
    return wave.astype(np.float32)
