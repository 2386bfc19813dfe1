"""Settings that determine the data, byte for byte: one class for each kind of table, with checks of the values."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from . import splits
from .errors import UserError
from .scene import MOST

SPRITES = ("auto", "stamps", "shapes")
EMOJI = "emoji"  # sprites of videos only
SOUNDS = ("auto", "stamps", "synthesised")
PHRASINGS = ("canonical", "both")
VIDEO_FORMATS = ("webp", "mp4")
AUDIO_FORMATS = ("flac", "wav")  # both without loss and always the same bytes; Ogg files get a random serial number
MOST_SOUNDS = 3  # in one recording
_SMALLEST = 48  # pixels
_LEAST_EACH = 0.6  # seconds of a recording for each of its sounds

Range = tuple[float, float]
_ROWS: dict[str, Range] = {**dict.fromkeys((*splits.SPLITS, "valid_swapped"), (0, 10**6)), "seed": (0, 2**63)}
_OBJECTS: dict[str, Range] = {"objects": (1, 10**6), "unseen_objects": (0, 10**6)}
_PICTURES: dict[str, Range] = {"size": (_SMALLEST, 4096), "quality": (1, 100)}
_RECORDINGS: dict[str, Range] = {"rate": (8000, 96000), "seconds": (1, 60)}


def _check(settings: Any, choices: Mapping[str, Sequence[str]], ranges: Mapping[str, Range], most: int) -> None:
    """Raise UserError, naming the argument, for a value that is not one of its choices or is out of range."""
    for name, allowed in choices.items():
        value = getattr(settings, name)
        if value not in allowed:
            raise UserError(f"--{name.replace('_', '-')} {value}: must be one of {', '.join(allowed)}")
    for name, (low, high) in ranges.items():
        if not low <= getattr(settings, name) <= high:
            raise UserError(f"--{name.replace('_', '-')} {getattr(settings, name)}: must be from {low} to {high}")
    fewest = settings.fewest
    if not 1 <= fewest <= settings.most <= most:
        raise UserError(f"--per-scene {fewest}-{settings.most}: must be one number or a range within 1-{most}")
    if settings.test_unseen and not settings.unseen_objects:
        raise UserError(f"--test-unseen {settings.test_unseen}: needs --unseen-objects (or give --test-unseen 0)")
    if settings.valid_swapped > settings.valid:
        raise UserError(f"--valid-swapped {settings.valid_swapped}: must not be more than --valid {settings.valid}")


@dataclass(frozen=True)
class Settings:
    """Images: ``fewest`` to ``most`` sprites in a scene, ``size`` in pixels, rows per split."""

    sprites: str = "auto"
    objects: int = 100
    unseen_objects: int = 20
    fewest: int = 2
    most: int = 2
    size: int = 96
    train: int = 20000
    valid: int = 400
    test: int = 400
    test_unseen: int = 200
    valid_swapped: int = 0
    phrasing: str = "canonical"
    quality: int = 92
    seed: int = 1

    def check(self) -> None:
        """Raise UserError, naming the argument, for an invalid value."""
        _check(self, {"sprites": SPRITES, "phrasing": PHRASINGS}, _OBJECTS | _PICTURES | _ROWS, MOST)


@dataclass(frozen=True)
class VideoSettings(Settings):
    """Videos: ``frames`` frames each, shown at ``fps`` a second. With emoji, the sprites move by themselves."""

    size: int = 64
    train: int = 4000
    media: str = "video"
    frames: int = 16
    fps: int = 8
    video_format: str = "webp"

    def check(self) -> None:
        """Raise UserError, naming the argument, for an invalid value."""
        choices = {"sprites": (*SPRITES, EMOJI), "phrasing": PHRASINGS, "video_format": VIDEO_FORMATS}
        ranges = _OBJECTS | _PICTURES | _ROWS | {"frames": (2, 256), "fps": (1, 60)}
        _check(self, choices, ranges, MOST)
        if self.video_format == "mp4" and self.size % 2:
            raise UserError(f"--size {self.size}: must be even for --video-format mp4")


@dataclass(frozen=True)
class EmojiSettings(VideoSettings):
    """Videos of animated emoji: by default one in each, so that its name is the caption."""

    sprites: str = EMOJI
    objects: int = 80
    unseen_objects: int = 16
    fewest: int = 1
    most: int = 1


@dataclass(frozen=True)
class SoundSettings:
    """Recordings of ``seconds`` at ``rate`` Hz, with ``fewest`` to ``most`` sounds. Valid and test have no fewer
    than two where ``most`` allows it, so that their captions are not those of training.
    """

    media: str = "audio"
    sounds: str = "auto"
    objects: int = 30
    unseen_objects: int = 6
    fewest: int = 1
    most: int = 2
    rate: int = 32000
    seconds: float = 3.0
    train: int = 2000
    valid: int = 200
    test: int = 200
    test_unseen: int = 100
    valid_swapped: int = 0
    phrasing: str = "canonical"
    audio_format: str = "flac"
    seed: int = 1

    def check(self) -> None:
        """Raise UserError, naming the argument, for an invalid value."""
        choices = {"sounds": SOUNDS, "phrasing": PHRASINGS, "audio_format": AUDIO_FORMATS}
        _check(self, choices, _OBJECTS | _ROWS | _RECORDINGS, MOST_SOUNDS)
        if self.seconds < _LEAST_EACH * self.most:
            least = round(_LEAST_EACH * self.most, 1)
            raise UserError(f"--seconds {self.seconds:g}: too short for {self.most} sounds (give at least {least})")


@dataclass(frozen=True)
class ImageAudioSettings(Settings):
    """Images of stamps, each with the sound of one of the things in it."""

    objects: int = 30
    unseen_objects: int = 6
    train: int = 2000
    valid: int = 200
    test: int = 200
    test_unseen: int = 100
    media: str = "image+audio"
    rate: int = 32000
    seconds: float = 3.0
    audio_format: str = "flac"

    def check(self) -> None:
        """Raise UserError, naming the argument, for an invalid value."""
        if self.sprites == "shapes":
            raise UserError("--sprites shapes: shapes have no sounds of their own; --media image+audio needs stamps")
        choices = {"sprites": SPRITES, "phrasing": PHRASINGS, "audio_format": AUDIO_FORMATS}
        _check(self, choices, _OBJECTS | _PICTURES | _ROWS | _RECORDINGS, MOST)


AnySettings = Settings | SoundSettings
MEDIA: dict[str, type[Settings] | type[SoundSettings]] = {
    "image": Settings,
    "video": VideoSettings,
    "audio": SoundSettings,
    "image+audio": ImageAudioSettings,
}
