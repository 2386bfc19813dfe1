"""What a stage logs of its streams, and how their losses are put together."""

import types

import pytest
from fairseq.logging import progress_bar

from tests import runs
from tests.tasks.pretraining import material
from unival.criterions.weighting import Weighting

KEYS = ("loss", "nll_loss", "accuracy", "ntokens", "nsentences", "time_share")
NAMES = ("captions", "questions")


def test_values_of_streams_reach_every_log(tmp_path, monkeypatch):
    """JSON lines, TensorBoard and Weights & Biases, of which the last two are no part of the environment; 4 rows of each stream."""
    written, batches = {"TensorBoard": set(), "Weights & Biases": set()}, []

    def note(which):
        return lambda name, *rest, **more: written[which].add(name)

    board = types.SimpleNamespace(add_scalar=note("TensorBoard"), add_text=print, flush=print, close=print)
    biases = types.SimpleNamespace(init=dict, config={}, log=lambda values, step: written["Weights & Biases"].update(values))
    monkeypatch.setattr(progress_bar, "SummaryWriter", lambda folder: board)
    monkeypatch.setattr(progress_bar, "_tensorboard_writers", {})
    monkeypatch.setattr(progress_bar, "wandb", biases)
    weigh = Weighting.__call__
    monkeypatch.setattr(Weighting, "__call__", lambda self, sample, kept, dtype: batches.append(sample) or weigh(self, sample, kept, dtype))
    material.write_tables(tmp_path, captions=4)
    flags = ["--loss-normalization", "stream", "--scale-by-candidates", "--report-accuracy", "--batch-size", "3", "--max-epoch", "1"]
    flags += ["--disable-validation", "--skip-checks", "--no-save", "--tensorboard-logdir", "board", "--wandb-project", "unival"]
    assert material.train(material.write_mixture(tmp_path), tmp_path / "out", *flags) == 0
    lines = runs.log_lines(tmp_path / "out", "loss/captions")
    (epoch,) = runs.log_lines(tmp_path / "out", "train_loss/captions")
    for name in NAMES:
        for key in KEYS:
            assert all(f"{key}/{name}" in line for line in lines), key
            assert f"{key}/{name}" in written["TensorBoard"] and f"train/{key}/{name}" in written["Weights & Biases"]
        assert float(epoch[f"train_nsentences/{name}"]) == 4
    assert sum(float(epoch[f"train_time_share/{name}"]) for name in NAMES) == pytest.approx(1, abs=1e-3)
    tokens = sum(float(epoch[f"train_ntokens/{name}"]) for name in NAMES)
    assert tokens == pytest.approx(float(epoch["train_wpb"]) * float(epoch["train_num_updates"]))
    for batch in batches:
        assert batch["num_candidates"].tolist() == [len(material.ANSWERS) * number for number in batch["stream"].tolist()]
