"""Writes sampler data: images, one table per split, a manifest, the licences of what was used, and a preview."""

import hashlib
import json
import logging
import pathlib
import shutil
import tempfile
from collections.abc import Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass

import numpy as np
from PIL import Image

from . import language, preview, shapes, splits, stamps
from .errors import UserError
from .scene import LONGER_SIDE, MOST, Scene, compose, render
from .sprites import Atlas, Sprite, choose

BUILDER = "build_sampler"
VERSION = "1"  # of what the builder makes: a change of it makes older folders differ
SPRITES = ("auto", "stamps", "shapes")
PHRASINGS = ("canonical", "both")
MANIFEST = "manifest.json"
ABSENT = 8  # names per scene that a "no" may ask for
_SMALLEST = 48  # pixels

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Settings:
    """What decides the data, byte for byte: `fewest` to `most` sprites in a scene, `size` in pixels, rows per split."""

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
    phrasing: str = "canonical"
    quality: int = 92
    seed: int = 1

    def check(self) -> None:
        """Raises UserError, naming the argument, when a value cannot be used."""
        for name, value, allowed in (("sprites", self.sprites, SPRITES), ("phrasing", self.phrasing, PHRASINGS)):
            if value not in allowed:
                raise UserError(f"--{name} {value}: must be one of {', '.join(allowed)}")
        ranges = {"objects": (1, 10**6), "size": (_SMALLEST, 4096), "quality": (1, 100), "unseen_objects": (0, 10**6)}
        ranges |= dict.fromkeys(splits.SPLITS, (0, 10**6)) | {"seed": (0, 2**63)}
        for name, (low, high) in ranges.items():
            if not low <= getattr(self, name) <= high:
                raise UserError(f"--{name.replace('_', '-')} {getattr(self, name)}: must be from {low} to {high}")
        if not 1 <= self.fewest <= self.most <= MOST:
            raise UserError(f"--per-scene {self.fewest}-{self.most}: must be one number or a range within 1-{MOST}")
        if self.test_unseen and not self.unseen_objects:
            raise UserError(f"--test-unseen {self.test_unseen}: needs --unseen-objects (or give --test-unseen 0)")


@dataclass(frozen=True)
class Source:
    """Where the sprites came from, for the manifest; `licence_text` is written beside the data."""

    kind: str
    origin: str
    licence: str
    homepage: str = ""
    licence_text: str | None = None


@dataclass(frozen=True)
class Composer:
    """Everything that a row needs; small enough to be sent to other processes."""

    settings: Settings
    plan: splits.Plan
    atlas: Atlas

    def scene(self, split: str, row: int) -> tuple[Scene, np.random.Generator]:
        """The scene of a row and the generator that made it, ready for what else is drawn at random about the row."""
        rng = np.random.default_rng([self.settings.seed, splits.SPLITS.index(split), row])
        names = self.plan.draw(split, int(rng.integers(self.settings.fewest, self.settings.most + 1)), rng)
        size = self.settings.size
        return compose(names, self.atlas, size, splits.places(split, size), splits.hues(split), rng), rng

    def record(self, split: str, row: int) -> tuple[dict, np.ndarray]:
        """A row of the table of `split`, and its picture (size x size x 3, uint8)."""
        scene, rng = self.scene(split, row)
        captions = language.captions(scene.things)
        if split == "train" and self.settings.phrasing == "canonical":
            captions = captions[:1]
        present = {thing.name for thing in scene.things}
        others = [name for name in self.plan.names_for(split) if name not in present]
        absent = [others[index] for index in rng.permutation(len(others))[:ABSENT]]
        record = {
            "id": f"{split}-{row:06d}",
            "image": f"images/{split}/{row:06d}.jpg",
            "caption": captions,
            "objects": [{"name": thing.name, "box": list(thing.box)} for thing in scene.things],
            "questions": language.questions(scene.things, absent, scene.size, rng),
            "background": {"kind": scene.background.kind, "hue": scene.background.sector},
        }
        return record, render(scene, self.atlas)


def load_sprites(
    settings: Settings, folder: str | None = None, package: str | None = None
) -> tuple[list[Sprite], Source]:
    """The sprites that `settings` ask for. With "auto", falls back to shapes and says why in one line.

    Raises:
        UserError: stamps were asked for (by name, folder or package) and cannot be had, or there are too few sprites.
    """
    if settings.sprites == "shapes":
        if folder or package:
            raise UserError("--sprites shapes: takes no --stamps-dir and no --stamps-deb")
        return _enough(shapes.all_shapes(), settings), _SHAPES
    try:
        with stamps.find_stamps(folder, package) as found:
            text = found.licence_file.read_text(encoding="utf-8") if found.licence_file else None
            source = Source("stamps", f"{stamps.PACKAGE}, from {found.origin}", stamps.LICENCE, stamps.HOMEPAGE, text)
            return _enough(stamps.read_stamps(found), settings), source
    except stamps.StampsUnavailableError as reason:
        if settings.sprites == "stamps" or folder or package:
            raise
        log.warning("sprites: drawn shapes instead of stamps, because %s", reason)
        return _enough(shapes.all_shapes(), settings), _SHAPES


_SHAPES = Source("shapes", "drawn by the builder", "Apache-2.0, as the builder")


