"""The values in this folder are those of the complete reference files, where these are beside the checkout."""

import json

import pytest
import torch
from safetensors import safe_open

from tests import golden
from tests.golden import extract

OTHERS = ("text.json", "gpt2_extract.json", "published_recipes.json", "merging.json")  # chosen by hand; they say where they come from


@pytest.fixture(scope="module")
def again(shared, tmp_path_factory):
    """The files of this folder, made again."""
    folder = tmp_path_factory.mktemp("golden")
    extract.write(shared / "reference", folder)
    return folder


def content(path):
    if path.suffix == ".json":
        return json.loads(path.read_text(encoding="utf-8"))
    with safe_open(path, framework="pt") as file:
        return file.metadata(), {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118


def test_the_files_are_the_reference_values(again):
    names = sorted(path.relative_to(again) for path in again.rglob("*") if path.is_file())
    kept = [path.relative_to(extract.FOLDER) for suffix in ("json", "safetensors") for path in extract.FOLDER.rglob(f"*.{suffix}")]
    assert names == sorted(path for path in kept if path.name not in OTHERS)
    for name in names:
        ours, theirs = content(extract.FOLDER / name), content(again / name)
        if name.suffix == ".json":
            assert ours == theirs, name
            continue
        assert ours[0] == theirs[0] and ours[1].keys() == theirs[1].keys(), name
        assert all(torch.equal(ours[1][key], theirs[1][key]) and ours[1][key].dtype == theirs[1][key].dtype for key in ours[1]), name


def test_weights_and_media_follow_from_the_formula(shared):
    """What is not stored: every weight of the tiny model, and the images, videos and sounds."""
    published = extract.load(shared / "reference", "tiny_state")["state_dict"]
    drawn = golden.golden_state()
    assert {key for key in published if key not in drawn} <= {key for key in published if not golden.recipe.is_drawn(key)}
    assert all(torch.equal(value, published[key]) for key, value in drawn.items())
    cases = extract.load(shared / "reference", "cases")
    for name, key in (("image", "patch_images"), ("video", "patch_videos"), ("audio", "patch_audios")):
        assert torch.equal(golden.case(name)["values"], cases[name]["net"][key])


def test_float32_differs_from_float64_by_less_than_the_tolerance_in_the_original_itself(shared):
    cases = extract.load(shared / "reference", "cases")
    assert max(cases[name]["max_abs_f32_f64"] for name in golden.CASES) < 1e-5
    assert all(torch.equal(cases["image"]["f64"][key], cases["image_no_types"]["f64"][key]) for key in ("logits", "encoder_out"))
