"""Tables of a pretraining from sampler data: one for each stream, with the media of three folders; and the texts alone."""

import json
import os
import pathlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from . import tasks
from .errors import UserError
from .tables import BUILDER, MANIFEST
from .tasks import Pool, Row, Task

SPLITS = ("train", "valid", "test")
MEDIA = ("image", "video", "audio")


def described(record: Row, pool: Pool, rng: np.random.Generator) -> Iterator[Row]:
    """The captions, and the names of what there is, from which builders make captions that are wrong."""
    yield {"caption": record["caption"], "objects": [thing["name"] for thing in record["objects"]]}


def sentences(record: Row, pool: Pool, rng: np.random.Generator) -> Iterator[Row]:
    """A caption, and every question with its answer."""
    yield {"text": record["caption"][0]}
    for asked in record["questions"]:
        yield {"text": f"{asked['question']} {asked['answer']}"}


@dataclass(frozen=True)
class StreamTables:
    """The tables of a stream.

    Attributes:
        task: what the rows are.
        media: the media that they are about.
        is_text: the rows are texts alone, without the media that they are about.
    """

    task: Task
    media: tuple[str, ...]
    is_text: bool = False


CAPTIONS = Task(MEDIA, described, "", "caption")
STREAMS = {
    "text": StreamTables(Task(("image", "video"), sentences, "", "text"), ("image", "video"), is_text=True),
    "captions": StreamTables(CAPTIONS, ("image",)),
    "questions": StreamTables(tasks.TASKS["vqa"], ("image",)),
    "regions": StreamTables(tasks.TASKS["grounding"], ("image",)),
    "video_captions": StreamTables(CAPTIONS, ("video",)),
    "video_questions": StreamTables(tasks.TASKS["video_qa"], ("video",)),
    "audio_captions": StreamTables(CAPTIONS, ("audio",)),  # for what comes after: no stage of the mixture has it
}


@dataclass(frozen=True)
class Medium:
    """A folder that ``build_sampler.py`` has written: its rows by split, the names of all its objects and its seed."""

    name: str
    folder: pathlib.Path
    rows: Mapping[str, Sequence[Row]]
    objects: Sequence[str]
    seed: int


def read_medium(name: str, folder: pathlib.Path) -> Medium:
    """Read a folder of sampler data.

    Raises:
        UserError: it is none, is not of this medium, or lacks rows of a split.
    """
    file = folder / MANIFEST
    manifest = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
    if manifest.get("builder", {}).get("name") != BUILDER:
        raise UserError(f"--{name} {folder}: is not sampler data (python data_utils/build_sampler.py --media {name} makes it)")
    rows = {split: _records(folder / f"{split}.jsonl") for split in SPLITS}
    absent = next((split for split in SPLITS if not rows[split]), None)
    if absent:
        raise UserError(f"--{name} {folder}: there are no rows of {absent}")
    if name not in rows["train"][0]:
        raise UserError(f"--{name} {folder}: its rows have no column {name}; there are {', '.join(rows['train'][0])}")
    return Medium(name, folder, rows, sorted(manifest["objects"]), manifest["builder"]["arguments"]["seed"])


def _records(path: pathlib.Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()] if path.is_file() else []


def tables(stream: StreamTables, media: Mapping[str, Medium], out: pathlib.Path) -> dict[str, list[Row]]:
    """The rows of each split; paths of media are relative to ``out``."""
    made: dict[str, list[Row]] = {split: [] for split in SPLITS}
    for name in stream.media:
        medium = media[name]
        for number, split in enumerate(SPLITS):
            rows = tasks.table(stream.task, name, medium.rows[split], medium.objects, (medium.seed, number))
            made[split] += [_placed(row, medium, out, stream.is_text) for row in rows]
    empty = tasks.empty_questions(stream.task, made["train"])
    made = {split: [row for row in rows if row.get(stream.task.asked) not in empty] for split, rows in made.items()}
    return {split: _once(rows) if stream.is_text else rows for split, rows in made.items()}


def with_spans_masked(rows: Sequence[Row], seed: int) -> list[Row]:
    """The rows of texts with the column ``masked``: two words are one ``<mask>``."""
    made = []
    for number, row in enumerate(rows):
        words = row["text"].split()
        start = int(np.random.default_rng([seed, number]).integers(len(words) - 1))
        made.append({**row, "masked": " ".join([*words[:start], "<mask>", *words[start + 2 :]])})
    return made


def to_match(rows: Sequence[Row]) -> list[Row]:
    """Rows of captions to match: in turns with their own caption, and with that of another row, which has none of their things."""
    made = []
    for number, row in enumerate(rows):
        others = [other for other in [*rows[number:], *rows[:number]] if not set(other["objects"]) & set(row["objects"])]
        if number % 2 and others:
            made.append({**row, "caption": others[0]["caption"][0], "match": "no"})
        else:
            made.append({**row, "caption": row["caption"][0], "match": "yes"})
    return made


def _placed(row: Row, medium: Medium, out: pathlib.Path, is_text: bool) -> Row:
    if is_text:
        return {"id": f"{medium.name}-{row['id']}", "text": row["text"]}
    path = os.path.relpath(medium.folder / row[medium.name], out)
    return {**row, medium.name: pathlib.Path(path).as_posix()}


def _once(rows: Sequence[Row]) -> list[Row]:
    """The rows without those whose text an earlier one has: "is there a cow? no" is asked of many scenes."""
    return list({row["text"]: row for row in reversed(rows)}.values())[::-1]
