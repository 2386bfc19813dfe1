"""Builders run in this process on small files in the true formats, and their tables opened through the benchmark's instruction."""

import dataclasses
import importlib
import json
import pathlib
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests import tiny
from unival.data.stream import Stream, TextLimits
from unival.data.table import open_table
from unival.instructions import parse
from unival.modalities import MODALITIES
from unival.modalities.composed import MediaOptions
from unival.vocab import Vocabulary

DATA_UTILS = pathlib.Path(__file__).resolve().parents[3] / "data_utils"
MEDIA = MediaOptions(patch_image_size=32, patch_frame_size=32, num_frames=2)


@dataclass
class Built:
    """What a run of a builder left: exit code, standard output and error, and the folder of the tables."""

    code: int
    text: str
    error: str
    out: pathlib.Path
    vocabulary: Vocabulary

    def rows(self, table: str) -> list[dict[str, Any]]:
        """The rows of a table, or the lines of the candidate answers."""
        return [json.loads(line) for line in (self.out / f"{table}.jsonl").read_text(encoding="utf-8").splitlines()]

    @property
    def answers(self) -> list[str]:
        return (self.out / "answers.txt").read_text(encoding="utf-8").splitlines()

    @property
    def tables(self) -> list[str]:
        return sorted(path.stem for path in self.out.glob("*.jsonl"))

    @property
    def last(self) -> str:
        return self.text.splitlines()[-1]

    def read(self, table: str, instruction: str, media: pathlib.Path) -> list[Any]:
        """The examples of a table, its media decoded."""
        opened = open_table(self.out / f"{table}.jsonl", media_root=media)
        stream = Stream(opened, parse(instruction, MODALITIES), self.vocabulary, MEDIA, TextLimits())
        return [example for row in range(len(stream)) for example in stream.read(row)]


@pytest.fixture(scope="session")
def vocabulary(tmp_path_factory) -> Vocabulary:
    return tiny.vocabulary(tmp_path_factory.mktemp("vocabulary"))


@pytest.fixture
def build(monkeypatch, tmp_path, capsys, vocabulary):
    """Runs a builder by its name on the files in tmp_path/source; further flags follow. ``sizes`` in place of the published ones."""
    monkeypatch.syspath_prepend(str(DATA_UTILS))

    def run(name: str, *flags: object, sizes: dict[str, int] | None = None) -> Built:
        dataset, frame = importlib.import_module(f"build_{name}").DATASET, importlib.import_module("downstream.frame")
        if sizes is not None:
            dataset = dataclasses.replace(dataset, sizes={table: frame.Size(rows) for table, rows in sizes.items()})
        out = tmp_path / "out"
        arguments = ["--source", str(tmp_path / "source"), "--out", str(out), *map(str, flags)]
        code = frame.main(dataset, arguments)
        shown = capsys.readouterr()
        return Built(code, shown.out, shown.err, out, vocabulary)

    return run


@pytest.fixture
def source(tmp_path):
    """Writes files of the data set's own into tmp_path/source: text as it is, bytes as they are, else JSON."""

    def write(**files: Any) -> pathlib.Path:
        folder = tmp_path / "source"
        for name, content in files.items():
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            if isinstance(content, bytes):
                path.write_bytes(content)
            else:
                text = content if isinstance(content, str) else json.dumps(content, ensure_ascii=False)
                path.write_text(text, encoding="utf-8")
        return folder

    return write


@pytest.fixture
def media(tmp_path):
    """Writes small images, videos (.mp4 or .avi names; an animated image inside) or audio files below tmp_path/media."""

    def write(*names: str) -> pathlib.Path:
        for i, name in enumerate(names):
            path = tmp_path / "media" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            if path.suffix == ".wav":
                tiny.write_sound(path, seconds=0.1)
            elif path.suffix in (".mp4", ".avi"):
                tiny.write_video(path.with_suffix(".webp"), frames=3, size=32)
                path.with_suffix(".webp").rename(path)
            else:
                Image.fromarray(np.full((24, 40, 3), 10 * i, np.uint8)).save(path)
        return tmp_path / "media"

    return write
