"""Moving averages of the weights: where they start, validation with them, the best as a checkpoint, resumed and repaired runs."""

import re
import shutil
from argparse import Namespace

import pytest
import torch

from tests import runs, tiny
from tests.test_training import assert_equal, state
from unival.checkpoints.files import ema_weights
from unival.cli import main
from unival.hub import from_checkpoint
from unival.tasks.averages import start_from_weights
from unival.tasks.restore import Start

DECAY = 0.75
KEYS = ("decoder.layers.0.fc1.weight", "encoder.media.image.backbone.bn1.running_mean")
FAST = ("--batch-size", "2", "--skip-checks", "--eval-args", '{"beam": 1, "max_len_b": 3}')
EMA = (*FAST, "--store-ema", "--ema-decay", str(DECAY), "--ema-fp32", "--validate-with", "both", "--save-interval-updates", "1")


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return tiny.write_data(tmp_path_factory.mktemp("data"), train=6, valid=2)


@pytest.fixture(scope="module")
def start(data, tmp_path_factory):
    """A checkpoint without an average, as the published recipe of VQA starts from."""
    out = tmp_path_factory.mktemp("start")
    assert runs.train(data, out, *FAST, "--max-update", "1", "--disable-validation") == 0
    return out / "checkpoint_last.pt"


@pytest.fixture(scope="module")
def trained(data, start, tmp_path_factory):
    """Three updates, each saved and validated with both."""
    out = tmp_path_factory.mktemp("trained")
    assert runs.train(data, out, *EMA, "--finetune-from-model", str(start), "--max-update", "3") == 0
    return out


def validated(capsys, data, path, *flags):
    """The loss by ``unival validate``."""
    capsys.readouterr()
    assert main(["validate", str(data), *runs.TASK, *runs.CPU, "--path", str(path), "--batch-size", "2", *flags]) == 0
    return float(re.search(r"valid: loss ([\d.]+)", capsys.readouterr().out)[1])


def test_the_average_starts_from_the_loaded_weights_and_follows_its_formula(start, trained):
    """``d * average + (1 - d) * weights`` after each update, for the statistics of batch norms, too."""
    saved = [state(trained / name) for name in ("checkpoint_1_1.pt", "checkpoint_1_2.pt", "checkpoint_last.pt")]
    for key in KEYS:
        average = state(start)["model"][key]
        for checkpoint in saved:
            average = DECAY * average + (1 - DECAY) * checkpoint["model"][key]
            torch.testing.assert_close(checkpoint["extra_state"]["ema_fp32_params"][key], average)
            assert not torch.equal(checkpoint["model"][key], average)
    assert saved[-1]["cfg"]["ema"]["store_ema"] is True


def test_both_are_validated_and_the_average_chooses_the_best(data, trained, capsys):
    """The scores of both, by one validation in training, are those that each has alone."""
    lines = runs.log_lines(trained, "valid_model_loss")
    assert len(lines) == 3 and {"valid_model_cider", "valid_model_ppl", "valid_cider", "valid_model_rouge_l"} <= lines[0].keys()
    logged = lines[-1]
    assert logged["valid_loss"] != logged["valid_model_loss"]
    last = trained / "checkpoint_last.pt"
    assert validated(capsys, data, last) == pytest.approx(float(logged["valid_model_loss"]), abs=2e-3)
    assert validated(capsys, data, last, "--weights", "ema") == pytest.approx(float(logged["valid_loss"]), abs=2e-3)
    best, average = state(trained / "checkpoint_best.pt"), state(trained / "checkpoint_best_ema.pt")
    scores = [float(line["valid_cider"]) for line in lines]
    assert best["extra_state"]["val_loss"] == pytest.approx(max(scores), abs=1e-3)
    assert_equal(average["model"], ema_weights(best))
    assert "ema" not in average["extra_state"] and average["last_optimizer_state"] is None


def test_the_average_loads_everywhere(data, start, trained, tmp_path, capsys):
    """In Python, in ``unival run`` and ``generate``; also as the start of another run with an average."""
    last = trained / "checkpoint_last.pt"
    average = ema_weights(state(last))
    assert_equal(dict(from_checkpoint(last, weights="ema").model.state_dict()), average)
    one = runs.generate(data, last, tmp_path / "one", "valid", "--weights", "ema").read_text()
    assert main(["convert", str(last), str(tmp_path / "average.pt"), "--ema"]) == 0
    other = runs.generate(data, tmp_path / "average.pt", tmp_path / "other", "valid").read_text()
    assert [line for line in one.splitlines() if line[:2] == "P-"] == [line for line in other.splitlines() if line[:2] == "P-"]
    flags = ("--restore-file", str(trained / "checkpoint_best_ema.pt"), "--reset-optimizer", "--reset-dataloader", "--reset-meters")
    assert runs.train(data, tmp_path / "next", *EMA, *flags, "--max-update", "1", "--disable-validation") == 0
    capsys.readouterr()
    assert main(["run", "--path", str(start), "--weights", "ema", str(data / "images" / "valid.jsonl-0.png")]) == 1
    assert "no EMA weights (it was trained without --store-ema)" in capsys.readouterr().err


def test_a_resumed_run_has_the_same_bits(data, start, trained, tmp_path):
    """From its second update; ``checkpoint_best_ema.pt``, before which a stop may come, is written then, also if nothing is left to do."""
    flags = (*EMA, "--finetune-from-model", str(start), "--max-update", "3")
    shutil.copy(trained / "checkpoint_1_2.pt", tmp_path / "checkpoint_last.pt")
    assert runs.train(data, tmp_path, *flags) == 0
    whole, resumed = state(trained / "checkpoint_last.pt"), state(tmp_path / "checkpoint_last.pt")
    for key in ("model", "last_optimizer_state"):
        assert_equal(whole[key], resumed[key], key)
    for key in ("ema", "ema_fp32_params"):
        assert_equal(whole["extra_state"][key], resumed["extra_state"][key], key)
    shutil.copy(trained / "checkpoint_best.pt", tmp_path / "checkpoint_best.pt")
    (tmp_path / "checkpoint_best_ema.pt").unlink(missing_ok=True)
    assert runs.train(data, tmp_path, *flags) == 0
    assert_equal(state(tmp_path / "checkpoint_best_ema.pt"), state(trained / "checkpoint_best_ema.pt"))


@pytest.mark.parametrize(("every", "warns"), [(1, False), (2, True), (3, False)])
def test_an_average_of_some_updates_that_goes_on_between_them_is_told(tmp_path, caplog, every, warns):
    """fairseq keeps no count of the updates since the last one of the average; this checkpoint is of the third update."""
    container = {"extra_state": {"ema": {"a": 1}}, "optimizer_history": [{"num_updates": 3}]}
    cfg = Namespace(store_ema=True, ema_update_freq=every, save_dir=str(tmp_path), checkpoint_suffix="")
    assert not start_from_weights(cfg, Start(tmp_path / "checkpoint_last.pt", container))
    assert ("is of update 3: fairseq counts the updates" in caplog.text) == warns
    caplog.clear()
    assert not start_from_weights(cfg, Start(tmp_path / "another.pt", container)) and not caplog.text  # a run of its own


def test_validation_with_an_average_needs_one(data, tmp_path, capsys):
    assert runs.train(data, tmp_path, *FAST, "--validate-with", "ema", "--max-update", "1") == 1
    assert "--validate-with ema: give --store-ema, too" in capsys.readouterr().err
