"""The folder of media files."""

import importlib
import os

from tests.data_utils.conftest import DATA_UTILS


def test_folders_that_were_not_used_for_long_are_forgotten(monkeypatch, tmp_path):
    monkeypatch.syspath_prepend(str(DATA_UTILS))
    media = importlib.import_module("common.media")
    for folder in "abc":
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "1.jpg").touch()
    listed = []
    real = os.listdir
    monkeypatch.setattr(os, "listdir", lambda path: listed.append(os.path.basename(path)) or real(path))
    root = media.MediaRoot(str(tmp_path), most=4)  # two folders of a name each
    for path in ("a/1.jpg", "b/1.jpg", "a/2.jpg", "c/1.jpg", "a/1.jpg", "b/1.jpg"):
        assert root.choose([path]) == (None if path == "a/2.jpg" else path)
    assert listed == ["a", "b", "c", "b"], "b was forgotten when c came, a was used again"
    assert root.choose(["nowhere/1.jpg", "c/1.jpg"]) == "c/1.jpg"
    assert media.MediaRoot(None).choose(["nowhere/1.jpg"]) == "nowhere/1.jpg"
