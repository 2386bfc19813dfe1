"""``unival merge`` on trained checkpoints: what it writes works as any other, and what cannot be merged is refused."""

import hashlib
import json
import pathlib
from dataclasses import replace

import pytest
import torch

from tests import runs, tiny
from tests.allocations import is_mapped
from unival.checkpoints.files import read
from unival.checkpoints.merging.methods import METHODS
from unival.cli import main
from unival.hub import from_checkpoint
from unival.tasks.statistics import weighing
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
    assert new["extra_state"]["converted_from"]["recalibrated"]["rows"] == [5]
    changed = {key for key, value in new["model"].items() if not torch.equal(value, plain[key])}
    assert changed == {key for key in plain if "running_" in key} and changed
    loaded = from_checkpoint(tmp_path / "plain.pt")
    stream = rows_of(loaded.task, table)
    expected = Batches(stream, loaded.model, 3, 5)
    assert [batch["id"].tolist() for batch in expected] == [[0, 1], [3, 4, 6]]
    recalibrate(loaded.model, [expected])
    assert all(torch.equal(value, new["model"][key]) for key, value in loaded.model.state_dict().items() if "running_" in key)
    assert main(["inspect", str(out)]) == 0
    assert "; batch norms recalibrated on 5 rows of train.jsonl (sha256 " in " ".join(capsys.readouterr().out.split())
    one_each = ["--recalibrate", f"{table},{table}", "--sweep", "0,1", "--half", "--rows", "2", "--out", tmp_path / "each-{}.pt"]
    assert merge(*models, *one_each) == 0
    points = [read(tmp_path / f"each-{point}.pt")["model"] for point in (0, 1)]
    assert merge(*models, *given, "--passes", "1", "--out", tmp_path / "once.pt") == 0
    assert any(not torch.equal(value, new["model"][key]) for key, value in read(tmp_path / "once.pt")["model"].items() if key in changed)
    key = min(changed)
    assert points[0][key].dtype == torch.float16 and not torch.equal(points[0][key], points[1][key])


@pytest.fixture(scope="module")
def statistics(place):
    """Files of statistics of both models, by kind."""
    table, found = str(place / "data" / "train.jsonl"), {}
    for kind in ("fisher", "gram"):
        found[kind] = [str(place / f"{name}-{kind}.safetensors") for name in ("one", "two")]
        for name, out in zip(("one", "two"), found[kind], strict=True):
            given = ["--kind", kind, "--table", table, "--rows", "2", "--out", out]
            assert main(["statistics", checkpoint(place, name), *given]) == 0
    return found


@pytest.mark.parametrize(("method", "kind"), [("fisher", "fisher"), ("regmean", "gram")])
def test_models_are_merged_by_their_statistics(place, statistics, tmp_path, capsys, method, kind):
    """The formula on the files' tensors, where there are any, else the average; the result is used as any other."""
    models, out = [checkpoint(place, "one"), checkpoint(place, "two")], tmp_path / "merged.safetensors"
    assert merge(*models, "--method", method, "--statistics", ",".join(statistics[kind]), "--out", out) == 0, capsys.readouterr().err
    files = [read(path) for path in statistics[kind]]
    made = files[0]["statistics"]
    assert (made["kind"], made["rows"], made["weights"]) == (kind, 2, "model") and made["instruction"]
    capsys.readouterr()
    assert main(["inspect", str(out)]) == 0
    assert f"; statistics one-{kind}.safetensors (sha256 " in " ".join(capsys.readouterr().out.split())
    assert made["answers"] == {"fisher": "model", "gram": "table"}[kind] and ("seed" in made) == (kind == "fisher")
    (one, two), found = states(place, "one", "two"), read(out)
    weights = [file["model"] for file in files]
    assert len(weights[0]) > (100 if kind == "fisher" else 20) and set(weights[0]) < set(one)
    for key in ("encoder.layers.0.fc1.weight", "decoder.layers.1.encoder_attn.q_proj.weight", "encoder.media.image.proj.weight"):
        if kind == "fisher":
            a, b = (state[key].double() + 1e-6 for state in weights)
            expected = (a * one[key] + b * two[key]) / (a + b)
        else:
            a, b = (0.9 * state[key].double() + 0.1 * torch.diag(torch.diag(state[key].double())) for state in weights)
            expected = (one[key].double() @ a + two[key].double() @ b) @ torch.linalg.pinv(a + b, hermitian=True)
        torch.testing.assert_close(found["model"][key].double(), expected, rtol=1e-3, atol=1e-4)
        assert not torch.allclose(found["model"][key].double(), (one[key].double() + two[key].double()) / 2, atol=1e-3)
    key = "encoder.media.image.backbone.bn1.running_mean"
    torch.testing.assert_close(found["model"][key], (one[key] + two[key]) / 2)
    kept = [file["file"] for file in found["extra_state"]["converted_from"]["statistics"]]
    assert kept == [f"{name}-{kind}.safetensors" for name in ("one", "two")]
    assert from_checkpoint(out).caption(str(place / "data" / "images" / "train.jsonl-0.png"), beam=1, max_len_b=3)


