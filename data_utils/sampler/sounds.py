"""Named sounds: recordings of what stamps show, or synthesised ones, with the needed duration and loudness."""

import pathlib
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Protocol

import numpy as np

from . import synth
from .errors import UserError
from .names import contain, object_name
from .stamps import Stamps

LEAST_SECONDS = 0.15  # of a recording: nobody can tell what a shorter one is
LEVEL = 0.1  # root mean square over the loudest tenth of a second that every sound is brought to
_SILENCE = 0.02  # part of the highest peak: quieter samples at the ends are cut off
_FADE = 0.01  # seconds at both ends
_SAME = 0.6  # correlation from which two recordings are the same sound
_FINGERPRINT_RATE = 4000  # samples per second, for finding the same sound twice
_SPEECH = ("symbols", "military", "town/roadsigns", "seasonal/hanukkah", "space")  # folders where the sound is a voice
# What nobody would name after hearing it, and animals of which another one with the same voice is there.
_NOT_HEARD = frozenset(
    {
        "beaver", "bottle", "checkered flag", "christmas hat", "doe", "drake", "dromedary", "gander", "ghost", "gift",
        "lark", "mountaingoat", "quetzal", "ram", "red apple", "rhea", "spider", "xanthia",
    }
)  # fmt: skip
_HEARD_AS = {"lightning bolt": "thunderclap"}


class Library(Protocol):
    """Sounds by name."""

    @property
    def sources(self) -> dict[str, list[str]]:
        """Names, best first, and where the sounds of each came from."""

    def clip(self, name: str, most_seconds: float, rng: np.random.Generator) -> np.ndarray:
        """A sound called ``name``, at most ``most_seconds`` long: samples from -1 to 1, float32, with loudness LEVEL."""


@dataclass(frozen=True)
class Synthesised:
    """Synthesised sounds, different in every row."""

    rate: int

    @property
    def sources(self) -> dict[str, list[str]]:
        """Every name, and that it was synthesised."""
        return {name: [f"synthesised: {name}"] for name in synth.NAMES}

    def clip(self, name: str, most_seconds: float, rng: np.random.Generator) -> np.ndarray:
        """A sound called ``name``, at most ``most_seconds`` long: samples from -1 to 1, float32, with loudness LEVEL."""
        return _finish(synth.synthesise(name, self.rate, most_seconds, rng), self.rate)


@dataclass(frozen=True)
class Recorded:
    """Recordings by name: name -> [(source, samples at ``rate``, float32)], the best names first."""

    rate: int
    recordings: dict[str, list[tuple[str, np.ndarray]]]

    @property
    def sources(self) -> dict[str, list[str]]:
        """Names, best first, and the files of each."""
        return {name: [source for source, _ in found] for name, found in self.recordings.items()}

    def clip(self, name: str, most_seconds: float, rng: np.random.Generator) -> np.ndarray:
        """One of the recordings called ``name``; of a long one, a loud segment of ``most_seconds``."""
        found = self.recordings[name]
        samples = found[rng.integers(len(found))][1]
        length = int(most_seconds * self.rate)
        if len(samples) > length:
            samples = samples[_loud_start(samples, length, rng) :][:length]
        return _finish(samples, self.rate)


def _loud_start(samples: np.ndarray, length: int, rng: np.random.Generator) -> int:
    """A random start of a segment of ``length`` samples that has at least two thirds of the largest energy."""
    total = np.concatenate([[0.0], np.cumsum(samples.astype(np.float64) ** 2)])
    energy = total[length:] - total[:-length]
    fitting = np.flatnonzero(energy >= 2 / 3 * energy.max())
    return int(fitting[rng.integers(len(fitting))])


