"""Runs with ``--peft``, and what they trained as a file of its own: extracted, stacked on its base, merged, refused elsewhere."""

import copy
import pathlib

import pytest
import torch

from tests import runs, tiny
from tests.test_training import assert_equal
from unival.checkpoints.files import read, write
from unival.cli import main
from unival.hub import from_checkpoint

FLAGS = ["--batch-size", "4", "--weight-decay", "0.1", "--disable-validation", "--skip-checks"]
TUNED = ["--lora-rank", "2", "--lora-dropout", "0.5", "--lora-layers", "q_proj,v_proj,fc2"]
PARTS = ["--adapter-width", "4", "--prefix-length", "3"]


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A base, and two runs from it: one of LoRA and biases with a moving average, one of all new parts."""
    folder = tmp_path_factory.mktemp("adapters")
    tiny.write_data(folder / "data", 8, 2)
    ema = ["--store-ema", "--ema-decay", "0.5", "--ema-fp32"]
    assert runs.train(folder / "data", folder / "base", *FLAGS, "--max-update", "1", *ema) == 0
    start = ["--finetune-from-model", str(folder / "base" / "checkpoint_last.pt"), "--max-update", "4", "--lr", "1e-2"]
    assert runs.train(folder / "data", folder / "lora", *FLAGS, "--peft", "lora,bitfit", *TUNED, *start, *ema) == 0
    assert runs.train(folder / "data", folder / "all", *FLAGS, "--peft", "lora,adapters,prefix", *TUNED, *PARTS, *start) == 0
    return folder


def checkpoint(place, name):
    return str(place / name / "checkpoint_last.pt")


def adapter(*arguments):
    return main(["adapter", *map(str, arguments)])


def scores(model, place):
    rows = [{"image": path} for path in sorted((place / "data" / "images").glob("train*.png"))[:3]]
    return [(output.text, output.score) for output in model.run("[IMAGE:image] what? -> [TEXT:a]", rows, beam=2, max_len_b=4)]


def test_a_resumed_run_equals_the_uninterrupted_one(place, tmp_path):
    """With dropout of LoRA and without: every bit, and the base's bits where nothing was trained."""
    start = ["--finetune-from-model", checkpoint(place, "base"), "--lr", "1e-2"]
    for stop in ("2", "4"):
        flags = [*FLAGS, "--peft", "lora,adapters,prefix", *TUNED, *PARTS, *start, "--max-update", stop]
        assert runs.train(place / "data", tmp_path, *flags) == 0
    again, whole = (torch.load(path / "checkpoint_last.pt", weights_only=True) for path in (tmp_path, place / "all"))
    for part in ("model", "last_optimizer_state"):
        assert_equal(again[part], whole[part], part)
    base = read(checkpoint(place, "base"))["model"]
    assert all(torch.equal(value, whole["model"][key]) for key, value in base.items())
    moved = {key: value for key, value in whole["model"].items() if key not in base}
    assert len(moved) == len(whole["last_optimizer_state"]["state"])
    assert all(value.any() for value in moved.values())  # B of LoRA and the second half of adapters were 0


@pytest.mark.parametrize("suffix", ["pt", "safetensors"])
def test_an_adapter_on_its_base_is_the_trained_model(place, tmp_path, suffix, capsys):
    file = tmp_path / f"adapter.{suffix}"
    capsys.readouterr()
    assert adapter("extract", checkpoint(place, "all"), "--out", file) == 0
    said = capsys.readouterr()
    assert said.out.startswith(f"{file}: ") and said.out.count("\n") == 1 and not said.err  # nothing of training
    assert file.stat().st_size < 0.3 * pathlib.Path(checkpoint(place, "base")).stat().st_size
    trained, base = from_checkpoint(checkpoint(place, "all")), from_checkpoint(checkpoint(place, "base"))
    stacked = from_checkpoint(checkpoint(place, "base"), adapter=file)
    assert_equal(dict(stacked.model.state_dict()), dict(trained.model.state_dict()))
    assert scores(stacked, place) == scores(trained, place) != scores(base, place)
    capsys.readouterr()
    image = str(place / "data" / "images" / "train.jsonl-0.png")
    assert main(["run", image, "--path", checkpoint(place, "base"), "--adapter", str(file), "--beam", "2", "--max-len-b", "4"]) == 0
    assert capsys.readouterr().out == f"{image}\t{trained.caption(image, beam=2, max_len_b=4)[0]}\n"
    assert adapter("merge", checkpoint(place, "base"), file, "--out", tmp_path / "merged.pt") == 1
    assert f"{file}: --peft adapters cannot be merged" in capsys.readouterr().err
    if suffix == "pt":
        assert adapter("stack", checkpoint(place, "base"), file, "--out", tmp_path / "whole.pt") == 0
        runs.generate(place / "data", tmp_path / "whole.pt", tmp_path / "out", "valid", "--beam", "1", "--max-len-b", "3")


