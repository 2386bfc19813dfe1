"""``unival sweep``: its scores are those of merged files, it goes on where it was stopped, and it chooses in validation."""

import json
import math

import pytest
import torch
from PIL import Image

from tests import runs, tiny
from unival.checkpoints.files import read
from unival.cli import main
from unival.criterions.label_smoothed import LabelSmoothedConfig, LabelSmoothedCriterion
from unival.data.stream import Stream
from unival.hub import from_checkpoint
from unival.tasks.sweeping.results import of_one_sweep, read_results
from unival.tasks.sweeping.table import EvaluatedTable

FLAGS = ["--batch-size", "4", "--disable-validation", "--skip-checks", "--eval-args", '{"beam": 2, "max_len_b": 5}']
DECODING = ["--beam", "2", "--max-len-b", "5", "--no-repeat-ngram-size", "3"]


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A trained model, and two models whose weights are near it; tables for testing and validation."""
    folder = tmp_path_factory.mktemp("sweep")
    tiny.write_data(folder / "data", 8, 3)
    tiny.write_table(folder / "data", 3, name="test.jsonl", seed=2)
    assert runs.train(folder / "data", folder / "base", *FLAGS, "--max-update", "1") == 0
    container = torch.load(checkpoint(folder, "base"), weights_only=True)
    for name, seed in (("one", 1), ("two", 2)):
        torch.manual_seed(seed)
        state = {key: value.clone() for key, value in container["model"].items()}
        for key in [key for key, value in state.items() if value.is_floating_point()]:
            noise = torch.rand_like(state[key]) if key.endswith("running_var") else torch.randn_like(state[key])
            state[key].add_(0.1 * noise)
        for key in ("decoder.embed_tokens.weight", "decoder.output_projection.weight"):
            if key in state:
                state[key] = state["encoder.embed_tokens.weight"]
        (folder / name).mkdir()
        torch.save({**container, "model": state}, checkpoint(folder, name))
    table = folder / "data" / "test.jsonl"  # with what the first model says of two rows, so that scores are not 0
    rows = [json.loads(line) for line in table.read_text().splitlines()]
    images = [folder / "data" / row["image"] for row in rows]
    said = from_checkpoint(checkpoint(folder, "one")).caption(images, beam=2, max_len_b=5, no_repeat_ngram_size=3)
    table.write_text("".join(json.dumps({**row, "caption": text}) + "\n" for row, text in zip(rows, [*said[:2], "a blue"], strict=True)))
    return folder


@pytest.fixture
def undrawn(monkeypatch):
    """Without figures, which take longer than the sweeps of these tests."""
    monkeypatch.setattr("unival.commands.sweep.write", lambda *given: [])


def checkpoint(place, name):
    return str(place / name / "checkpoint_last.pt")


def sweep(place, out, *arguments):
    models = [checkpoint(place, "one"), checkpoint(place, "two")]
    tables = ["--table", f"captions={place / 'data' / 'test.jsonl'}", "--valid", f"captions={place / 'data' / 'valid.jsonl'}"]
    return main(["sweep", *models, *tables, "--out", str(out), "--resamples", "20", *map(str, arguments)])


def lines(out):
    return [json.loads(line) for line in (out / "results.jsonl").read_text().splitlines()]


def test_scores_are_those_of_the_merged_file(place, undrawn, tmp_path, capsys):
    assert sweep(place, tmp_path, "--points", "0,0.25,1") == 0, capsys.readouterr().err
    said = capsys.readouterr().out
    found = {(line["part"], line["point"]): line["measured"] for line in lines(tmp_path)}
    assert list(found) == [(part, point) for point in ("0", "0.25", "1") for part in ("valid", "test")]
    losses = {measured["scores"]["loss"] for measured in found.values()}
    assert len(losses) == 6
    merged = tmp_path / "merged.pt"
    assert main(["merge", checkpoint(place, "one"), checkpoint(place, "two"), "--lambda", "0.25", "--out", str(merged)]) == 0
    for path, point in ((merged, "0.25"), (checkpoint(place, "one"), "0")):
        texts = runs.generate(place / "data", path, tmp_path / point, "test", *DECODING)
        scores = tmp_path / f"{point}.json"
        command = ["score", texts, "--table", place / "data" / "test.jsonl", "--resamples", "20", "--json", scores]
        assert main(list(map(str, command))) == 0
        expected = json.loads(scores.read_text())
        assert expected["cider"] > 1 or point == "0.25"
        intervals = expected.pop("intervals")
        measured = found["test", point]
        assert {name: value for name, value in measured["scores"].items() if name != "loss"} == pytest.approx(expected, abs=1e-12)
        assert {name: value for name, value in measured["intervals"].items() if name != "loss"} == intervals
    assert "chosen for captions: lambda" in said


def loss_of(path, table):
    """The loss of a checkpoint in bits per token as the criterion logs it, and the number of tokens."""
    model = from_checkpoint(path)
    dataset = model.task.build_dataset(model.task.open_table(table))
    sample = model.task.with_limits(dataset.collater([dataset[row] for row in range(len(dataset))]))
    criterion = LabelSmoothedCriterion(model.task, LabelSmoothedConfig(sentence_avg=False)).eval()
    with torch.no_grad():
        _, tokens, logged = criterion(model.model, sample)
    return float(logged["nll_loss"]) / tokens / math.log(2), tokens


def test_loss_is_that_of_validation(place, undrawn, tmp_path, capsys):
    """At an end, and of models in half precision with recalibrated batch norms in the middle, as `unival merge` rounds and recalibrates."""
    ends = [checkpoint(place, "one"), checkpoint(place, "two")]
    table, other = place / "data" / "test.jsonl", place / "data" / "train.jsonl"
    loss = ["--set", "captions.eval_metrics="]
    assert sweep(place, tmp_path, "--points", "1", *loss) == 0
    (valid, test) = lines(tmp_path)
    assert valid["metric"] == "loss" and set(test["measured"]["scores"]) == {"loss"}
    expected, tokens = loss_of(checkpoint(place, "two"), table)
    assert test["measured"]["scores"]["loss"] == pytest.approx(expected, rel=1e-5)
    assert sum(test["measured"]["tokens"]) == tokens
    norms = ["--recalibrate", str(other), "--rows", "5", "--passes", "3"]
    models, out = [str(tmp_path / f"half-{end}.pt") for end in "01"], str(tmp_path / "merged.pt")
    assert main(["merge", *ends, "--sweep", "0,1", "--half", "--out", str(tmp_path / "half-{}.pt")]) == 0
    halves = [*models, "--table", f"captions={table}", "--points", "0.25,0.5", *loss, *norms, "--out", str(tmp_path / "norms")]
    assert main(["sweep", *halves]) == 0, capsys.readouterr().err
    assert main(["merge", *models, "--lambda", "0.5", *norms, "--out", out]) == 0, capsys.readouterr().err
    assert read(out)["model"]["encoder.embed_tokens.weight"].dtype == torch.float16
    found = lines(tmp_path / "norms")[-1]["measured"]["scores"]["loss"]
    assert found == pytest.approx(loss_of(out, table)[0], rel=1e-6)
    assert main(["merge", *models, "--lambda", "0.5", "--float", "--out", out, "--force"]) == 0
    assert found != pytest.approx(loss_of(out, table)[0], rel=1e-4), "without recalibration it is another"


def test_it_goes_on_where_it_was_stopped(place, undrawn, tmp_path, capsys, monkeypatch):
    """Results are kept; one that was cut short while it was written is made again, as are those of inputs that changed."""
    read, evaluated = [], []
    original, measure = Stream.read, EvaluatedTable.evaluate
    monkeypatch.setattr(Stream, "read", lambda self, row: read.append(row) or original(self, row))

    def stopped(self, *args):
        evaluated.append(self.spec.part)
        if len(evaluated) == 4:
            raise KeyboardInterrupt
        return measure(self, *args)

    monkeypatch.setattr(EvaluatedTable, "evaluate", stopped)
    loss = ["--set", "captions.eval_metrics=", "--points", "0,0.5,1", "--media-memory", "0"]
    assert sweep(place, tmp_path, *loss) == 130
    assert len(read) == 6, "media are decoded once, whatever the number of points"
    assert f"3 of 6 results are in {tmp_path / 'results.jsonl'}; the same command goes on" in capsys.readouterr().err
    before = (tmp_path / "results.jsonl").read_bytes()
    assert before.count(b"\n") == 3
    (tmp_path / "results.jsonl").write_bytes(before[:-30])
    assert sweep(place, tmp_path, *loss) == 0
    output = capsys.readouterr()
    assert "2 results of 6" in output.err and len(evaluated) == 4 + 4
    assert (tmp_path / "results.jsonl").read_bytes().startswith(before)
    assert sweep(place, tmp_path, *loss) == 0
    assert capsys.readouterr().out == output.out and len(evaluated) == 8
    assert sweep(place, tmp_path, *loss, "--batch-size", "2", "--set", "captions.max_tgt_length=2") == 0
    error = capsys.readouterr().err
    assert "results of other inputs (changed: options of the table, media)" in error and len(evaluated) == 14
    assert sweep(place, tmp_path, "--set", "captions.eval_metrics=", "--points", "0,0.25") == 0
    results = read_results(tmp_path / "results.jsonl")
    assert len(results) == 8 and {result.point for result in of_one_sweep(results)} == {"0", "0.25"}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--valid", "questions=a.jsonl"], "--valid questions=a.jsonl: unknown table 'questions'; choose from captions"),
        (["--of", "captions=three.pt"], "--of captions=three.pt: must be one of the models"),
        (["--metric", "captions=accuracy"], "--metric captions=accuracy: scores of this table are cider, "),
        (["--set", "captions.colour=red"], "unknown option of table captions 'colour'"),
        (["--set", "captions.num_bins=many"], "--set captions.num_bins=many: "),
        (["--set", "captions.task=translation"], "unknown task of table captions 'translation'"),
        (["--points", "0:1"], "must be FROM:TO:STEP"),
        (["--batch-size", "0"], "--batch-size 0: must be 1 or more"),
    ],
)
def test_mistakes_are_one_line(place, tmp_path, capsys, arguments, message):
    assert sweep(place, tmp_path, *arguments) == 1
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1
    assert not list(tmp_path.iterdir())


def test_two_tables_are_drawn_against_each_other(place, tmp_path, capsys):
    """Each is evaluated as the model that it names; what validation chooses is scored apart; several sweeps go into one report."""
    data, models = place / "data", [checkpoint(place, "one"), checkpoint(place, "two")]
    tables = ["--table", f"first={data / 'test.jsonl'}", "--table", f"second={data / 'train.jsonl'}"]
    tables += ["--valid", f"first={data / 'valid.jsonl'}", "--valid", f"second={data / 'test.jsonl'}"]
    changes = [f"{name}.eval_metrics=" for name in ("first", "second")]
    changes += ["second.instruction=what is this? [IMAGE:image] -> [TEXT:caption]"]
    flags = [argument for change in changes for argument in ("--set", change)]
    for method, points in (("linear", "0,0.5,1"), ("slerp", "0,0.5,1")):
        out = ["--out", str(tmp_path / method), "--method", method, "--points", points, "--of", f"second={models[1]}"]
        assert main(["sweep", *models, *tables, *flags, *out]) == 0, capsys.readouterr().err
    said = capsys.readouterr().out
    found = [json.loads(line) for line in (tmp_path / "linear" / "results.jsonl").read_text().splitlines()]
    scores = {(line["table"], line["part"], line["point"]): line["measured"]["scores"]["loss"] for line in found}
    assert scores["second", "valid", "0.5"] != scores["first", "test", "0.5"], "the same rows through two instructions"
    for table in ("first", "second"):
        best = min(("0", "0.5", "1"), key=lambda point: scores[table, "valid", point])
        line = next(line for line in said.splitlines() if line.startswith(f"chosen for {table}: "))
        assert line.startswith(f"chosen for {table}: lambda {best} (validation: loss {scores[table, 'valid', best]:.4f})")
        assert f"test: {table} loss {scores[table, 'test', best]:.4f} [" in line
    assert "chosen for all tables: lambda " in said
    out = tmp_path / "both"
    files = [f"--sweep={method}={tmp_path / method / 'results.jsonl'}" for method in ("linear", "slerp")]
    assert main(["report", "--out", str(out), "--title", "Two <paths>", *files]) == 0, capsys.readouterr().err
    for folder in (out, tmp_path / "linear"):
        with Image.open(folder / "curves.png") as picture:
            assert picture.width > 1000 and len(picture.getcolors(256) or []) > 10
    page = (out / "report.html").read_text()
    assert "Two &lt;paths&gt;" in page and page.count("<h2>") == 3 and f"{scores['second', 'test', '0.5']:.4f}" in page
    assert main(["report", "--out", str(out), *files, "--log", "a.jsonl"]) == 1
    assert "--log: is not for the report of sweeps" in capsys.readouterr().err


def test_barrier(place, tmp_path, capsys):
    """Between a model and itself there is none; what the checkpoints say of their kinship is told, and what they do not say, too."""
    table = ["--table", str(place / "data" / "test.jsonl"), "--resamples", "30"]
    one = checkpoint(place, "one")
    assert main(["barrier", one, one, *table, "--points", "0,0.5,1"]) == 0, capsys.readouterr().err
    said = capsys.readouterr().out
    assert "\nbarrier 0.0000 [0.0000, 0.0000] at lambda 0: max over lambda of L(lambda)" in said and "Frankle et al. 2020" in said
    assert "no common ancestor is recorded" in said and "a cosine of 1.000 and a distance of 0 times" in said
    container = torch.load(one, weights_only=True)
    torch.manual_seed(5)
    for value in {id(v): v for v in container["model"].values() if v.dim() == 2}.values():
        value.normal_(std=0.3)
    container["cfg"]["checkpoint"]["finetune_from_model"] = "pretrained.pt"
    other = tmp_path / "other.pt"
    torch.save(container, other)
    out = ["--out", str(tmp_path / "out"), "--json", str(tmp_path / "found.json")]
    assert main(["barrier", one, str(other), *table, "--points", "0,0.5,1", *out]) == 0, capsys.readouterr().err
    said = capsys.readouterr().out
    assert "they do not share one pretraining, as far as weights can show" in said and "permutation of hidden units" in said
    found = json.loads((tmp_path / "found.json").read_text())["tables"]["test"]
    results = [json.loads(line)["measured"]["scores"]["loss"] for line in (tmp_path / "out" / "results.jsonl").read_text().splitlines()]
    assert found["losses"] == pytest.approx(results) and found["rows"] == 3
    assert found["height"] == pytest.approx(max(0.0, results[1] - (results[0] + results[2]) / 2))
    with Image.open(tmp_path / "out" / "barrier.png") as picture:
        assert picture.width > 400
    assert main(["barrier", one, str(other), *table, "--points", "0,0.5"]) == 1
    assert "--points 0,0.5: must rise from 0 to 1" in capsys.readouterr().err


def test_experts_are_selected_in_validation(place, undrawn, tmp_path, capsys):
    """--select N takes the best models, --select greedy those that make the average better: as their losses say, which `sweep` measures."""
    models = [checkpoint(place, name) for name in ("base", "one", "two")]
    table = ["--valid", str(place / "data" / "valid.jsonl"), "--set", "eval_metrics="]
    out = ["--out", str(tmp_path / "sweep"), "--points", "0,0.5,1", "--set", "a.eval_metrics="]
    out += ["--table", f"a={place / 'data' / 'valid.jsonl'}"]
    assert main(["sweep", *models, *out]) == 0, capsys.readouterr().err
    losses = {line["point"]: line["measured"]["scores"]["loss"] for line in lines(tmp_path / "sweep")}
    alone = {models[i]: losses[point] for i, point in enumerate(("1,0,0", "0,1,0", "0,0,1"))}
    best = sorted(alone, key=alone.get)
    chosen = tmp_path / "chosen.pt"
    assert main(["merge", *models, "--select", "2", *table, "--out", str(chosen)]) == 0, capsys.readouterr().err
    said = capsys.readouterr().out
    expected = [model for model in models if model in best[:2]]
    assert f"selected 2 models of 3: {', '.join(expected)}\n" in said and f"{best[0]}: loss {alone[best[0]]:.4f} on " in said
    container = read(chosen)
    states = [read(path)["model"] for path in expected]
    key = "encoder.layers.0.self_attn.k_proj.weight"
    assert torch.allclose(container["model"][key], (states[0][key] + states[1][key]) / 2)
    about = container["extra_state"]["converted_from"]
    assert len(about["files"]) == 2 and about["selected"]["scores"] == pytest.approx(alone)
    assert main(["merge", *models, "--select", "greedy", *table, "--out", str(tmp_path / "greedy.pt")]) == 0
    said = capsys.readouterr().out
    places = [models.index(model) for model in best]
    pair = losses[",".join("0.5" if i in places[:2] else "0" for i in range(3))]
    kept = best[:2] if pair <= alone[best[0]] else best[:1]
    assert f"{best[0]} + {best[1]}: loss {pair:.4f} on " in said
    assert all(model in said.splitlines()[-2] for model in kept)
    assert main(["inspect", str(tmp_path / "greedy.pt")]) == 0
    assert "valid.jsonl among 3 models" in " ".join(capsys.readouterr().out.split())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--select", "2"], "--select 2: give --valid, the table on which the models are compared"),
        (["--select", "3", "--valid", "a.jsonl"], "--select 3: must be a number from 1 to 2, that of the models, or greedy"),
        (["--select", "1", "--valid", "a.jsonl", "--lambda", "0.5"], "--lambda is about all models, not with --select"),
        (["--select", "greedy", "--valid", "a.jsonl", "--method", "slerp"], "--select greedy is for --method linear: it averages models"),
        (["--select", "1", "--valid", "a.jsonl", "--method", "slerp"], "--method slerp takes 2 models, got 1"),
        (["--select", "1", "--valid", "a.jsonl", "--set", "closed_set"], "--set closed_set: must be OPTION=VALUE"),
        (["--metric", "cider"], "--metric is for --select; leave it out"),
    ],
)
def test_mistakes_of_selecting_are_one_line(place, tmp_path, capsys, arguments, message):
    models = [checkpoint(place, "one"), checkpoint(place, "two")]
    assert main(["merge", *models, "--out", str(tmp_path / "out.pt"), *arguments]) == 1
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1
