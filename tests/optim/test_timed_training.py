"""The schedule in fairseq's own training: where a run ends, and that a resumed one ends with the same bits."""

import pytest
import torch

from tests import runs, tiny
from unival.cli import main


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    for seed, split in enumerate(("train", "valid")):
        tiny.write_table(folder, rows=12 if split == "train" else 3, name=f"{split}.jsonl", seed=seed)
    tiny.vocabulary(folder / "vocab", num_codes=0, num_bins=0)
    return folder


def train(data, out, *flags):
    """A run with the schedule, three updates an epoch, without validation."""
    arguments = runs.train_flags(data, out, "--lr-scheduler", "unival_timed", "--warmup-updates", "2", *flags)
    start = arguments.index("polynomial_decay") - 1
    del arguments[start : start + 4]  # the other schedule and its length
    out.mkdir(exist_ok=True)
    try:
        return main(["train", *arguments, "--batch-size", "4", "--disable-validation"])
    finally:
        runs.forget_run()


def test_a_run_ends_with_its_decay_and_resumes_bit_for_bit(data, tmp_path):
    whole, resumed = tmp_path / "whole", tmp_path / "resumed"
    saving = ("--save-interval-updates", "8", "--keep-interval-updates", "-1")
    assert train(data, whole, "--max-update", "10", "--decay-updates", "3", *saving) == 0
    rates = {int(line["num_updates"]): float(line["lr"]) for line in runs.log_lines(whole, "ups")}
    assert rates == pytest.approx({1: 5e-4, **dict.fromkeys(range(2, 8), 1e-3), 8: 2e-3 / 3, 9: 1e-3 / 3, 10: 0}, rel=1e-4)
    assert {line.get("last_update") for line in runs.log_lines(whole, "ups")} == {None, "10"}, "known from the seventh update on"
    saved = next(whole.glob("checkpoint_*_8.pt"))
    # within the decay what is left of the run follows from the checkpoint: other options decide nothing
    assert train(data, resumed, "--restore-file", str(saved), "--planned-minutes", "99", "--decay-updates", "50") == 0
    ends = [torch.load(out / "checkpoint_last.pt", weights_only=True) for out in (whole, resumed)]
    assert [end["optimizer_history"][-1]["num_updates"] for end in ends] == [10, 10]
    for name, value in ends[0]["model"].items():
        assert torch.equal(value, ends[1]["model"][name]), name
    # a finished run that is started again makes no further update
    assert train(data, whole, "--planned-minutes", "99") == 0
    again = torch.load(whole / "checkpoint_last.pt", weights_only=True)
    assert again["optimizer_history"][-1]["num_updates"] == 10
