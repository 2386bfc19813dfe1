"""Presets are data: this package's, and those of somebody else's plugin."""

import copy
import json
import logging
import pickle
import sys

import pytest
from fairseq.tasks import TASK_REGISTRY
from fairseq_cli import generate, train

from tests import runs, tiny
from tests.tasks.test_task import config
from unival.errors import UserError
from unival.hub import from_checkpoint
from unival.metrics import METRICS
from unival.metrics.score import read_generated
from unival.tasks import Preset, UnivalTask, register_preset
from unival.tasks.presets import ANY, PRESETS

PLUGIN = """
from unival.tasks import Preset, register_preset

register_preset(
    Preset(
        "unival_theirs",
        instruction="what is on [IMAGE:picture]? -> [TEXT:answer]",
        metrics=("exact_match",),
        generation={"beam": 2, "max_len_b": 3},
        tsv_columns=("picture", "answer"),
        tsv_selected="2,1",
    )
)
"""


def run_fairseq(monkeypatch, command, *arguments):
    """One of fairseq's own commands, in this process."""
    monkeypatch.setattr(sys, "argv", [f"fairseq-{command.__name__}", *map(str, arguments)])
    try:
        command.cli_main()
    finally:
        runs.forget_run()


def test_a_preset_of_another_plugin_trains_and_generates(tmp_path, monkeypatch, caplog):
    caplog.set_level(logging.INFO)
    data, out, plugin = tmp_path / "data", tmp_path / "out", tmp_path / "their_benchmark"
    for folder in (plugin, out):
        folder.mkdir()
    (plugin / "__init__.py").write_text(PLUGIN)
    rows = [json.loads(line) for line in tiny.write_table(data, 4).read_text().splitlines()]
    for split in ("train", "valid"):  # columns by the preset: number, answer, picture
        (data / f"{split}.tsv").write_text("".join(f"{i}\t{row['caption'][0]}\t{row['image']}\n" for i, row in enumerate(rows)))
    (data / "train.jsonl").unlink()
    tiny.vocabulary(data / "vocab", 0, 0)
    theirs = ["--user-dir", plugin, "--task", "unival_theirs"]
    chosen = ["--best-checkpoint-metric", "exact_match", "--batch-size", "2", "--max-update", "1"]
    run_fairseq(monkeypatch, train, *runs.train_flags(data, out), *theirs, *chosen)
    assert "valid_exact_match" in caplog.text
    own = [data, *theirs, *runs.CPU, "--num-codes", "0", "--num-bins", "0", "--path", out / "checkpoint_last.pt"]
    own += ["--batch-size", "3", "--max-len-b", "3", "--scoring", "unival", "--results-path", out]
    run_fairseq(monkeypatch, generate, *own, "--gen-subset", "valid", "--beam", "2")
    written = (out / "generate-valid.txt").read_text()
    assert "exact_match" in written.splitlines()[-1] and len(read_generated(out / "generate-valid.txt")) == 4

    model = from_checkpoint(out / "checkpoint_last.pt")
    assert model.task.preset.name == "unival_theirs" and model.media_instruction()[1] == "picture"
    pictures = [str(data / row["image"]) for row in rows]
    said = [text for text, _ in (read_generated(out / "generate-valid.txt")[row] for row in range(4))]
    assert model.caption(pictures) == said
    sent = pickle.dumps(model)
    del TASK_REGISTRY["unival_theirs"]  # as in a process that was started afresh
    from fairseq.tasks import TASK_CLASS_NAMES

    TASK_CLASS_NAMES.remove("UnivalTheirsTask")
    assert pickle.loads(sent).caption(pictures) == said


def test_every_preset_is_a_task_whose_parts_exist(tmp_path):
    vocabulary = tiny.vocabulary(tmp_path)
    for name, preset in PRESETS.items():
        task = TASK_REGISTRY[name](config(), vocabulary, ["yes"])
        assert task.preset is preset and preset.name == name and set(preset.metrics) <= set(METRICS)
        assert vars(task.generation_options()) == {**preset.generation}
        assert copy.deepcopy(task).instructions == task.instructions and type(copy.copy(task)) is type(task)
    assert type(task) is not UnivalTask and TASK_REGISTRY["unival"] is UnivalTask and PRESETS["unival"] is ANY


def test_a_preset_is_registered_once_and_another_of_its_name_refused():
    class Louder(UnivalTask):
        """Hooks of its own."""

    preset = Preset("unival_test_once", instruction="[TEXT:q] -> [TEXT:a]")
    cls = register_preset(preset, Louder)
    assert register_preset(preset, Louder) is cls and issubclass(cls, Louder)
    with pytest.raises(UserError, match="'unival_test_once' is registered already"):
        register_preset(Preset("unival_test_once"))
    del TASK_REGISTRY["unival_test_once"], PRESETS["unival_test_once"]
