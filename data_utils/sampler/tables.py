"""Write the data of a maker: the files of every row, one table per split, a manifest, licences and a preview."""

import hashlib
import json
import logging
import pathlib
import shutil
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from typing import Protocol

import numpy as np

from . import splits
from .errors import UserError
from .settings import AnySettings

BUILDER = "build_sampler"
VERSION = "2"  # of what the builder makes: a change of it makes older folders differ
MANIFEST = "manifest.json"

Tables = Mapping[str, Sequence[dict]]
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Source:
    """Origin of sprites or sounds, for the manifest; ``licence_text`` is written beside the data."""

    kind: str
    origin: str
    licence: str
    homepage: str = ""
    licence_text: str | None = None
    package: str = ""


class Maker(Protocol):
    """Makes the rows of one kind of table; small enough to be sent to worker processes."""

    @property
    def settings(self) -> AnySettings:
        """What decides the data."""

    @property
    def folders(self) -> Mapping[str, str]:
        """Columns that name files -> the folder of these files. The first column is the one that is swapped."""

    @property
    def material(self) -> str:
        """What the rows are made of, which is also the manifest's key for its origin: "sprites" or "sounds"."""

    def write(self, split: str, row: int, room: pathlib.Path) -> dict:
        """Write the files of a row of the table of ``split`` into ``room``; returns the row."""

    def about(self, tables: Tables) -> dict:
        """Further entries of the manifest."""

    def preview(self, room: pathlib.Path, tables: Tables) -> None:
        """Write preview.png into ``room``."""


def build(out: pathlib.Path, maker: Maker, source: Source, workers: int = 1) -> dict:
    """Write the data into ``out``, replacing earlier data once the new data is complete. Returns the manifest."""
    settings = maker.settings
    out.parent.mkdir(parents=True, exist_ok=True)
    room = pathlib.Path(tempfile.mkdtemp(prefix=f".{out.name}-", dir=out.parent))
    try:
        tables = {}
        for split in splits.SPLITS:
            count = getattr(settings, split)
            if count:
                tables[split] = _write_split(maker, split, count, room, workers)
                log.info("%s: %d %s", split, count, "row" if count == 1 else "rows")
        for split, count in {"test": settings.test, "valid": settings.valid_swapped}.items():
            if count:
                column = next(iter(maker.folders))
                tables[f"{split}_swapped"] = swapped(tables[split][:count], settings.seed, column, split)
        for split, records in tables.items():
            _write_table(room / f"{split}.jsonl", records)
        manifest = _manifest(maker, tables, source, room)
        maker.preview(room, tables)
        (room / MANIFEST).write_text(json.dumps(manifest, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
        room.chmod(0o755)
        if out.exists():
            shutil.rmtree(out)
        room.rename(out)
    except BaseException:
        shutil.rmtree(room, ignore_errors=True)
        raise
    return manifest


def _write_split(maker: Maker, split: str, count: int, room: pathlib.Path, workers: int) -> list[dict]:
    for folder in maker.folders.values():
        (room / folder / split).mkdir(parents=True)
    bounds = np.linspace(0, count, min(workers, count) + 1).astype(int)
    if workers == 1:
        return _write_rows(maker, split, range(count), room)
    with ProcessPoolExecutor(len(bounds) - 1) as pool:
        spans = [range(start, end) for start, end in zip(bounds[:-1], bounds[1:], strict=True)]
        parts = [pool.submit(_write_rows, maker, split, span, room) for span in spans]
        return [record for part in parts for record in part.result()]


def _write_rows(maker: Maker, split: str, rows: Iterable[int], room: pathlib.Path) -> list[dict]:
    return [maker.write(split, int(row), room) for row in rows]


def swapped(records: Sequence[dict], seed: int, column: str = "image", split: str = "test") -> list[dict]:
    """The rows of a split, each with the ``column`` of another row that has none of its objects; every file is used once.

    A model that uses the image must do badly on these rows. ``image_of`` names the row that the image belongs to
    (``video_of`` the video, and so on).

    Raises:
        UserError: no such assignment was found (too few rows).
    """
    names = [{thing["name"] for thing in record["objects"]} for record in records]
    rng = np.random.default_rng([seed, len(splits.SPLITS) + 1 + ("test", "valid").index(split)])
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
        option = "--test" if split == "test" else "--valid-swapped"
        raise UserError(f"{option} {len(records)}: too few rows to give each an {column} without its objects (or give 0)")
    pairs = zip(records, (records[index] for index in given), strict=True)
    return [
        record
        | {
            "id": record["id"].replace(split, f"{split}_swapped"),
            column: other[column],
            f"{column}_of": other["id"],
        }
        for record, other in pairs
    ]


def _write_table(path: pathlib.Path, records: Iterable[dict]) -> None:
    with path.open("w", encoding="utf-8", newline="\n") as file:
        for record in records:
            file.write(json.dumps(record, ensure_ascii=False) + "\n")


def _manifest(maker: Maker, tables: Tables, source: Source, room: pathlib.Path) -> dict:
    return {
        "builder": {"name": BUILDER, "version": VERSION, "arguments": asdict(maker.settings)},
        "counts": {split: len(records) for split, records in tables.items()},
        "sha256": {split: hashlib.sha256((room / f"{split}.jsonl").read_bytes()).hexdigest() for split in tables},
        maker.material: {
            "kind": source.kind,
            "origin": source.origin,
            "homepage": source.homepage,
            "licence": source.licence,
            "licence_file": _write_licence(source, room),
        },
    } | maker.about(tables)


def _write_licence(source: Source, room: pathlib.Path) -> str | None:
    """Write the licence beside the data; its path in the folder, or None if the package has none."""
    if source.licence_text is None:
        return None
    file = room / "licences" / f"{source.package}.txt"
    file.parent.mkdir()
    file.write_text(source.licence_text, encoding="utf-8")
    return file.relative_to(room).as_posix()
