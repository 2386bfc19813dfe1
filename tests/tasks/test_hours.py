"""``--stop-time-hours`` is the limit of a run: hours of a checkpoint that it takes weights from do not count, its own do."""

import pytest
import torch

from tests import runs, tiny
from tests.test_training import state

FLAGS = ("--batch-size", "2", "--skip-checks", "--disable-validation", "--stop-time-hours", "1")


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return tiny.write_data(tmp_path_factory.mktemp("data"), train=6, valid=2)


@pytest.fixture(scope="module")
def start(data, tmp_path_factory):
    """A checkpoint that was trained for two hours, by what it says."""
    out = tmp_path_factory.mktemp("start")
    assert runs.train(data, out, *FLAGS, "--max-update", "1") == 0
    return out, trained_for(out / "checkpoint_last.pt", 2)


def trained_for(path, hours):
    container = state(path)
    container["extra_state"]["previous_training_time"] = hours * 3600.0
    torch.save(container, path)
    return path


def updates(out):
    return state(out / "checkpoint_last.pt")["optimizer_history"][-1]["num_updates"]


@pytest.mark.parametrize("option", ["--finetune-from-model", "--continue-once"])
def test_a_new_run_has_its_whole_limit_and_a_resumed_one_what_is_left(option, data, start, tmp_path):
    out = tmp_path / "out"
    begun = updates(start[0]) if option == "--continue-once" else 0
    for target in (2, 3):
        assert runs.train(data, out, *FLAGS, option, str(start[1]), "--max-update", str(begun + target)) == 0
        assert updates(out) == begun + target
    trained_for(out / "checkpoint_last.pt", 2 + 1.1)  # 1.1 of its own
    assert runs.train(data, out, *FLAGS, option, str(start[1]), "--max-update", str(begun + 9)) == 0
    assert updates(out) == begun + 4, "it stops after its next update"


def test_a_run_that_goes_on_counts_its_hours(data, start, tmp_path):
    assert runs.train(data, tmp_path, *FLAGS, "--restore-file", str(start[1]), "--max-update", "9") == 0
    assert updates(tmp_path) == updates(start[0]) + 1