def test_merged_weights_compute_the_same(place, tmp_path):
    """LoRA and biases: the base's architecture, logits equal to 1e-6 in float32; also of the moving average."""
    merged = {}
    for name, flags in (("last", []), ("ema", ["--ema"])):
        assert adapter("extract", checkpoint(place, "lora"), "--out", tmp_path / f"{name}.pt", *flags) == 0
        assert adapter("merge", checkpoint(place, "base"), tmp_path / f"{name}.pt", "--out", tmp_path / f"{name}-merged.pt") == 0
        ours = from_checkpoint(tmp_path / f"{name}-merged.pt").model
        merged[name] = logits(ours)
        torch.testing.assert_close(
            merged[name], logits(from_checkpoint(checkpoint(place, "base"), adapter=tmp_path / f"{name}.pt").model), rtol=0, atol=1e-6
        )
        assert ours.state_dict().keys() == from_checkpoint(checkpoint(place, "base")).model.state_dict().keys()
    torch.testing.assert_close(merged["last"], logits(from_checkpoint(checkpoint(place, "lora")).model), rtol=0, atol=1e-6)
    assert (merged["ema"] - merged["last"]).abs().max() > 1e-4
    flags = [*FLAGS, "--finetune-from-model", str(tmp_path / "last-merged.pt"), "--max-update", "1"]
    assert runs.train(place / "data", tmp_path / "next", *flags) == 0


def logits(model):
    generator = torch.Generator().manual_seed(0)
    item = {"modality": "image", "values": torch.randn(2, 3, 32, 32, generator=generator), "rows": torch.tensor([0, 1])}
    tokens = torch.randint(4, 100, (2, 6), generator=generator)
    with torch.no_grad():
        return model.forward_group(tokens, None, tokens, media=[item])[0]


def test_what_does_not_fit_is_refused(place, tmp_path, capsys):
    base, file = checkpoint(place, "base"), tmp_path / "adapter.pt"
    assert adapter("extract", checkpoint(place, "lora"), "--out", file) == 0
    other = copy.copy(read(base))
    other["model"] = {**other["model"], "encoder.layer_norm.weight": other["model"]["encoder.layer_norm.weight"] + 1e-6}
    del other["model"]["decoder.layer_norm.weight"]
    write(tmp_path / "other.pt", other)
    image = str(place / "data" / "images" / "train.jsonl-0.png")
    out, damaged, empty = (str(tmp_path / f"{name}.pt") for name in ("out", "damaged", "empty"))
    write(damaged, {**read(file), "task_state": None, "adapter": {"base": {"encoder.layer_norm.weight": "load 0"}}})
    write(empty, {**read(file), "adapter": {}})
    for arguments, message in (
        (["run", image, "--path", str(tmp_path / "other.pt"), "--adapter", str(file)], "was trained on another base than"),
        (["run", image, "--path", base, "--adapter", damaged], f"{damaged}: is a damaged adapter: task_state, encoder.layer_norm.weight"),
        (["run", image, "--path", base, "--adapter", empty], f"{empty}: is no adapter"),
        (["run", image, "--path", base, "--adapter", base], f"{base}: is no adapter; `unival adapter extract` makes one"),
        (["run", image, "--path", str(file)], f"{file}: is an adapter; give the checkpoint of its base"),
        (["run", image, "--path", str(file), "--adapter", str(file)], f"{file}: is an adapter, expected the checkpoint of its base"),
        (["adapter", "extract", base, "--out", out], f"{base}: all of its weights were trained"),
        (["adapter", "extract", base, str(file), "--out", out], "unival adapter extract takes CHECKPOINT, got 2 files"),
        (["adapter", "merge", base, str(file), "--out", base], f"--out {base} is an input itself"),
        (["adapter", "merge", base, str(file), "--out", image], f"--out {image} exists; --force overwrites it"),
        (["adapter", "merge", base, str(file), "--out", out, "--ema"], "--ema is for extract"),
        (["adapter", "extract", str(file), "--out", out], "expected a checkpoint of `unival train`"),
        (["convert", checkpoint(place, "lora"), out, "--to", "published"], "--peft lora,bitfit: the published format has no place for it"),
        (["generate", str(place / "data"), *runs.CPU, "--path", str(file), "--gen-subset", "valid"], "`unival adapter stack` makes"),
    ):
        assert main(arguments) == 1
        shown = capsys.readouterr().err
        assert message in shown, shown
    assert main(["run", image, "--path", str(tmp_path / "other.pt"), "--adapter", str(file)]) == 1
    wrong = capsys.readouterr().err
    assert "decoder.layer_norm.weight is missing" in wrong and "encoder.layer_norm.weight differs" in wrong
