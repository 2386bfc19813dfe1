"""Composer of rows with recordings: one sound alone, several one after another, or several at the same time, with background noise."""

import logging
import pathlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from . import hearing, preview, splits, stamps
from .errors import UserError
from .hearing import ALONE, MIXED, SEQUENCE, Heard
from .settings import SoundSettings
from .sounds import LEVEL, Library, Synthesised, read_recordings
from .tables import Source, Tables
from .write import ABSENT, stamps_source

_GAP = 0.1  # seconds of silence at least between two sounds in turn
_MOST_EACH = 1.4  # seconds of a sound in turn
_ALONE_PART, _MIXED_PART = 0.9, 0.8  # of the recording: the most that a sound takes of it
_GAIN = (-12.0, 0.0)  # dB, of a whole recording
_BALANCE = 3.0  # dB, of each sound, up or down
_NOISE = (20.0, 40.0)  # dB that the noise lies below the sounds
_NOISY = 2 / 3  # part of the recordings that have noise
_PEAK = 0.98

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Recording:
    """Samples from -1 to 1 (float32, mono), their layout, and the sounds in order of their onsets."""

    samples: np.ndarray
    layout: str
    heard: tuple[Heard, ...]


def lay_out(clips: Sequence[np.ndarray], layout: str, length: int, rate: int, rng: np.random.Generator) -> list[int]:
    """The first sample of each clip in a recording of ``length`` samples: one after another, or all within the longest clip."""
    sizes = [len(clip) for clip in clips]
    if layout == SEQUENCE:
        least = round(_GAP * rate)
        spare = length - sum(sizes) - least * (len(sizes) - 1)
        assert spare >= 0, f"sounds of {sizes} samples do not fit into {length}"
        shares = rng.random(len(sizes) + 1)
        gaps = (spare * shares / shares.sum()).astype(int)
        starts, place = [], 0
        for size, gap in zip(sizes, gaps, strict=False):
            place += int(gap)
            starts.append(place)
            place += size + least
        return starts
    longest = int(np.argmax(sizes))
    first = int(rng.integers(0, length - sizes[longest] + 1))
    inner = [first + int(rng.integers(0, sizes[longest] - size + 1)) for size in sizes]
    inner[longest] = first
    return inner


def record_sounds(
    names: Sequence[str], layout: str, library: Library, rate: int, seconds: float, rng: np.random.Generator
) -> Recording:
    """A recording of ``seconds`` at ``rate`` with one sound of each of ``names``, in this order if the layout is a sequence.

    Gain, balance, onsets and noise are random.
    """
    length = round(seconds * rate)
    most = {
        ALONE: _ALONE_PART * seconds,
        MIXED: _MIXED_PART * seconds,
        SEQUENCE: min(_MOST_EACH, (seconds - _GAP * (len(names) + 1)) / len(names)),
    }[layout]
    clips = [library.clip(name, most, rng) * np.float32(_ratio(rng.uniform(-_BALANCE, _BALANCE))) for name in names]
    starts = lay_out(clips, layout, length, rate, rng)
    samples = np.zeros(length, dtype=np.float32)
    heard = []
    for name, clip, start in zip(names, clips, starts, strict=True):
        samples[start : start + len(clip)] += clip
        heard.append(Heard(name, round(start / rate, 3), round((start + len(clip)) / rate, 3)))
    if rng.random() < _NOISY:
        samples += _noise(length, rng) * np.float32(LEVEL * _ratio(-rng.uniform(*_NOISE)))
    samples *= np.float32(_ratio(rng.uniform(*_GAIN)))
    peak = float(np.abs(samples).max())
    if peak > _PEAK:
        samples *= np.float32(_PEAK / peak)
    return Recording(samples, layout, tuple(sorted(heard, key=lambda sound: (sound.onset, sound.name))))


def _ratio(decibel: float) -> float:
    return float(10.0 ** (decibel / 20.0))


def _noise(length: int, rng: np.random.Generator) -> np.ndarray:
    """White, pink or brown noise with a root mean square of 1: float32."""
    slope = (0.0, 0.5, 1.0)[rng.integers(3)]
    spectrum = np.fft.rfft(rng.standard_normal(length))
    spectrum *= np.maximum(np.arange(len(spectrum)), 20) ** -slope
    noise = np.fft.irfft(spectrum, length)
    return (noise / np.sqrt((noise**2).mean())).astype(np.float32)


