"""Sprites and small data sets that the tests of the sampler share."""

import dataclasses
import os
import pathlib

import pytest

from data_utils.sampler import splits
from data_utils.sampler.sprites import Atlas
from data_utils.sampler.write import Composer, Settings, build, load_sprites

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
    out = tmp_path_factory.mktemp("sampler") / "data"
    build_small(out)
    return out


@pytest.fixture(scope="session")
def stamps_folder() -> str:
    """The real stamps, where somebody says that they are."""
    folder = os.environ.get("UNIVAL_STAMPS_DIR")
    if not folder:
        pytest.skip("needs the Tux Paint stamps (set UNIVAL_STAMPS_DIR to the unpacked package)")
    return folder
