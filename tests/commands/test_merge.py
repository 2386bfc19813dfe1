"""``unival merge`` on trained checkpoints: what it writes works as any other, and what cannot be merged is refused."""

import hashlib
import json
import pathlib

import pytest
import torch

from tests import runs, tiny
from unival.checkpoints.files import read
from unival.cli import main
from unival.hub import from_checkpoint

FLAGS = ["--batch-size", "4", "--disable-validation", "--skip-checks"]


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A trained base, and two models whose weights are near it; all have moving averages."""
    folder = tmp_path_factory.mktemp("merge")
    tiny.write_data(folder / "data", 8, 2)
    ema = ["--store-ema", "--ema-decay", "0.5", "--ema-fp32"]
    assert runs.train(folder / "data", folder / "base", *FLAGS, "--max-update", "1", *ema) == 0
    for name, seed in (("one", 1), ("two", 2)):
        container = torch.load(checkpoint(folder, "base"), weights_only=True)
        torch.manual_seed(seed)
        for value in {id(v): v for v in container["model"].values() if v.is_floating_point()}.values():
            value.add_(0.05 * torch.randn_like(value))
        (folder / name).mkdir()
        torch.save(container, checkpoint(folder, name))
    return folder


def checkpoint(place, name):
    return str(place / name / "checkpoint_last.pt")


def merge(*arguments):
    return main(["merge", *map(str, arguments)])


def states(place, *names):
    return [read(checkpoint(place, name))["model"] for name in names]


def test_a_merged_checkpoint_is_used_as_any_other(place, tmp_path, capsys):
    """Its weights are the formula's; generating, running, inspecting and merging it again work."""
    out = tmp_path / "merged.pt"
    assert merge(checkpoint(place, "one"), checkpoint(place, "two"), "--lambda", "0.25", "--out", out) == 0
    first, second = states(place, "one", "two")
    found = read(out)["model"]
    assert list(found) == list(first)
    moved = 0
    for key, value in found.items():
        if value.is_floating_point():
            expected = 0.75 * first[key].double() + 0.25 * second[key].double()
            assert torch.allclose(value.double(), expected, rtol=1e-6, atol=1e-7), key
            moved += not torch.equal(first[key], second[key])
        else:
            assert torch.equal(value, first[key]), key
    assert moved > 50
    capsys.readouterr()
    image = str(place / "data" / "images" / "train.jsonl-0.png")
    assert main(["run", image, "--path", str(out), "--beam", "2", "--max-len-b", "4"]) == 0
    model = from_checkpoint(out)
    assert capsys.readouterr().out == f"{image}\t{model.caption(image, beam=2, max_len_b=4)[0]}\n"
    runs.generate(place / "data", out, tmp_path / "generated", "valid", "--beam", "1", "--max-len-b", "3")
    assert main(["inspect", str(out), "--json"]) == 0
    about = json.loads(capsys.readouterr().out)
    assert about["fit"] == {"missing": [], "unexpected": [], "reshaped": {}} and not about["non_finite"]
    assert about["task"]["instruction"] and about["vocabulary"]["kept"]
    made = about["made_from"]
    digests = [hashlib.sha256(pathlib.Path(checkpoint(place, name)).read_bytes()).hexdigest() for name in ("one", "two")]
    assert [file["sha256"] for file in made["files"]] == digests
    assert (made["method"], made["coefficients"]) == ("linear", [0.75, 0.25])
    assert main(["inspect", str(out)]) == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert f"merged linear of the model weights of 0.75 checkpoint_last.pt (sha256 {digests[0][:12]})" in shown
    assert merge(out, checkpoint(place, "two"), "--out", tmp_path / "again.safetensors") == 0
    assert from_checkpoint(tmp_path / "again.safetensors").caption(image, beam=1, max_len_b=3)