@pytest.mark.parametrize("kind", ["fisher", "gram"])
def test_statistics_are_computed_on_weights_in_the_file(place, tmp_path, monkeypatch, kind):
    """A model of float32 takes no memory on a CPU: its parameters are the checkpoint's pages."""
    path, real, found = checkpoint(place, "one"), weighing.KINDS[kind], []

    def compute(task, model, batches):
        found.extend(is_mapped(value, path) for value in model.parameters())
        return real.compute(task, model, batches)

    monkeypatch.setitem(weighing.KINDS, kind, replace(real, compute=compute))
    table = str(place / "data" / "train.jsonl")
    assert main(["statistics", path, "--kind", kind, "--table", table, "--rows", "1", "--out", str(tmp_path / "out.safetensors")]) == 0
    assert len(found) > 100 and all(found)


def test_statistics_of_something_else_are_refused(place, statistics, tmp_path, capsys):
    """Another model, other weights, another kind, other options, too few files, no statistics, files that exist."""
    models, table = [checkpoint(place, "one"), checkpoint(place, "two")], str(place / "data" / "train.jsonl")
    own = tmp_path / "own.safetensors"
    given = ["--kind", "fisher", "--answers", "table", "--table", table, "--rows", "1"]
    assert main(["statistics", models[1], *given, "--out", str(own)]) == 0
    one, two = statistics["fisher"]
    for given, message in (
        ([f"{two},{one}"], f"{two}: was computed of another checkpoint than {models[0]}, checkpoint_last.pt (sha256 "),
        ([f"{one},{two}", "--weights", "ema"], f"{one}: was computed of the model weights, and the ema weights are merged"),
        ([",".join(statistics["gram"])], "has statistics of kind gram, expected fisher"),
        ([f"{one},{own}"], f"{own}: was computed with answers table, but {one} with model"),
        ([one], "must be 2 files, one per model, got 1"),
        ([f"{one},{models[1]}"], f"{models[1]}: expected a file of `unival statistics`"),
    ):
        assert merge(*models, "--method", "fisher", "--out", tmp_path / "out.pt", "--statistics", *given) == 1
        error = capsys.readouterr().err
        assert message in error and error.count("\n") == 1, error
    assert merge(*models, "--method", "fisher", "--out", one, "--statistics", f"{one},{two}", "--force") == 1
    assert f"--out {one} is an input itself" in capsys.readouterr().err
    for given, message in (
        (["--kind", "fish", "--out", "x"], "unknown --kind 'fish', did you mean 'fisher'?"),
        (["--kind", "gram", "--out", one], f"--out {one} exists; --force overwrites it"),
        (["--kind", "gram", "--out", "x", "--rows", "0"], "--rows 0: must be at least 1"),
        (["--kind", "gram", "--out", models[0], "--force"], "is an input itself"),
    ):
        assert main(["statistics", models[0], "--table", table, *given]) == 1
        error = capsys.readouterr().err
        assert message in error and error.count("\n") == 1, error


