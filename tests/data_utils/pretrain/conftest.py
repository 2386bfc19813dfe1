"""Runs build_pretrain.py in this process on small files in the true formats; its tables are read as its mixture file says."""

import importlib
import pathlib
from typing import Any

import pytest

from tests.data_utils.conftest import DATA_UTILS
from tests.data_utils.downstream.conftest import MEDIA, Built
from unival.data.builders import builder_of
from unival.data.stream import Stream, TextLimits
from unival.data.table import open_table
from unival.instructions import parse
from unival.modalities import MODALITIES
from unival.tasks.pretraining.file import read_mixture


class Pretrained(Built):
    """What a run of the builder left."""

    def examples(self, table: str) -> list[Any]:
        """The examples that the mixture's builder makes of a table, media decoded."""
        path = self.out / f"{table}.jsonl"
        (spec,) = [each for each in read_mixture(self.out / "mixture.yaml").streams.values() if path in map(pathlib.Path, each.table)]
        named = {name: parse(text, MODALITIES) for name, text in builder_of(spec.builder).instructions(spec.medium or "image").items()}
        opened = open_table(path, media_root=spec.media_root)
        stream = Stream(opened, named, self.vocabulary, MEDIA, TextLimits(), train=True, builder=spec.builder)
        return [example for row in range(len(stream)) for example in stream.read(row)]


@pytest.fixture
def pretrain(monkeypatch, tmp_path, capsys, vocabulary):
    """Runs the builder: sources and held-out benchmarks are folders of their names in tmp_path/source and tmp_path/source/held."""
    monkeypatch.syspath_prepend(str(DATA_UTILS))

    def run(*names: str, held: tuple[str, ...] = (), flags: tuple[object, ...] = (), media: object = None) -> Pretrained:
        main = importlib.import_module("build_pretrain").main
        folder, out = tmp_path / "source", tmp_path / "out"
        arguments = ["--out", str(out), *map(str, flags), *(["--media-root", str(media)] if media else [])]
        arguments += [part for name in names for part in ("--source", f"{name}={folder / name}")]
        arguments += [part for name in held for part in ("--held-out", f"{name}={folder / 'held' / name}")]
        code = main(arguments)
        shown = capsys.readouterr()
        return Pretrained(code, shown.out, shown.err, out, vocabulary)

    return run
