"""Composer of rows with videos: drawn sprites move along straight tracks, animated ones on the spot."""

import math
import pathlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from . import clips, emoji, language, motion_language, preview, splits
from .animated import AnimatedAtlas, AnimatedSprite
from .crossing import plan_crossing
from .errors import UserError
from .motion import LEAST, Motion, plan_motion
from .scene import LONGER_SIDE, Scene, compose, render
from .settings import EMOJI, VideoSettings
from .sprites import Atlas, Sprite
from .tables import Source, Tables
from .write import Composer, enough, load_sprites

_CROSSINGS = 3  # one in so many scenes of two sprites is a crossing, where there is room for it
_MOST_LEAST = 0.25  # part of the image's side: no scene has room for sprites that must all travel further
_TRIES = 50
_SPARE = 1.5  # emoji are kept so much larger than they are drawn


@dataclass(frozen=True)
class VideoComposer(Composer):
    """Makes rows with videos; small enough to be sent to worker processes."""

    settings: VideoSettings
    folders = {"video": "videos"}

    def motion(self, split: str, row: int) -> tuple[Motion, np.random.Generator]:
        """The motion of a row (at least one sprite moves), and the generator that drew it."""
        settings, rng = self.settings, np.random.default_rng([self.settings.seed, splits.SPLITS.index(split), row])
        names = self.plan.draw(split, int(rng.integers(settings.fewest, settings.most + 1)), rng)
        places, sectors = splits.places(split, settings.size), splits.hues(split)
        if len(names) == 2 and rng.integers(_CROSSINGS) == 0:
            crossing = plan_crossing(names, self.atlas, places, sectors, settings.frames, rng)
            if crossing is not None:
                return crossing, rng
        least = min(_MOST_LEAST, max(LEAST, (settings.frames - 1) / settings.size))  # a pixel in every frame
        for _ in range(_TRIES):
            scene = compose(names, self.atlas, settings.size, places, sectors, rng)
            motion = plan_motion(scene, rng, least)
            if any(track.direction for track in motion.tracks):
                return motion, rng
        raise AssertionError(f"none of {', '.join(names)} has room to move at {settings.size} pixels")

    def record(self, split: str, row: int) -> tuple[dict, np.ndarray]:
        """A row of the table of ``split``, and its frames (T x size x size x 3, uint8)."""
        motion, rng = self.motion(split, row)
        moments = [float(moment) for moment in np.linspace(0.0, 1.0, self.settings.frames)]
        boxes = [motion.boxes(moment) for moment in moments]
        record = self.start(split, row, motion.scene, motion.captions())
        record["objects"] = [
            {"name": track.name, "moves": track.direction, "boxes": [list(at[number]) for at in boxes]}
            for number, track in enumerate(motion.tracks)
        ]
        record["questions"] = motion_language.questions(motion, self.absent(split, motion.scene, rng), rng)
        return record, motion.frames(self.settings.frames, self.atlas)

    def start(self, split: str, row: int, scene: Scene, captions: Sequence[str]) -> dict:
        """The columns that rows of every kind of video have; objects and questions are filled in later."""
        one = split == "train" and self.settings.phrasing == "canonical"
        return {
            "id": f"{split}-{row:06d}",
            "video": f"{self.folders['video']}/{split}/{row:06d}.{self.settings.video_format}",
            "caption": list(captions[:1] if one else captions),
            "objects": [],
            "questions": [],
            "background": {"kind": scene.background.kind, "hue": scene.background.sector},
        }

    def write(self, split: str, row: int, room: pathlib.Path) -> dict:
        """Write the video of a row into ``room``; returns the row."""
        record, frames = self.record(split, row)
        clips.save(frames, room / record["video"], self.settings.fps, self.settings.quality)
        return record

    def preview(self, room: pathlib.Path, written: Tables) -> None:
        """Write film strips of the first videos of every split into one image."""
        preview.save_strips(written, room / "preview.png", lambda row: preview.film(clips.load(room / row["video"])))


@dataclass(frozen=True)
class AnimatedComposer(VideoComposer):
    """Rows of sprites that move by themselves, such as animated emoji: they stay where they are."""

    atlas: AnimatedAtlas

    def record(self, split: str, row: int) -> tuple[dict, np.ndarray]:
        """A row of the table of ``split``, and its frames (T x size x size x 3, uint8)."""
        scene, rng = self.scene(split, row)
        settings = self.settings
        record = self.start(split, row, scene, language.captions(scene.things))
        record["objects"] = [
            {"name": thing.name, "moves": None, "boxes": [list(thing.box)] * settings.frames} for thing in scene.things
        ]
        absent = self.absent(split, scene, rng)
        record["questions"] = language.questions(scene.things, absent, scene.size, rng)
        start = 60 * rng.random()  # seconds; animations go round and round
        moments = [start + number / settings.fps for number in range(settings.frames)]
        return record, np.stack([render(scene, self.atlas.moment(moment)) for moment in moments])


def make_video_composer(settings: VideoSettings, sprites: Sequence[Sprite]) -> VideoComposer:
    """The composer of videos of ``sprites``, which may be animated ones.

    Raises:
        UserError: too few sprites for the splits.
    """
    plan = splits.make_plan([sprite.name for sprite in sprites], settings.unseen_objects, settings.most, settings.seed)
    animated = [sprite for sprite in sprites if isinstance(sprite, AnimatedSprite)]
    if animated:
        return AnimatedComposer(settings, plan, AnimatedAtlas(animated))
    return VideoComposer(settings, plan, Atlas(sprites))


def load_moving(
    settings: VideoSettings, folder: str | None = None, package: str | None = None, emoji_folder: str | None = None
) -> tuple[list[Sprite], Source]:
    """The sprites that ``settings`` ask for; ``folder`` and ``package`` are those of the stamps.

    Raises:
        UserError: they are not available, or there are too few.
    """
    if settings.sprites != EMOJI:
        if emoji_folder:
            raise UserError(f"--emoji-dir {emoji_folder}: needs --sprites emoji")
        return load_sprites(settings, folder, package)
    if folder or package:
        raise UserError("--sprites emoji: takes no --stamps-dir and no --stamps-deb")
    side = math.ceil(_SPARE * LONGER_SIDE[settings.fewest][1] * settings.size)
    with emoji.find_emoji(emoji_folder) as found:
        source = Source(EMOJI, found.origin, emoji.LICENCE, emoji.HOMEPAGE, found.licence_text, "emojibase-data")
        return enough(emoji.read_emoji(found, side), settings), source
