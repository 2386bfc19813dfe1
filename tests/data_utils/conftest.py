"""Sprites and small data sets that the tests of the sampler share; files of data sets and media that those of builders share."""

import dataclasses
import json
import os
import pathlib
from typing import Any

import numpy as np
import pytest
from PIL import Image

from data_utils.sampler import splits
from data_utils.sampler.sprites import Atlas
from data_utils.sampler.write import Composer, Settings, build, load_sprites
from tests import tiny
from unival.vocab import Vocabulary

DATA_UTILS = pathlib.Path(__file__).resolve().parents[2] / "data_utils"
SMALL = Settings(
    sprites="shapes", objects=20, unseen_objects=5, train=60, valid=12, test=16, test_unseen=8, valid_swapped=8, size=64
)


def make_composer(**changes) -> Composer:
    """A composer of shapes; `changes` are settings."""
    settings = dataclasses.replace(SMALL, **changes)
    sprites, _ = load_sprites(settings)
    names = [sprite.name for sprite in sprites]
    plan = splits.make_plan(names, settings.unseen_objects, settings.most, settings.seed)
    return Composer(settings, plan, Atlas(sprites))


def build_small(out: pathlib.Path, workers: int = 1, **changes) -> dict:
    """Builds shapes data into `out` and returns the manifest."""
    settings = dataclasses.replace(SMALL, **changes)
    return build(out, settings, *load_sprites(settings), workers=workers)


@pytest.fixture(scope="session")
def crowded() -> Composer:
    """A composer of scenes with one to four shapes."""
    return make_composer(fewest=1, most=4, size=96)


@pytest.fixture(scope="session")
def built(tmp_path_factory) -> pathlib.Path:
    """A folder with small shapes data."""
    out = tmp_path_factory.mktemp("session-sampler") / "data"
    build_small(out)
    return out


@pytest.fixture(scope="session")
def stamps_folder() -> str:
    """The real stamps, where somebody says that they are."""
    folder = os.environ.get("UNIVAL_STAMPS_DIR")
    if not folder:
        pytest.skip("needs the Tux Paint stamps (set UNIVAL_STAMPS_DIR to the unpacked package)")
    return folder


@pytest.fixture(scope="session")
def vocabulary(tmp_path_factory) -> Vocabulary:
    return tiny.vocabulary(tmp_path_factory.mktemp("session-vocabulary"))


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
