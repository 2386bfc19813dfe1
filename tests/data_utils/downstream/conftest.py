"""Builders run in this process on small files in the true formats, and their tables opened through the benchmark's instruction."""

import dataclasses
import importlib
import json
import pathlib
from dataclasses import dataclass
from typing import Any

import pytest

from tests.data_utils.conftest import DATA_UTILS
from unival.data.stream import Stream, TextLimits
from unival.data.table import open_table
from unival.instructions import parse
from unival.modalities import MODALITIES
from unival.modalities.composed import MediaOptions
from unival.vocab import Vocabulary

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