def _enough(candidates: Sequence[Sprite], settings: Settings) -> list[Sprite]:
    wanted = settings.objects + settings.unseen_objects
    chosen = choose(candidates, wanted)
    if len(chosen) < wanted:
        asked = f"--objects {settings.objects} --unseen-objects {settings.unseen_objects}"
        raise UserError(f"{asked}: only {len(chosen)} sprites can be told apart")
    return chosen


def build(out: pathlib.Path, settings: Settings, sprites: Sequence[Sprite], source: Source, workers: int = 1) -> dict:
    """Writes the data into `out`, replacing what is there once the new data is complete. Returns the manifest."""
    plan = splits.make_plan([sprite.name for sprite in sprites], settings.unseen_objects, settings.most, settings.seed)
    composer = Composer(settings, plan, Atlas(sprites))
    out.parent.mkdir(parents=True, exist_ok=True)
    room = pathlib.Path(tempfile.mkdtemp(prefix=f".{out.name}-", dir=out.parent))
    try:
        tables = {}
        for split in splits.SPLITS:
            count = getattr(settings, split)
            if count:
                tables[split] = _write_split(composer, split, count, room, workers)
                log.info("%s: %d rows", split, count)
        if settings.test:
            tables["test_swapped"] = swapped(tables["test"], settings.seed)
        for split, records in tables.items():
            _write_table(room / f"{split}.jsonl", records)
        manifest = _manifest(composer, tables, source, room)
        preview.save(room, tables, room / "preview.png")
        (room / MANIFEST).write_text(json.dumps(manifest, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
        room.chmod(0o755)
        if out.exists():
            shutil.rmtree(out)
        room.rename(out)
    except BaseException:
        shutil.rmtree(room, ignore_errors=True)
        raise
    return manifest


def _write_split(composer: Composer, split: str, count: int, room: pathlib.Path, workers: int) -> list[dict]:
    (room / "images" / split).mkdir(parents=True)
    bounds = np.linspace(0, count, min(workers, count) + 1).astype(int)
    if workers == 1:
        return _write_rows(composer, split, range(count), room)
    with ProcessPoolExecutor(len(bounds) - 1) as pool:
        spans = [range(start, end) for start, end in zip(bounds[:-1], bounds[1:], strict=True)]
        parts = [pool.submit(_write_rows, composer, split, span, room) for span in spans]
        return [record for part in parts for record in part.result()]


def _write_rows(composer: Composer, split: str, rows: Iterable[int], room: pathlib.Path) -> list[dict]:
    records = []
    for row in rows:
        record, picture = composer.record(split, int(row))
        Image.fromarray(picture).save(room / record["image"], quality=composer.settings.quality, subsampling=0)
        records.append(record)
    return records


def swapped(records: Sequence[dict], seed: int) -> list[dict]:
    """The rows of test, each with the image of another row that shows none of its objects; every image is used once.

    A model that looks at the image must do badly on these rows. `image_of` names the row that the image belongs to.

    Raises:
        UserError: no such exchange was found (too few rows).
    """
    names = [{thing["name"] for thing in record["objects"]} for record in records]
    rng = np.random.default_rng([seed, len(splits.SPLITS) + 1])
    given = rng.permutation(len(records))
    for _ in range(20):
        clashes = [row for row in range(len(records)) if names[row] & names[given[row]]]
        if not clashes:
            break
        for row in clashes:
            other = int(rng.integers(len(records)))
            if not names[row] & names[given[other]] and not names[other] & names[given[row]]:
                given[[row, other]] = given[[other, row]]
    else:
        raise UserError(f"--test {len(records)}: too few rows to give each an image without its objects (or give 0)")
    pairs = zip(records, (records[index] for index in given), strict=True)
    return [
        record | {"id": record["id"].replace("test", "test_swapped"), "image": other["image"], "image_of": other["id"]}
        for record, other in pairs
    ]


def _write_table(path: pathlib.Path, records: Iterable[dict]) -> None:
    with path.open("w", encoding="utf-8", newline="\n") as file:
        for record in records:
            file.write(json.dumps(record, ensure_ascii=False) + "\n")


def _manifest(composer: Composer, tables: dict[str, list[dict]], source: Source, room: pathlib.Path) -> dict:
    plan, counts = composer.plan, range(composer.settings.fewest, composer.settings.most + 1)
    sources = {sprite.name: sprite.source for sprite in composer.atlas.sprites}
    return {
        "builder": {"name": BUILDER, "version": VERSION, "arguments": asdict(composer.settings)},
        "counts": {split: len(records) for split, records in tables.items()},
        "sha256": {split: hashlib.sha256((room / f"{split}.jsonl").read_bytes()).hexdigest() for split in tables},
        "sprites": {
            "kind": source.kind,
            "origin": source.origin,
            "homepage": source.homepage,
            "licence": source.licence,
            "licence_file": _write_licence(source, room),
        },
        "objects": {name: sources[name] for name in plan.known},
        "unseen_objects": {name: sources[name] for name in plan.unseen},
        "held_out_pairs": plan.held_out if composer.settings.most > 1 else {},
        "hues": {split: splits.hues(split) for split in tables if split in splits.SPLITS},
        "sprite_sides": {str(count): LONGER_SIDE[count] for count in counts},
    }


def _write_licence(source: Source, room: pathlib.Path) -> str | None:
    """Writes the licence beside the data; its path in the folder, or None when the package came without one."""
    if source.licence_text is None:
        return None
    file = room / "licences" / f"{stamps.PACKAGE}.txt"
    file.parent.mkdir()
    file.write_text(source.licence_text, encoding="utf-8")
    return file.relative_to(room).as_posix()
