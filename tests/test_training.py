"""From a table to a trained, resumed, evaluated model, through fairseq's own commands."""

import json
import shutil

import pytest
import torch

from tests import runs, tiny
from tests.ranks import run_on_two_ranks
from unival.commands.score import read_references, score_file
from unival.data.table import open_table
from unival.hub import from_checkpoint
from unival.metrics.score import evaluate, read_generated

EMPTY = ["", " \t", "...", "?!"]  # nothing is left of these once they are tokenised


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Twelve training rows, seven validation rows (two of them with references that do not count), a vocabulary."""
    folder = tmp_path_factory.mktemp("data")
    tiny.write_table(folder, rows=12, name="train.jsonl")
    valid = tiny.write_table(folder, rows=7, name="valid.jsonl", seed=1)
    lines = list(map(json.loads, valid.read_text().splitlines()))
    for line in lines[1::3]:
        line["caption"] = [*line["caption"], *EMPTY]
    valid.write_text("".join(json.dumps(line) + "\n" for line in lines))
    tiny.vocabulary(folder / "vocab", num_codes=0, num_bins=0)
    return folder


@pytest.fixture(scope="module")
def trained(data, tmp_path_factory):
    """A run of nine updates over three epochs with validation after each epoch."""
    out = tmp_path_factory.mktemp("trained")
    evaluation = ("--eval-args", '{"unnormalized": true}')  # as the published recipes compare hypotheses
    assert runs.train(data, out, "--batch-size", "4", "--max-update", "9", *evaluation) == 0
    return out


def state(path):
    return torch.load(path, weights_only=True)


def assert_equal(a, b, where=""):
    """The same nested structure with the same bits."""
    assert type(a) is type(b), where
    if isinstance(a, torch.Tensor):
        assert torch.equal(a, b), where
    elif isinstance(a, dict):
        assert a.keys() == b.keys(), where
        for key in a:
            assert_equal(a[key], b[key], f"{where}.{key}")
    elif isinstance(a, list | tuple):
        assert len(a) == len(b), where
        for i, (x, y) in enumerate(zip(a, b, strict=True)):
            assert_equal(x, y, f"{where}[{i}]")
    else:
        assert a == b, where


def test_checkpoints_load_with_weights_only(trained):
    checkpoint = state(trained / "checkpoint_last.pt")
    assert checkpoint["task_state"]["vocabulary_files"].keys() == {"encoder.json", "vocab.bpe", "dict.txt"}
    assert checkpoint["optimizer_history"][-1]["num_updates"] == 9


def test_the_best_checkpoint_is_the_one_of_highest_cider(trained):
    scores = [float(line["valid_cider"]) for line in runs.log_lines(trained, "valid_cider")]
    assert len(scores) == 3
    best = state(trained / "checkpoint_best.pt")
    assert best["extra_state"]["val_loss"] == pytest.approx(max(scores), abs=1e-3)
    assert best["extra_state"]["best"] == pytest.approx(max(scores), abs=1e-3)


@pytest.mark.parametrize("stop", [4, 6], ids=["within an epoch", "between epochs"])
def test_a_resumed_run_equals_the_uninterrupted_one(data, trained, tmp_path, stop):
    """Dropout, stochastic depth, drawn captions, shuffling, Adam, schedule: every bit, after stopping at an update."""
    flags = ("--batch-size", "4", "--disable-validation")
    assert runs.train(data, tmp_path, *flags, "--max-update", str(stop)) == 0
    assert state(tmp_path / "checkpoint_last.pt")["optimizer_history"][-1]["num_updates"] == stop
    assert runs.train(data, tmp_path, *flags, "--max-update", "9") == 0
    whole, resumed = state(trained / "checkpoint_last.pt"), state(tmp_path / "checkpoint_last.pt")
    assert_equal(whole["model"], resumed["model"])
    assert_equal(whole["last_optimizer_state"], resumed["last_optimizer_state"])


def test_a_finished_run_that_is_started_again_makes_no_update(data, trained, tmp_path, capsys):
    """As a cluster's queue may start it."""
    shutil.copytree(trained, tmp_path / "again")
    before = {path.name: path.read_bytes() for path in (tmp_path / "again").glob("*.pt")}
    assert runs.train(data, tmp_path / "again", "--batch-size", "4", "--max-update", "9") == 0
    assert "has all updates of --max-update 9 (it has made 9): nothing is left to do" in capsys.readouterr().out
    assert {path.name: path.read_bytes() for path in (tmp_path / "again").glob("*.pt")} == before


