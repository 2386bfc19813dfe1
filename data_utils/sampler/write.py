"""Composer of rows with images, loading of the sprites, and the build."""

import logging
import pathlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image

from . import language, preview, shapes, splits, stamps, tables
from .errors import UserError
from .scene import LONGER_SIDE, Scene, compose, render
from .settings import Settings
from .sprites import Atlas, Sprite, choose
from .tables import Source, Tables, swapped

__all__ = ["Composer", "Settings", "Source", "build", "load_sprites", "swapped"]

ABSENT = 8  # names per scene that a "no" may ask for

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Composer:
    """Makes rows; small enough to be sent to worker processes."""

    settings: Settings
    plan: splits.Plan
    atlas: Atlas
    folders = {"image": "images"}
    material = "sprites"

    def scene(self, split: str, row: int) -> tuple[Scene, np.random.Generator]:
        """The scene of a row and the random generator that drew it, which draws the rest of the row."""
        rng = np.random.default_rng([self.settings.seed, splits.SPLITS.index(split), row])
        names = self.plan.draw(split, int(rng.integers(self.settings.fewest, self.settings.most + 1)), rng)
        size = self.settings.size
        return compose(names, self.atlas, size, splits.places(split, size), splits.hues(split), rng), rng

    def record(self, split: str, row: int) -> tuple[dict, np.ndarray]:
        """A row of the table of ``split``, and its image (size x size x 3, uint8)."""
        scene, rng = self.scene(split, row)
        captions = language.captions(scene.things)
        if split == "train" and self.settings.phrasing == "canonical":
            captions = captions[:1]
        absent = self.absent(split, scene, rng)
        record = {
            "id": f"{split}-{row:06d}",
            "image": f"images/{split}/{row:06d}.jpg",
            "caption": captions,
            "objects": [{"name": thing.name, "box": list(thing.box)} for thing in scene.things],
            "questions": language.questions(scene.things, absent, scene.size, rng),
            "background": {"kind": scene.background.kind, "hue": scene.background.sector},
        }
        return record, render(scene, self.atlas)

    def absent(self, split: str, scene: Scene, rng: np.random.Generator) -> list[str]:
        """A few objects of ``split`` that are not in the scene."""
        present = {thing.name for thing in scene.things}
        others = [name for name in self.plan.names_for(split) if name not in present]
        return [others[index] for index in rng.permutation(len(others))[:ABSENT]]

    def write(self, split: str, row: int, room: pathlib.Path) -> dict:
        """Write the image of a row into ``room``; returns the row."""
        record, image = self.record(split, row)
        self.save_image(image, room / record["image"])
        return record

    def save_image(self, image: np.ndarray, path: pathlib.Path) -> None:
        """Write an image (size x size x 3, uint8) as JPEG."""
        Image.fromarray(image).save(path, quality=self.settings.quality, subsampling=0)

    def about(self, written: Tables) -> dict:
        """Entries of the manifest about objects, held-out pairs, hues and sizes."""
        plan, counts = self.plan, range(self.settings.fewest, self.settings.most + 1)
        sources = {sprite.name: sprite.source for sprite in self.atlas.sprites}
        return {
            "objects": {name: sources[name] for name in plan.known},
            "unseen_objects": {name: sources[name] for name in plan.unseen},
            "held_out_pairs": plan.held_out if self.settings.most > 1 else {},
            "hues": {split: splits.hues(split) for split in written if split in splits.SPLITS},
            "sprite_sides": {str(count): LONGER_SIDE[count] for count in counts},
        }

    def preview(self, room: pathlib.Path, written: Tables) -> None:
        """Write the first images of every split into one."""
        preview.save(room, written, room / "preview.png")


def load_sprites(
    settings: Settings, folder: str | None = None, package: str | None = None
) -> tuple[list[Sprite], Source]:
    """The sprites that ``settings`` ask for. With "auto", falls back to shapes and logs the reason.

    Raises:
        UserError: stamps were asked for (by name, folder or package) and are not available, or there are too few sprites.
    """
    if settings.sprites == "shapes":
        if folder or package:
            raise UserError("--sprites shapes: takes no --stamps-dir and no --stamps-deb")
        return enough(shapes.all_shapes(), settings), _SHAPES
    try:
        with stamps.find_stamps(folder, package) as found:
            return enough(stamps.read_stamps(found), settings), stamps_source(found)
    except stamps.StampsUnavailableError as reason:
        if settings.sprites == "stamps" or folder or package:
            raise
        log.warning("sprites: drawn shapes instead of stamps, because %s", reason)
        return enough(shapes.all_shapes(), settings), _SHAPES


_SHAPES = Source("shapes", "drawn by the builder", "Apache-2.0, as the builder")


def stamps_source(found: stamps.Stamps) -> Source:
    """Where the stamps came from, with their licence."""
    text = found.licence_file.read_text(encoding="utf-8") if found.licence_file else None
    origin = f"{stamps.PACKAGE}, from {found.origin}"
    return Source("stamps", origin, stamps.LICENCE, stamps.HOMEPAGE, text, stamps.PACKAGE)


def enough(candidates: Sequence[Sprite], settings: Settings) -> list[Sprite]:
    """As many distinguishable ``candidates`` as ``settings`` ask for; raises UserError if there are fewer."""
    wanted = settings.objects + settings.unseen_objects
    chosen = choose(candidates, wanted)
    if len(chosen) < wanted:
        asked = f"--objects {settings.objects} --unseen-objects {settings.unseen_objects}"
        raise UserError(f"{asked}: only {len(chosen)} sprites can be told apart")
    return chosen


def build(out: pathlib.Path, settings: Settings, sprites: Sequence[Sprite], source: Source, workers: int = 1) -> dict:
    """Write images into ``out``, replacing earlier data once the new data is complete. Returns the manifest."""
    return tables.build(out, make_composer(settings, sprites), source, workers)


def make_composer(settings: Settings, sprites: Sequence[Sprite]) -> Composer:
    """The composer of images of ``sprites``.

    Raises:
        UserError: too few sprites for the splits.
    """
    plan = splits.make_plan([sprite.name for sprite in sprites], settings.unseen_objects, settings.most, settings.seed)
    return Composer(settings, plan, Atlas(sprites))
