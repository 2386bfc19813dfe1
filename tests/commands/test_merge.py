"""``unival merge`` on trained checkpoints: what it writes works as any other, and what cannot be merged is refused."""

import hashlib
import json
import pathlib

import pytest
import torch

from tests import runs, tiny
from unival.checkpoints.files import read
from unival.checkpoints.merging.methods import METHODS
from unival.cli import main
from unival.hub import from_checkpoint
from unival.tasks.statistics.norms import recalibrate
from unival.tasks.statistics.rows import Batches, rows_of

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


@pytest.mark.parametrize("method", ["ties", "della", "emr", "tsv"])
def test_every_method_writes_a_model_that_fits(place, tmp_path, method, capsys):
    """All keys of a real model, the base included; what it says of itself names all options."""
    models = [checkpoint(place, "one"), checkpoint(place, "two")]
    base = ["--base", checkpoint(place, "base")] if METHODS[method].base else []
    out = tmp_path / "merged.safetensors"
    assert merge(*models, *base, "--method", method, "--out", out) == 0, capsys.readouterr().err
    container = read(out)
    (trained,) = states(place, "base")
    assert set(container["model"]) == set(trained)
    assert all(value.isfinite().all() for value in container["model"].values())
    assert all(value.shape == trained[key].shape and value.dtype == trained[key].dtype for key, value in container["model"].items())
    moved = [key for key, value in container["model"].items() if not torch.equal(value, trained[key])]
    assert len(moved) > 50
    made = container["extra_state"]["converted_from"]
    assert made["method"] == method and set(made["options"]) == set(METHODS[method].options())
    assert bool(made["base"]) == METHODS[method].base


def test_moving_averages_and_sweeps(place, tmp_path):
    """--weights ema takes the averages, which all three have in common; --sweep writes every point, each as alone."""
    models = [checkpoint(place, "one"), checkpoint(place, "two")]
    assert merge(*models, "--weights", "ema", "--out", tmp_path / "ema.pt") == 0
    expected = from_checkpoint(models[0], weights="ema").model.state_dict()
    found = read(tmp_path / "ema.pt")["model"]
    assert all(torch.allclose(value, expected[key]) for key, value in found.items())
    assert merge(*models, "--sweep", "0:1:0.5", "--half", "--out", tmp_path / "point-{}.pt") == 0
    points = [read(tmp_path / f"point-{name}.pt")["model"] for name in ("0", "0.5", "1")]
    for number, original in ((0, "one"), (2, "two")):
        (state,) = states(place, original)
        assert all(torch.equal(points[number][key], v.half() if v.is_floating_point() else v) for key, v in state.items())
    base = ["--base", checkpoint(place, "base"), "--method", "task_arithmetic"]
    assert merge(models[0], *base, "--sweep", "0,1", "--out", tmp_path / "scale-{}.safetensors") == 0
    for name, original in (("0", "base"), ("1", "one")):
        found, (state,) = read(tmp_path / f"scale-{name}.safetensors")["model"], states(place, original)
        assert all(torch.allclose(value, state[key], atol=1e-6) for key, value in found.items() if "running" not in key), name


def test_statistics_of_batch_norms_are_those_of_a_table(place, tmp_path, capsys):
    """--recalibrate: what the merged network computes on the rows, whichever weights are written; all else stays as it is merged."""
    models, out, table = [checkpoint(place, "one"), checkpoint(place, "two")], tmp_path / "new.pt", str(place / "data" / "train.jsonl")
    assert merge(*models, "--out", tmp_path / "plain.pt") == 0
    capsys.readouterr()
    given = ["--recalibrate", table, "--rows", "5", "--batch-size", "3"]
    assert merge(*models, *given, "--out", out) == 0, capsys.readouterr().err
    said = capsys.readouterr().out.splitlines()[1]
    assert said.startswith(f"{out}: recalibrated on 5 rows of {table}, batch size 3: ") and "of 5 images" in said
    plain, new = read(tmp_path / "plain.pt")["model"], read(out)
    assert new["extra_state"]["converted_from"]["recalibrated"] == {"tables": ["train.jsonl"], "rows": [5], "batch_size": 3}
    changed = {key for key, value in new["model"].items() if not torch.equal(value, plain[key])}
    assert changed == {key for key in plain if "running_" in key} and changed
    loaded = from_checkpoint(tmp_path / "plain.pt")
    stream = rows_of(loaded.task, table)
    expected = Batches(stream, loaded.model, 3, 5)
    assert [batch["id"].tolist() for batch in expected] == [[0, 1], [3, 4, 6]]
    recalibrate(loaded.model, [expected])
    assert all(torch.equal(value, new["model"][key]) for key, value in loaded.model.state_dict().items() if "running_" in key)
    one_each = ["--recalibrate", f"{table},{table}", "--sweep", "0,1", "--half", "--rows", "2", "--out", tmp_path / "each-{}.pt"]
    assert merge(*models, *one_each) == 0
    points = [read(tmp_path / f"each-{point}.pt")["model"] for point in (0, 1)]
    key = min(changed)
    assert points[0][key].dtype == torch.float16 and not torch.equal(points[0][key], points[1][key])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--method", "best"], "--method best: there are linear, "),
        (["--method", "ties"], "--method ties needs the pretrained model that the models come from: give --base"),
        (["--method", "slerp", "--coefficients", "1,2,3"], "--coefficients 1,2,3: must be 2 numbers, one per model, got 3"),
        (["--coefficients", "1,x"], "--coefficients 1,x: must be numbers with commas between"),
        (["--coefficients", "1,nan"], "--coefficients 1,nan: must be finite numbers"),
        (["--lambda", "0.5", "--coefficients", "1,2"], "--lambda is for two models whose coefficients are shares, without --coefficients"),
        (["--method", "ema", "--lambda", "0.5"], "--method ema has no coefficients of the models"),
        (["--density", "0.5"], "--density is no option of --method linear, which has no options"),
        (["--sweep", "0:1"], "--sweep 0:1: must be FROM:TO:STEP, such as 0:1:0.1"),
        (["--sweep", "0,1"], "must have {} in its name"),
        (["--sweep", "0,1", "--lambda", "1"], "--sweep takes the place of --lambda and --coefficients"),
        (["--base", "one"], "--base is not used by --method linear"),
        (["--config-from", "three.pt"], "--config-from three.pt: must be one of the models"),
        (["--out", "one"], "is an input itself; give another file"),
        (["--rows", "5"], "--rows is for --recalibrate; leave it out"),
        (["--recalibrate", "TABLE", "--rows", "0"], "--rows 0: must be at least 1"),
        (["--recalibrate", "TABLE,TABLE,TABLE"], "expected one table, or one per model (2), got 3"),
        (["--recalibrate", "none.jsonl"], "there is no table none.jsonl"),
        (["--recalibrate", "TABLE", "--device", "abacus"], "device 'abacus' cannot be used"),
        (["--method", "fisher"], "--method fisher needs statistics of data"),
    ],
)
def test_mistakes_are_one_line(place, tmp_path, capsys, arguments, message):
    models = [checkpoint(place, "one"), checkpoint(place, "two")]
    table = str(place / "data" / "train.jsonl")
    arguments = [models[0] if argument == "one" else argument.replace("TABLE", table) for argument in arguments]
    assert merge(*models, "--out", tmp_path / "out.pt", *arguments) == 1
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1
    assert not (tmp_path / "out.pt").exists()


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
