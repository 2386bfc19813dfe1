"""``--task unival_pretrain`` and ``curriculum.sh``: a mixture trains one model stage by stage, and goes on where it was killed."""

import os
import re
import shlex
import signal
import subprocess
import sys
import time

import pytest
import torch

from tests import runs
from tests.tasks.pretraining import material
from tests.test_run_scripts import ROOT, bash
from tests.test_training import assert_equal
from unival.checkpoints.recovery import newest, saved_files
from unival.cli import main
from unival.hub import from_checkpoint

SCRIPT = ROOT / "run_scripts" / "pretrain" / "curriculum.sh"
FLAGS = [*material.SMALL, "--save-interval-updates", "2", "--keep-interval-updates", "1", "--validate-interval-updates", "100"]


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A mixture file, and both of its stages trained without a stop, in ``whole``."""
    folder = tmp_path_factory.mktemp("mixture")
    material.write_tables(folder)
    material.write_mixture(folder, material.CURRICULUM)
    stages = material.commands(folder, "curriculum.sh", *FLAGS, **variables(folder, "whole"))
    assert len(stages) == 2
    for arguments in stages:
        assert material.run(arguments) == 0
    return folder


def variables(folder, out):
    return {"MIXTURE": folder / "mixture.yaml", "OUT": folder / out, "GPUS": 0}  # the vocabulary is in vocab/ beside the mixture


def test_a_stage_trains_and_validates_its_streams(place):
    out = place / "whole" / "2-b"
    lines = runs.log_lines(out, "train_loss", name="train.jsonl")
    assert len(lines) == 2
    for line in lines:
        assert all(float(line[f"train_loss/{name}"]) > 0 for name in ("captions", "questions", "texts")), line
    last = runs.log_lines(out, "valid_loss", name="train.jsonl")[-1]
    assert {"valid_captions/cider", "valid_questions/accuracy", "valid_best_captions/cider"} <= set(last), last
    assert float(lines[0]["train_lr"]) == pytest.approx(1e-3 * 16 / 19), "a schedule of five epochs of four updates"


def test_curriculum_is_killed_and_goes_on_with_the_same_bits(place):
    """Killed within the second stage; then the first stage ends at once, and the second goes on."""
    given = {name: str(value) for name, value in variables(place, "parts").items()}
    environment = {**os.environ, **given, "VIRTUAL_ENV": sys.prefix, "PYTHONPATH": str(ROOT)}
    last = place / "parts" / "2-b" / "checkpoint_last.pt"
    with (place / "first.log").open("w") as log:
        first = subprocess.Popen(["bash", SCRIPT, *FLAGS], env=environment, stdout=log, stderr=subprocess.STDOUT, start_new_session=True)
        until = time.monotonic() + 900  # three starts of Python, which a busy machine makes slow
        while not last.exists() and first.poll() is None and time.monotonic() < until:
            time.sleep(0.01)
        assert last.exists() and first.poll() is None, (place / "first.log").read_text()[-3000:]
        os.killpg(first.pid, signal.SIGKILL)
        first.wait()
    saved = newest(saved_files(last.parent)).updates
    assert 0 < saved < 8
    for arguments in material.commands(place, "curriculum.sh", *FLAGS, **variables(place, "parts")):
        assert material.run(arguments) == 0
    assert "--max-epoch 2 is reached: nothing is left to do" in (place / "parts" / "1-a" / "train.log").read_text()
    for name in ("1-a", "2-b"):
        one, other = (torch.load(place / run / name / "checkpoint_last.pt", weights_only=True) for run in ("whole", "parts"))
        for part in ("model", "last_optimizer_state"):
            assert_equal(one[part], other[part])
        weights = [state["extra_state"]["PretrainTask"]["stream_weights"] for state in (one, other)]
        assert weights[0] == weights[1] and weights[0]["epoch"] == 1


def test_its_checkpoints_are_those_of_any_model(place, tmp_path):
    path = place / "whole" / "2-b" / "checkpoint_last.pt"
    model = from_checkpoint(path)
    image = str(place / "images" / "valid.jsonl-0.png")
    assert len(model.caption([image])) == 1
    row = {"image": image, "question": "what?"}
    (asked,) = model.run("[IMAGE:image] [TEXT:question] -> [TEXT:answer,closed_set]", row, closed_set=["red"])
    assert asked.text == "red"
    (place / "data").mkdir()
    (place / "data" / "valid.jsonl").write_text((place / "valid.jsonl").read_text().replace("images/", f"{place}/images/"))
    assert runs.generate(place / "data", path, tmp_path).read_text().count("\nD-") >= 3


def test_weights_of_the_loss_follow_their_schedule(place):
    """In the first epoch nothing is learned of the texts, whose weight rises from 0 to 1 over two epochs."""
    state = torch.load(place / "whole" / "2-b" / "checkpoint_last.pt", weights_only=True)["extra_state"]["PretrainTask"]["stream_weights"]
    assert state["loss"] == [1.0, 1.0, 0.5]
    assert set(state["seen"]) == {"0", "1"} and state["seen"]["0"]["ntokens/texts"] > 0


def test_weights_among_the_rows_follow_their_schedule(place):
    """The weight of questions rises from 1 to 2; the first three updates of the stage move there from the captions alone."""
    state = torch.load(place / "whole" / "2-b" / "checkpoint_last.pt", weights_only=True)["extra_state"]["PretrainTask"]["stream_weights"]
    rows = [[state["seen"][epoch][f"nsentences/{name}"] for name in ("captions", "questions", "texts")] for epoch in "01"]
    assert sum(rows[0]) == sum(rows[1]) == 12 and rows[1] == [3, 6, 3], rows


def test_a_builder_for_all_streams_is_refused(place, tmp_path, capsys):
    assert material.train(place / "mixture.yaml", tmp_path, "--builder", "caption") == 1
    assert "--builder caption is not for a mixture" in capsys.readouterr().err


def test_an_unknown_stage_is_told_before_anything_is_made(place):
    given = {"VIRTUAL_ENV": sys.prefix, "PYTHONPATH": str(ROOT), **variables(place, "nowhere"), "STAGE": "c"}
    result = bash(SCRIPT, cwd=place, **given)
    assert result.returncode == 2 and not (place / "nowhere").exists()
    assert result.stderr == f"STAGE=c: the stages of {place / 'mixture.yaml'} are a b\n"


def test_a_stage_keeps_the_optimizer(place):
    """Adam has made the updates of both stages."""
    steps = []
    for name in ("1-a", "2-b"):
        state = torch.load(place / "whole" / name / "checkpoint_last.pt", weights_only=True)["last_optimizer_state"]["state"]
        steps.append({int(each["step"]) for each in state.values()})
    assert max(steps[0]) == 6 and max(steps[1]) == 6 + 8
    assert "the optimizer goes on with its state in" in (place / "whole" / "2-b" / "train.log").read_text()


FINE_TUNED = {
    "caption": ("captions.jsonl,{place}/valid.jsonl", ()),
    "vqa": ("questions.jsonl,{place}/asked.jsonl", ("--closed-set", "{place}/answers.txt", "--best-checkpoint-metric", "vqa_score")),
}


@pytest.mark.parametrize("task", FINE_TUNED)
def test_a_pretrained_model_is_fine_tuned_on_a_task(place, tmp_path, task):
    tables, flags = FINE_TUNED[task]
    start = place / "whole" / "2-b" / "checkpoint_last.pt"
    given = ["--task", f"unival_{task}", *(flag.format(place=place) for flag in flags), "--finetune-from-model", str(start)]
    assert runs.train(f"{place}/{tables.format(place=place)}", tmp_path, *given, "--batch-size", "4", "--max-update", "1") == 0
    said = (tmp_path / "train.log").read_text()
    assert f"Loaded checkpoint {start}" in said


def test_commands_of_the_readme(place, tmp_path, capsys):
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    commands = re.findall(r"`unival ((?:mixture|train|validate-data) mixture\.yaml[^`]*)`", readme)
    assert [command.split()[0] for command in commands] == ["mixture", "train", "mixture", "validate-data"]
    assert "`MIXTURE=mixture.yaml VOCAB=VOCABULARY OUT=OUT bash run_scripts/pretrain/curriculum.sh`" in readme
    meant = {"mixture.yaml": str(place / "mixture.yaml"), "images": "a"}
    for command in commands:
        words = [meant.get(word, word) for word in shlex.split(command)]
        if words[0] == "train":
            small = [*material.SMALL, "--vocab-dir", str(place / "vocab"), "--max-update", "1", "--optimizer", "adam"]
            small += ["--save-dir", str(tmp_path), "--no-save", "--disable-validation", "--skip-checks"]
            assert material.run([*words[1:], *small]) == 0
        elif words[0] == "validate-data":
            assert main([*words, "--workers", "0"]) == 0
        else:
            small = [] if "--options" in words else ["--set=cpu=true", "--set=num_codes=0", "--set=num_bins=0"]
            assert main([*words, *small]) == 0
    assert "--task unival_pretrain --stage a --max-epoch 2" in capsys.readouterr().out
