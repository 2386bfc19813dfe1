"""The mixture file of the tables that were built: a stream for each task and medium, as the paper has them."""

import os
import pathlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

NAME = "mixture.yaml"


@dataclass(frozen=True)
class Stream:
    """A stream: the builder of its examples, and its medium."""

    builder: str
    medium: str = "image"
    about: str = ""


STREAMS = {
    "captions": Stream("caption_and_matching", about="what an image shows, and whether a caption describes it"),
    "cc12m": Stream("caption_and_matching", about="as captions, in the first stage alone; the first two tokens of a caption carry no loss"),
    "questions": Stream("question_and_matching", about="questions about an image, and whether an answer is right"),
    "grounding": Stream("grounding_and_region", about="where something is, and what is in a box"),
    "video_captions": Stream("caption_and_matching", "video"),
    "video_questions": Stream("question_and_matching", "video"),
}
IMAGES, VIDEOS = [name for name, stream in STREAMS.items() if stream.medium == "image"], ["video_captions", "video_questions"]
ONLY_FIRST = "cc12m"  # the paper drops it when videos come in


def text_of(tables: Mapping[str, str], media_root: pathlib.Path | None, out: pathlib.Path, held_out: Sequence[str]) -> str:
    """The text of a mixture file.

    Args:
        tables: names of tables -> their streams.
        media_root: the folder of the media, if it is known.
        out: the folder of the mixture file and the tables.
        held_out: benchmarks whose images for validation and test are in none of the tables.
    """
    streams = {name: [table for table, stream in tables.items() if stream == name] for name in STREAMS}
    streams = {name: those for name, those in streams.items() if those}
    checked = ", ".join(held_out) or "none"
    lines = [
        "# Made by build_pretrain.py: a place to start from. `unival mixture mixture.yaml --show` says what each stage does.",
        f"# Benchmarks whose images for validation and test were looked for and left out: {checked}.",
        "streams:",
    ]
    for name, those in streams.items():
        stream = STREAMS[name]
        lines += [f"  {name}:" + (f"  # {stream.about}" if stream.about else "")]
        lines += [f"    table: [{', '.join(f'{table}.jsonl' for table in those)}]"]
        lines += [f"    builder: {stream.builder}"] + ([f"    medium: {stream.medium}"] if stream.medium != "image" else [])
        lines += ["    # media_root: …" if media_root is None else f"    media_root: {_quoted(_relative(media_root, out))}"]
    lines += ["", "balancing: equal  # every stream has the same share of a batch; proportional: as its rows", ""]
    return "\n".join(lines + _stages(list(streams))) + "\n"


def _stages(streams: Sequence[str]) -> list[str]:
    """Images, then images and videos, of 15 and 8 epochs of schedules of 50, as published."""
    images, videos = [name for name in streams if name in IMAGES], [name for name in streams if name in VIDEOS]
    if not images or not videos:
        return []
    kept = [name for name in streams if name != ONLY_FIRST]
    return [
        "stages:",
        f"  images: {{epochs: 15, schedule_epochs: 50, streams: [{', '.join(images)}]}}",
        f"  videos: {{epochs: 8, schedule_epochs: 50, streams: [{', '.join(kept)}]}}",
    ]


def _relative(folder: pathlib.Path, out: pathlib.Path) -> str:
    return pathlib.Path(os.path.relpath(folder, out)).as_posix()


def _quoted(text: str) -> str:
    """A text as YAML reads it whatever is in it."""
    return text if text.replace("/", "").replace(".", "").replace("_", "").isalnum() else "'" + text.replace("'", "''") + "'"
