"""Runs build_pretrain.py in this process on small files in the true formats."""

import importlib

import pytest

from tests.data_utils.conftest import DATA_UTILS
from tests.data_utils.downstream.conftest import Built


@pytest.fixture
def pretrain(monkeypatch, tmp_path, capsys, vocabulary):
    """Runs the builder: sources and held-out benchmarks are folders of their names in tmp_path/source and tmp_path/source/held."""
    monkeypatch.syspath_prepend(str(DATA_UTILS))

    def run(*names: str, held: tuple[str, ...] = (), flags: tuple[object, ...] = (), media: object = None) -> Built:
        main = importlib.import_module("build_pretrain").main
        folder, out = tmp_path / "source", tmp_path / "out"
        arguments = ["--out", str(out), *map(str, flags), *(["--media-root", str(media)] if media else [])]
        arguments += [part for name in names for part in ("--source", f"{name}={folder / name}")]
        arguments += [part for name in held for part in ("--held-out", f"{name}={folder / 'held' / name}")]
        code = main(arguments)
        shown = capsys.readouterr()
        return Built(code, shown.out, shown.err, out, vocabulary)

    return run
