"""Composer of rows with an image and audio: a scene, and the sound of one of the things in it."""

import pathlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from . import audio, splits, stamps
from .hearing import ALONE, Heard
from .language import ask
from .relations import Thing, half, reading_order, relation
from .settings import ImageAudioSettings
from .sounds import Library, Recorded, read_recordings
from .sprites import Atlas, Sprite
from .tables import Source, Tables
from .write import Composer, enough, stamps_source


@dataclass(frozen=True)
class ImageAudioComposer(Composer):
    """Makes rows; small enough to be sent to worker processes."""

    settings: ImageAudioSettings
    library: Library
    folders = {"image": "images", "audio": "sounds"}

    def record_both(self, split: str, row: int) -> tuple[dict, np.ndarray, audio.Recording]:
        """A row of the table of ``split``, its image (size x size x 3, uint8) and its recording."""
        record, image = self.record(split, row)
        settings = self.settings
        # the stream of the image's own generator ends with its record; the sound has one of its own
        rng = np.random.default_rng([settings.seed, splits.SPLITS.index(split), row, 1])
        things = [Thing(one["name"], tuple(one["box"])) for one in record["objects"]]
        sounding = things[rng.integers(len(things))]
        recording = audio.record_sounds([sounding.name], ALONE, self.library, settings.rate, settings.seconds, rng)
        (heard,) = recording.heard
        both = {"id": record["id"], "image": record["image"]}
        both["audio"] = f"{self.folders['audio']}/{split}/{row:06d}.{settings.audio_format}"
        both |= {key: value for key, value in record.items() if key not in both}
        both["caption"] = [f"{caption}, and the {sounding.name} is heard" for caption in record["caption"]]
        both["objects"] = [one | _times(one["name"], heard) for one in record["objects"]]
        both["questions"] = record["questions"] + questions(things, sounding, settings.size, rng)
        return both, image, recording

    def write(self, split: str, row: int, room: pathlib.Path) -> dict:
        """Write the image and the recording of a row into ``room``; returns the row."""
        record, image, recording = self.record_both(split, row)
        self.save_image(image, room / record["image"])
        audio.save(recording.samples, room / record["audio"], self.settings.rate)
        return record

    def about(self, written: Tables) -> dict:
        """Entries of the manifest about objects, their sounds, held-out pairs, hues and sizes."""
        sounds = {name: self.library.sources[name] for name in sorted({*self.plan.known, *self.plan.unseen})}
        return super().about(written) | {"sounds": sounds}


def _times(name: str, heard: Heard) -> dict:
    return {"heard": True, "onset": heard.onset, "offset": heard.offset} if name == heard.name else {"heard": False}


def questions(things: Sequence[Thing], sounding: Thing, size: int, rng: np.random.Generator) -> list[dict[str, str]]:
    """Questions that need the image (of ``size`` pixels) and the audio, with unambiguous answers."""
    ordered = reading_order(things)
    asked = [ask("what", "which object is heard?", sounding.name)]
    silent = [thing for thing in ordered if thing is not sounding]
    if silent and rng.integers(2):
        asked.append(ask("yes/no", f"is the {silent[rng.integers(len(silent))].name} heard?", "no"))
    else:
        asked.append(ask("yes/no", f"is the {sounding.name} heard?", "yes"))
    side = half(sounding.box, size)
    if side:
        asked.append(ask("which side", "which side of the picture is the object that is heard on?", side))
    around = [relation(thing.box, sounding.box) for thing in silent]
    for thing, name in zip(silent, around, strict=True):
        if name and None not in around and around.count(name) == 1:
            asked.append(ask("what", f"what is {name} the object that is heard?", thing.name))
            break
    return asked


def load_both(
    settings: ImageAudioSettings, folder: str | None = None, package: str | None = None
) -> tuple[list[Sprite], Recorded, Source]:
    """The stamps that have a sound, as sprites and as recordings.

    Raises:
        UserError: the stamps are not available, or too few of them have sounds.
    """
    with stamps.find_stamps(folder, package) as found:
        library = read_recordings(found, settings.rate)
        sounding = [sprite for sprite in stamps.read_stamps(found) if sprite.name in library.recordings]
        return enough(sounding, settings), library, stamps_source(found)


def make_both_composer(
    settings: ImageAudioSettings, sprites: Sequence[Sprite], library: Recorded
) -> ImageAudioComposer:
    """The composer of images of ``sprites`` with the sounds of ``library``.

    Raises:
        UserError: too few sprites for the splits.
    """
    names = [sprite.name for sprite in sprites]
    plan = splits.make_plan(names, settings.unseen_objects, settings.most, settings.seed)
    own = Recorded(library.rate, {name: library.recordings[name] for name in names})
    return ImageAudioComposer(settings, plan, Atlas(sprites), own)