def save(samples: np.ndarray, path: pathlib.Path, rate: int) -> None:
    """Write ``samples`` (-1 to 1) as 16-bit audio; the suffix of ``path`` selects the format."""
    import soundfile

    soundfile.write(str(path), samples, rate, subtype="PCM_16", format=path.suffix[1:].upper())


@dataclass(frozen=True)
class SoundComposer:
    """Makes rows with recordings; small enough to be sent to worker processes."""

    settings: SoundSettings
    plan: splits.Plan
    library: Library
    folders = {"audio": "sounds"}
    material = "sounds"

    def record(self, split: str, row: int) -> tuple[dict, Recording]:
        """A row of the table of ``split``, and its recording."""
        settings, rng = self.settings, np.random.default_rng([self.settings.seed, splits.SPLITS.index(split), row])
        fewest = settings.fewest
        if split in ("valid", "test"):  # a pair is held out, a single sound is not
            fewest = min(settings.most, max(2, fewest))
        names = self.plan.draw(split, int(rng.integers(fewest, settings.most + 1)), rng)
        layout = ALONE if len(names) == 1 else (SEQUENCE, MIXED)[rng.integers(2)]
        recording = record_sounds(names, layout, self.library, settings.rate, settings.seconds, rng)
        captions = hearing.captions(recording.heard, layout)
        if split == "train" and settings.phrasing == "canonical":
            captions = captions[:1]
        others = [name for name in self.plan.names_for(split) if name not in names]
        absent = [others[index] for index in rng.permutation(len(others))[:ABSENT]]
        return {
            "id": f"{split}-{row:06d}",
            "audio": f"{self.folders['audio']}/{split}/{row:06d}.{settings.audio_format}",
            "caption": captions,
            "objects": [{"name": one.name, "onset": one.onset, "offset": one.offset} for one in recording.heard],
            "questions": hearing.questions(recording.heard, layout, absent, rng),
            "layout": layout,
        }, recording

    def write(self, split: str, row: int, room: pathlib.Path) -> dict:
        """Write the recording of a row into ``room``; returns the row."""
        record, recording = self.record(split, row)
        save(recording.samples, room / record["audio"], self.settings.rate)
        return record

    def about(self, written: Tables) -> dict:
        """Entries of the manifest about sounds and held-out pairs."""
        sources = self.library.sources
        return {
            "objects": {name: sources[name] for name in self.plan.known},
            "unseen_objects": {name: sources[name] for name in self.plan.unseen},
            "held_out_pairs": self.plan.held_out if self.settings.most > 1 else {},
        }

    def preview(self, room: pathlib.Path, written: Tables) -> None:
        """Write spectrograms of the first recordings of every split into one image."""
        preview.save_strips(written, room / "preview.png", lambda row: preview.spectrogram(room / row["audio"]))


def load_sounds(
    settings: SoundSettings, folder: str | None = None, package: str | None = None
) -> tuple[Library, Source]:
    """The sounds that ``settings`` ask for. With "auto", falls back to synthesised sounds and logs the reason.

    Raises:
        UserError: stamps were asked for (by name, folder or package) and are not available.
    """
    if settings.sounds == "synthesised":
        if folder or package:
            raise UserError("--sounds synthesised: takes no --stamps-dir and no --stamps-deb")
        return Synthesised(settings.rate), _SYNTHESISED
    try:
        with stamps.find_stamps(folder, package) as found:
            return read_recordings(found, settings.rate), stamps_source(found)
    except stamps.StampsUnavailableError as reason:
        if settings.sounds == "stamps" or folder or package:
            raise
        log.warning("sounds: synthesised instead of the stamps' own, because %s", reason)
        return Synthesised(settings.rate), _SYNTHESISED


_SYNTHESISED = Source("synthesised", "made by the builder", "Apache-2.0, as the builder")


def make_sound_composer(settings: SoundSettings, library: Library) -> SoundComposer:
    """The composer of recordings of some sounds of a library, chosen by the seed.

    Raises:
        UserError: too few sounds.
    """
    names = list(library.sources)
    wanted = settings.objects + settings.unseen_objects
    if len(names) < wanted:
        asked = f"--objects {settings.objects} --unseen-objects {settings.unseen_objects}"
        raise UserError(f"{asked}: there are only {len(names)} sounds")
    order = np.random.default_rng([settings.seed, len(splits.SPLITS) + 2]).permutation(len(names))
    plan = splits.make_plan([names[index] for index in order[:wanted]], settings.unseen_objects, settings.most, settings.seed)
    return SoundComposer(settings, plan, library)
