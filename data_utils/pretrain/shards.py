"""Folders and tar files as img2dataset (and video2dataset) writes them: 00000/000000000.jpg with .txt and .json, or 00000.tar.

The .json has what the .txt has, and the address; what could not be downloaded is not there.
"""

import json
import os
import pathlib
import re
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass

from common.files import Entry, read_object

from unival.errors import UserError
from unival.text import decode, read_text

from .held_out import flickr_id
from .rows import Context, Row

SHARD = re.compile(r"\d+")
SUFFIXES = {"image": ("jpg", "jpeg", "png", "webp"), "video": ("mp4", "webm", "mkv", "avi")}
NAME = re.compile(r"[\w-]+")


@dataclass
class Sample:
    """A sample: where it is from, its files by suffix (names of files in a folder, contents of those in a tar)."""

    shard: str
    key: str
    files: dict[str, pathlib.Path | bytes]


def find_shards(folder: pathlib.Path) -> list[pathlib.Path]:
    """The shards of a folder, in their order: folders named by a number, or else tar files."""
    names = sorted(path for path in folder.iterdir() if SHARD.fullmatch(path.name.removesuffix(".tar")))
    folders = [path for path in names if path.is_dir()]
    return folders or [path for path in names if path.suffix == ".tar"]


def rows(context: Context, table: str, medium: str, shards: list[pathlib.Path]) -> Iterator[Row]:
    """The rows of captions: samples with their captions. Files of tars are unpacked below the media root, in the data set's name."""
    is_packed = shards[0].suffix == ".tar"
    root = context.root_for(f"{'the files of tars are unpacked there' if is_packed else 'paths are relative to it'}")
    place = pathlib.Path(context.name) if is_packed else _relative(context, root)
    for shard in shards:
        for sample in _packed(shard) if is_packed else _unpacked(shard):
            suffix = next((suffix for suffix in SUFFIXES[medium] if suffix in sample.files), None)
            caption, url = _said(sample, shard)
            name = f"{sample.key}.{suffix or SUFFIXES[medium][0]}"
            content = sample.files[suffix] if suffix and is_packed else None
            values = {"caption": caption, "objects": []}
            path = (place / sample.shard / name).as_posix()
            yield Row(table, sample.key, [path], values, flickr=flickr_id(url), content=content if isinstance(content, bytes) else None)


def _relative(context: Context, root: pathlib.Path) -> pathlib.Path:
    folder = context.source.folder
    if not folder.resolve().is_relative_to(root.resolve()):
        raise UserError(f"{context.source.where}: its files are the media, so that it must be below --media-root {root}")
    return folder.resolve().relative_to(root.resolve())


def _unpacked(shard: pathlib.Path) -> Iterator[Sample]:
    sample = None
    for name in sorted(os.listdir(shard)):
        key, _, suffix = name.partition(".")
        if not key:
            continue
        if sample is None or sample.key != key:
            if sample is not None:
                yield sample
            sample = Sample(shard.name, key, {})
        sample.files[suffix.lower()] = shard / name
    if sample is not None:
        yield sample


def _packed(shard: pathlib.Path) -> Iterator[Sample]:
    sample = None
    try:
        with tarfile.open(shard, "r|") as archive:
            for member in archive:
                key, _, suffix = member.name.removeprefix("./").partition(".")
                if not member.isfile():
                    continue
                if not NAME.fullmatch(key):
                    raise UserError(f"{shard}: expected names such as 000000012.jpg, got {member.name!r}")
                if sample is None or sample.key != key:
                    if sample is not None:
                        yield sample
                    sample = Sample(shard.stem, key, {})
                file = archive.extractfile(member)
                sample.files[suffix.lower()] = b"" if file is None else file.read()
    except (tarfile.TarError, EOFError, OSError) as error:
        raise UserError(f"{shard}: cannot be read: {error}") from error
    if sample is not None:
        yield sample


def _said(sample: Sample, shard: pathlib.Path) -> tuple[str, str]:
    """The caption and the address of a sample; "" where there is none."""
    meta = sample.files.get("json")
    if meta is not None:
        entry = read_object(meta) if isinstance(meta, pathlib.Path) else _parsed(meta, f"{shard}, {sample.key}.json")
        return tuple("" if entry.values.get(key) is None else entry.text(key) for key in ("caption", "url"))  # type: ignore[return-value]
    text = sample.files.get("txt", b"")
    where = f"{shard}, {sample.key}.txt"
    said = read_text(text) if isinstance(text, pathlib.Path) else decode(text, where, shard)
    return Entry({"caption": said}, where).text("caption"), ""


def _parsed(content: bytes, where: str) -> Entry:
    try:
        return Entry(json.loads(decode(content, where, where)), where)
    except json.JSONDecodeError as error:
        raise UserError(f"{where}, line {error.lineno}, character {error.colno}: not valid JSON: {error.msg}") from None
