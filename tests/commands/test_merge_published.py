"""Checkpoints in the published format: every command reads one or says what to do; merged, what comes out generates like any other."""

import json

import pytest
import torch
from omegaconf import OmegaConf

from tests import runs, tiny
from unival.checkpoints import files
from unival.checkpoints.names.published import is_published
from unival.cli import COMMANDS, main
from unival.commands.convert.source import task_defaults
from unival.commands.convert.target import own_cfg
from unival.hub import from_checkpoint
from unival.vocab import Vocabulary

FLAGS = ("--num-codes", "0", "--num-bins", "0", "--beam", "2", "--max-len-b", "3")
SHARES = {"a": 0.5, "b": 0.25, "ours": 0.25}


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """Three fine-tuned models of one pretraining with random weights: ``a.pt`` and ``b.pt`` in the published format, ``ours.pt``."""
    folder = tmp_path_factory.mktemp("published")
    tiny.write_data(folder / "data", 2, 3)
    vocabulary = tiny.vocabulary(folder / "data" / "vocab", num_codes=0, num_bins=0)
    # resnet50: the smallest CNN that the published code has
    model = tiny.model(vocabulary, modalities="image", image_backbone="resnet50", image_backbone_stages=3)
    task = {**task_defaults(), "num_codes": 0, "num_bins": 0, "patch_image_size": 64, "_name": "unival_caption"}
    cfg = own_cfg({**OmegaConf.to_container(model.cfg), "_name": "unival"}, task)
    state = {"vocabulary": vocabulary.fingerprint, "vocabulary_files": vocabulary.files(), "num_codes": 0, "num_bins": 0}
    for seed, name in enumerate(SHARES):
        torch.manual_seed(seed)
        weights = model.state_dict()
        moved = {v.data_ptr(): v + 0.02 * torch.randn_like(v).abs() for v in weights.values() if v.is_floating_point()}  # tied ones alike
        container = {"cfg": cfg, "model": {key: moved.get(v.data_ptr(), v) for key, v in weights.items()}, "task_state": state}
        files.write(folder / f"{name}-own.pt" if name != "ours" else folder / "ours.pt", container)
        if name != "ours":
            assert main(["convert", str(folder / f"{name}-own.pt"), str(folder / f"{name}.pt"), "--to", "published"]) == 0
            assert is_published(files.read(folder / f"{name}.pt")["model"])
    return folder


def average(place, shares) -> dict[str, torch.Tensor]:
    """The weighted average by our keys, from the models before they were converted."""
    states = {name: files.read(place / ("ours.pt" if name == "ours" else f"{name}-own.pt"))["model"] for name in shares}
    total = sum(shares.values())
    return {key: sum(share / total * states[name][key].double() for name, share in shares.items()) for key in next(iter(states.values()))}


def test_a_part_that_the_published_model_lacks(place, tmp_path):
    """The result has the other's video part, though the published options, which it begins with, name none."""
    own = files.read(place / "ours.pt")
    vocabulary = place / "data" / "vocab"
    media = {"modalities": "image,video", "image_backbone": "resnet50", "image_backbone_stages": 3}
    model = tiny.model(Vocabulary.load(vocabulary, 0, 0), **media)
    state = {**model.state_dict(), **own["model"]}
    assert len(state) > len(own["model"])
    files.write(tmp_path / "video.pt", {**own, "cfg": {**own["cfg"], "model": {**own["cfg"]["model"], **media}}, "model": state})
    out = tmp_path / "merged.pt"
    assert main(["merge", str(place / "a.pt"), str(tmp_path / "video.pt"), "--missing", "skip", "--out", str(out)]) == 0
    merged = from_checkpoint(out, vocabulary)
    assert sorted(merged.model.encoder.media) == ["image", "video"]
    expected = {**state, **average(place, {"a": 0.5, "ours": 0.5})}
    found = merged.model.state_dict()
    assert [key for key, value in expected.items() if not torch.allclose(found[key].double(), value.double(), atol=1e-6)] == []
    assert merged.caption(str(place / "data" / "images" / "valid.jsonl-0.png"), beam=1, max_len_b=3)


@pytest.mark.parametrize("order", [("a", "b"), ("a", "ours", "b")], ids=" ".join)
def test_what_comes_out_generates(place, tmp_path, order, capsys):
    """The format is that of the inputs, or ours if one is ours; the weights are the formula's; all three ways of generating agree."""
    shares = {name: SHARES[name] for name in order}
    total = sum(shares.values())
    models, coefficients = [str(place / f"{name}.pt") for name in order], ",".join(str(share / total) for share in shares.values())
    out = tmp_path / "merged.pt"
    assert main(["merge", *models, "--coefficients", coefficients, "--out", str(out)]) == 0, capsys.readouterr().err
    assert is_published(files.read(out)["model"]) == ("ours" not in order)
    vocabulary = place / "data" / "vocab"
    model = from_checkpoint(out, vocabulary)
    found, expected = model.model.state_dict(), average(place, shares)
    assert found.keys() == expected.keys()
    assert [key for key, value in expected.items() if not torch.allclose(found[key].double(), value, atol=1e-6)] == []
    images = [str(place / "data" / "images" / f"valid.jsonl-{number}.png") for number in range(3)]
    captions = [model.caption(image, beam=2, max_len_b=3)[0] for image in images]
    capsys.readouterr()
    assert main(["run", *images, "--path", str(out), "--vocab-dir", str(vocabulary), "--beam", "2", "--max-len-b", "3"]) == 0
    assert capsys.readouterr().out.splitlines() == [f"{image}\t{caption}" for image, caption in zip(images, captions, strict=True)]
    runs.generate(place / "data", out, tmp_path, "valid", *FLAGS)
    lines = [line.split("\t") for line in (tmp_path / "generate-valid.txt").read_text().splitlines() if line.startswith("D-")]
    assert [text for _, _, text in sorted(lines)] == captions