def _finish(samples: np.ndarray, rate: int) -> np.ndarray:
    """``samples`` with faded ends and loudness LEVEL."""
    shaped = samples.astype(np.float64)
    fade = min(len(shaped) // 2, round(_FADE * rate))
    ramp = np.linspace(0.0, 1.0, fade, endpoint=False)
    shaped[:fade] *= ramp
    shaped[len(shaped) - fade :] *= ramp[::-1]
    window = min(len(shaped), rate // 10)
    total = np.concatenate([[0.0], np.cumsum(shaped**2)])
    loudest = np.sqrt((total[window:] - total[:-window]).max() / window)
    return (shaped * (LEVEL / loudest)).astype(np.float32)


def check_soundfile() -> None:
    """Raise UserError if the package soundfile is not installed."""
    if find_spec("soundfile") is None:
        raise UserError("--media audio: needs the package soundfile (pip install soundfile)")


def read_recordings(stamps: Stamps, rate: int) -> Recorded:
    """The sounds of the stamps, x.ogg beside x.txt, resampled to ``rate``; a name may have several recordings.

    Left out: voices, silence, what has no short name or a name that contains another's words, and all but the first
    name of a recording that is there more than once.

    Raises:
        UserError: a file cannot be read, or there are no sounds.
    """
    found: dict[str, list[tuple[str, np.ndarray]]] = {}
    for file in sorted(stamps.folder.rglob("*.ogg")):
        inside = file.relative_to(stamps.folder).as_posix()
        caption = file.with_suffix(".txt")
        if inside.startswith(_SPEECH) or not caption.is_file():
            continue
        name = object_name((caption.read_text(encoding="utf-8", errors="replace").splitlines() or [""])[0])
        name = _HEARD_AS.get(name or "", name)
        if name is None or name in _NOT_HEARD:
            continue
        samples = _read(file, rate)
        if len(samples) >= LEAST_SECONDS * rate:
            found.setdefault(name, []).append((inside, samples))
    if not found:
        raise UserError(f"{stamps.folder}: holds no .ogg sounds with a short name (.txt) beside them")
    return Recorded(rate, _distinct(found, rate))


def _read(file: pathlib.Path, rate: int) -> np.ndarray:
    """The sound of a file at ``rate``, mono, without silence at its ends; empty if all of it is silence."""
    import soundfile

    try:
        samples, own_rate = soundfile.read(str(file), dtype="float64", always_2d=True)
    except (OSError, RuntimeError) as error:
        raise UserError(f"{file}: cannot be read as a sound ({error})") from error
    mono = resample(samples.mean(1), own_rate, rate)
    loud = np.flatnonzero(np.abs(mono) > _SILENCE * np.abs(mono).max(initial=0.0))
    return mono[loud[0] : loud[-1] + 1].astype(np.float32) if len(loud) else mono[:0].astype(np.float32)


def resample(samples: np.ndarray, own_rate: int, rate: int) -> np.ndarray:
    """``samples`` at another rate, by cutting or padding the spectrum; zero padding keeps the ends from wrapping around."""
    if own_rate == rate or not len(samples):
        return samples
    length = round(len(samples) * rate / own_rate)
    blocks = -(-(len(samples) + own_rate // 20) // own_rate)  # whole seconds: both lengths are whole numbers
    spectrum = np.fft.rfft(np.pad(samples, (0, blocks * own_rate - len(samples))))
    kept = spectrum[: blocks * rate // 2 + 1]
    padded = np.pad(kept, (0, blocks * rate // 2 + 1 - len(kept)))
    return np.fft.irfft(padded, blocks * rate)[:length] * (rate / own_rate)


def _distinct(found: dict[str, list[tuple[str, np.ndarray]]], rate: int) -> dict[str, list[tuple[str, np.ndarray]]]:
    """``found`` without names that contain another's words, and without names with a recording of another; short first."""
    order = sorted(found, key=lambda name: (len(name.split()), name))
    kept: dict[str, list[tuple[str, np.ndarray]]] = {}
    prints: list[np.ndarray] = []
    for name in order:
        own = [_fingerprint(samples, rate) for _, samples in found[name]]
        repeated = any(same_sound(one, other) for one in own for other in prints)
        if repeated or any(contain(name, other) for other in kept):
            continue
        kept[name] = found[name]
        prints.extend(own)
    return kept


def _fingerprint(samples: np.ndarray, rate: int) -> np.ndarray:
    """A sound at a low sample rate, with unit norm."""
    small = resample(samples.astype(np.float64), rate, _FINGERPRINT_RATE)
    return small / max(1e-9, float(np.linalg.norm(small)))


def same_sound(one: np.ndarray, other: np.ndarray) -> bool:
    """Whether two fingerprints agree, wherever one starts within the other."""
    size = 2 ** int(np.ceil(np.log2(len(one) + len(other))))
    product = np.fft.rfft(one, size) * np.conj(np.fft.rfft(other, size))
    return bool(np.abs(np.fft.irfft(product, size)).max() >= _SAME)

