"""What the tests of metrics share: third-party programs and references, skipped with a reason where they are not."""

import importlib.util
import json
import pathlib
import shutil
import zipfile

import pytest

ANNOTATIONS = "coco/annotations/captions_val2014.json"


@pytest.fixture(scope="session")
def pycocoevalcap() -> pathlib.Path:
    """The installed package's folder."""
    spec = importlib.util.find_spec("pycocoevalcap")
    if spec is None or not spec.submodule_search_locations:
        pytest.skip("needs pycocoevalcap (pip install pycocoevalcap==1.2)")
    return pathlib.Path(next(iter(spec.submodule_search_locations)))


@pytest.fixture(scope="session")
def java(pycocoevalcap) -> pathlib.Path:
    """pycocoevalcap's folder, on a machine with Java."""
    if shutil.which("java") is None:
        pytest.skip("needs Java (apt-get install default-jre-headless)")
    return pycocoevalcap


@pytest.fixture(scope="session")
def coco_captions(pycocoevalcap) -> dict[int, list[str]]:
    """The captions of COCO 2014's validation images, by image id."""
    jar = pycocoevalcap / "spice" / "spice-1.0.jar"
    if not jar.is_file():
        pytest.skip(f"needs the COCO captions in {jar.name}")
    with zipfile.ZipFile(jar) as archive:
        if ANNOTATIONS not in archive.namelist():
            pytest.skip(f"{jar.name} holds no {ANNOTATIONS}")
        annotations = json.loads(archive.read(ANNOTATIONS))["annotations"]
    captions: dict[int, list[str]] = {}
    for annotation in annotations:
        captions.setdefault(annotation["image_id"], []).append(annotation["caption"])
    return captions