def test_statistics_of_a_table_that_has_changed_are_refused(place, tmp_path, capsys):
    """Whatever the model; a table that is not there any more cannot be compared."""
    models, table = [checkpoint(place, "one"), checkpoint(place, "two")], place / "data" / "later.jsonl"
    whole = (place / "data" / "train.jsonl").read_text().splitlines(keepends=True)
    table.write_text(whole[0])
    made = [tmp_path / f"{number}.safetensors" for number in range(2)]
    for model, file in zip(models, made, strict=True):
        assert main(["statistics", model, "--kind", "gram", "--table", str(table), "--out", str(file)]) == 0
    given = ["--method", "regmean", "--statistics", ",".join(map(str, made))]
    assert merge(*models, *given, "--out", tmp_path / "first.pt") == 0
    table.write_text(whole[1])
    assert merge(*models, *given, "--out", tmp_path / "second.pt") == 1
    error, then, now = capsys.readouterr().err, *(hashlib.sha256(row.encode()).hexdigest()[:12] for row in whole[:2])
    expected = f"{made[0]}: was computed on {table}, which has changed since (sha256 {then} then, {now} now); `unival statistics` computes"
    assert expected in error and error.count("\n") == 1
    table.unlink()
    assert merge(*models, *given, "--out", tmp_path / "third.pt") == 0


def test_coefficients_are_learnt_on_tables(place, tmp_path, capsys):
    """--method adamerging: the formula with the coefficients that the file records; the result is used as any other."""
    models, table, out = [checkpoint(place, "one"), checkpoint(place, "two")], str(place / "data" / "train.jsonl"), tmp_path / "merged.pt"
    given = ["--method", "adamerging", "--base", checkpoint(place, "base"), "--tables", f"{table},{table}"]
    assert merge(*models, *given, "--steps", "2", "--rate", "0.1", "--tokens", "2", "--batch-size", "2", "--rows", "4", "--out", out) == 0
    said = capsys.readouterr().out.splitlines()
    assert said[0].startswith("entropy ") and "; coefficients: " in said[0] and said[1].startswith(f"{out}: adamerging, per layer, ")
    made = read(out)["extra_state"]["converted_from"]
    learnt = made["learnt"]
    assert learnt["rows"] == [4, 4] and made["options"]["steps"] == 2 and made["coefficients"] is None
    assert learnt["coefficients"]["encoder.layers.0"] != learnt["coefficients"]["decoder.layers.0"]
    (base, one, two), found = states(place, "base", "one", "two"), read(out)["model"]
    for key, group in (("encoder.layers.0.fc1.weight", "encoder.layers.0"), ("decoder.layers.0.fc2.weight", "decoder.layers.0")):
        a, b = learnt["coefficients"][group]
        assert {a, b} & {0.3} == set() and 0 <= min(a, b) <= max(a, b) <= 0.51
        torch.testing.assert_close(found[key], base[key] + a * (one[key] - base[key]) + b * (two[key] - base[key]), rtol=1e-4, atol=1e-6)
    assert from_checkpoint(out).caption(str(place / "data" / "images" / "train.jsonl-0.png"), beam=1, max_len_b=3)


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
        (["--rows", "5"], "--rows is for --recalibrate and --tables; leave it out"),
        (["--recalibrate", "TABLE", "--rows", "0"], "--rows 0: must be at least 1"),
        (["--passes", "3"], "--passes is for --recalibrate; leave it out"),
        (["--recalibrate", "TABLE,TABLE,TABLE"], "expected one table, or one per model (2), got 3"),
        (["--recalibrate", "none.jsonl"], "there is no table none.jsonl"),
        (["--recalibrate", "TABLE", "--device", "abacus"], "device 'abacus' cannot be used"),
        (["--method", "fisher"], "--method fisher needs statistics of the models on data: give --statistics, files of `unival statistics"),
        (["--method", "adamerging", "--base", "one"], "--method adamerging needs a table of each model's task, 2 with commas between"),
        (["--method", "adamerging", "--base", "one", "--tables", "TABLE,none.jsonl"], "there is no table none.jsonl"),
        (["--method", "adamerging", "--base", "one", "--tables", "TABLE,TABLE", "--per", "row"], "--per row: there are task, layer, "),
        (["--tables", "TABLE,TABLE"], "--tables is not used by --method linear; leave it out"),
        (["--statistics", "one,one"], "--statistics is not used by --method linear; leave it out"),
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