def test_published_files_are_evaluated_as_ours_of_the_same_weights(place, tmp_path, capsys):
    """By what `unival sweep` and `unival barrier` have in common: one model in memory, into which merged weights are written."""
    options = [argument for name in ("num_codes", "num_bins") for argument in ("--set", f"valid.{name}=0")]
    losses = []
    for kind in ("", "-own"):
        models = [str(place / f"{name}{kind}.pt") for name in "ab"]
        found = tmp_path / f"found{kind}.json"
        command = [*models, "--table", str(place / "data" / "valid.jsonl"), *options, "--points", "0,0.5,1", "--json", str(found)]
        assert main(["barrier", *command, "--resamples", "0"]) == 0, capsys.readouterr().err
        losses.append(json.loads(found.read_text())["tables"]["valid"]["losses"])
    assert losses[0] == pytest.approx(losses[1], rel=1e-5) and len(set(losses[0])) == 3


def test_every_command_reads_a_published_file_or_advises_to_convert_it(place, tmp_path, capsys):
    """In a line; a command that is new must be added here."""
    a, b = str(place / "a.pt"), str(place / "b.pt")
    table, image, out = str(place / "data" / "valid.jsonl"), str(place / "data" / "images" / "valid.jsonl-0.png"), str(tmp_path / "out.pt")
    vocabulary = ["--vocab-dir", str(place / "data" / "vocab")]
    loss = ["--table", table, "--resamples", "0", "--points", "0,1", "--set", "valid.num_codes=0", "--set", "valid.num_bins=0"]
    read = {  # command -> arguments
        "run": [image, "--path", a, *vocabulary, "--beam", "1", "--max-len-b", "1"],
        "inspect": [a],
        "convert": [a, out, *vocabulary, "--num-codes", "0", "--num-bins", "0"],
        "merge": [a, b, "--out", str(tmp_path / "merged.pt")],
        "barrier": [a, b, *loss],
    }
    converted = {
        "merge": ([a, b, "--recalibrate", table], "--recalibrate: "),
        "adapter": (["extract", a], ""),
    }
    elsewhere = {"statistics", "sweep"}  # read them, see the other tests
    without = {"train-vocab", "validate-data", "score", "report", "mixture"}  # take no checkpoint
    assert {*read, *converted, *elsewhere, *without} == set(COMMANDS)
    for command, arguments in read.items():
        assert main([command, *arguments]) == 0, f"{command}: {capsys.readouterr().err}"
    capsys.readouterr()
    for command, (arguments, option) in converted.items():
        assert main([command, *arguments, "--out", str(tmp_path / "none.pt")]) == 1
        error = capsys.readouterr().err
        expected = f"unival: error: {option}{a}: is published UnIVAL; `unival convert` makes a checkpoint of ours of it\n"
        assert error == expected


def test_published_files_are_merged_by_statistics(place, tmp_path, capsys):
    """These have our keys, as the result has then; a sweep scores what the merged file does."""
    table, statistics = str(place / "data" / "valid.jsonl"), []
    models = [str(place / f"{name}.pt") for name in "ab"]
    for name, model in zip("ab", models, strict=True):
        statistics.append(str(tmp_path / f"{name}.safetensors"))
        given = ["--kind", "fisher", "--rows", "1", "--answers", "table", "--table", table, "--vocab-dir", str(place / "data" / "vocab")]
        assert main(["statistics", model, *given, "--out", statistics[-1]]) == 0, capsys.readouterr().err
    fisher, out = ["--method", "fisher", "--floor", "1e-9", "--statistics", ",".join(statistics)], str(tmp_path / "merged.pt")
    assert main(["merge", *models, *fisher, "--out", out]) == 0, capsys.readouterr().err
    found, weighed = files.read(out)["model"], [files.read(path)["model"] for path in statistics]
    assert not is_published(found) and len(weighed[0]) > 200
    states = [files.read(place / f"{name}-own.pt")["model"] for name in "ab"]
    for key in weighed[0]:
        parts = [(state[key], f[key] + 1e-9) for state, f in zip(states, weighed, strict=True)]
        expected = sum(value * weight for value, weight in parts) / sum(weight for _, weight in parts)
        torch.testing.assert_close(found[key], expected, rtol=1e-4, atol=1e-6)
    swept = ["--table", table, "--metric", "valid=loss", "--set", "valid.eval_metrics=", "--resamples", "0", "--points", "0.5"]
    losses = []
    for number, given in enumerate(([*models, *fisher], [out, out])):
        assert main(["sweep", *given, *swept, "--out", str(tmp_path / str(number))]) == 0, capsys.readouterr().err
        losses.append(json.loads((tmp_path / str(number) / "results.jsonl").read_text())["measured"]["scores"]["loss"])
    assert losses[0] == pytest.approx(losses[1], rel=1e-6)