def test_training_generation_and_python_give_the_same_scores(data, trained, tmp_path):
    """Validation, fairseq-generate + score (another batch size), and the Python API (one row at a time)."""
    validated = runs.log_lines(trained, "valid_cider")[-1]
    file = runs.generate(data, trained / "checkpoint_last.pt", tmp_path, "valid", "--unnormalized", "--scoring", "unival")
    generated = read_generated(file)
    table = open_table(data / "valid.jsonl")
    references = {i: [text for text in table[i]["caption"] if text not in EMPTY] for i in range(len(table))}
    scores = evaluate({i: text for i, (text, _) in generated.items()}, references, ["cider", "bleu", "rouge_l"])
    model = from_checkpoint(trained / "checkpoint_last.pt")
    images = [str(data / table[i]["image"]) for i in range(len(table))]
    assert model.caption(images) == [generated[i][0] for i in range(len(table))]
    outputs = [
        model.run("[IMAGE:image] what does the image describe? -> [TEXT:caption]", {"image": image})[0]
        for image in images
    ]
    for i, output in enumerate(outputs):
        assert output.text == generated[i][0]
        assert output.score * 1.4426950408889634 == pytest.approx(generated[i][1], abs=1e-4)  # fairseq prints base 2
    for name, score in scores.items():
        assert float(validated[f"valid_{name}"]) == pytest.approx(score, abs=1e-3), name  # logged with three decimals
    said = score_file(str(file), read_references(str(data / "valid.jsonl"), ["caption"]), ["cider", "bleu", "rouge_l"]).total
    assert said == pytest.approx(scores, abs=1e-12)
    assert f"cider {scores['cider']:.4f}, " in file.read_text() and f"rouge_l {scores['rouge_l']:.4f}" in file.read_text()


def test_learning_is_possible(data, tmp_path):
    """A few rows are learned by heart: the loss falls far below its start."""
    assert (
        runs.train(data, tmp_path, "--batch-size", "12", "--max-update", "60", "--disable-validation", "--lr", "5e-3")
        == 0
    )
    losses = [float(line["loss"]) for line in runs.log_lines(tmp_path, "gnorm")]
    assert losses[-1] < 0.6 * losses[0]


# Full batches, no randomness within the model, plain gradient descent: differences would show undamped.
SAME = [
    *(
        "--max-epoch",
        "3",
        "--freeze-batchnorm",
        "--dropout",
        "0",
        "--encoder-drop-path-rate",
        "0",
        "--decoder-drop-path-rate",
        "0",
    ),
    *("--optimizer", "sgd", "--momentum", "0", "--lr", "0.05", "--total-num-update", "1000000", "--clip-norm", "0"),
]


@pytest.mark.slow
def test_two_processes_equal_one_with_twice_the_batch(data, tmp_path):
    alone, both = tmp_path / "one", tmp_path / "two"
    both.mkdir()
    assert runs.train(data, alone, *SAME, "--batch-size", "12") == 0
    run_on_two_ranks(tmp_path, runs.train_flags(data, both, *SAME, "--batch-size", "6"))
    one, two = state(alone / "checkpoint_last.pt"), state(both / "checkpoint_last.pt")
    initial = tiny_initial(data, tmp_path)
    moved = 0.0
    for key, value in one["model"].items():
        torch.testing.assert_close(
            two["model"][key], value, rtol=1e-4, atol=1e-6, msg=lambda text, key=key: f"{key}: {text}"
        )
        moved = max(moved, float((value - initial[key]).abs().max()))
    assert moved > 1e-3  # the comparison is not between two untrained models
    for key in ("valid_cider", "valid_loss", "valid_bleu4"):
        a, b = runs.log_lines(alone, key)[-1][key], runs.log_lines(both, key)[-1][key]
        assert float(a) == pytest.approx(float(b), abs=2e-3), key


def tiny_initial(data, folder):
    """The weights that such a run starts from: one update at learning rate 0."""
    out = folder / "initial"
    flags = [flag if flag != "0.05" else "0.0" for flag in SAME]
    assert runs.train(data, out, *flags, "--batch-size", "12", "--max-update", "1", "--disable-validation") == 0
    return state(out / "checkpoint_last.pt")["model"]
