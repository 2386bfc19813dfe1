"""`unival train`, `validate` and `generate`: what they print when all is well, and one line for everything that is not."""

import json
import logging
import os
import pathlib
import pickle
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import traceback

import pytest
from omegaconf import OmegaConf

from tests import runs, tiny
from unival.cli import main
from unival.commands import fairseq
from unival.console.explain import explain
from unival.instructions import InstructionError, parse
from unival.modalities import MODALITIES
from unival.tasks.base import UnivalTask

ROOT = pathlib.Path(__file__).resolve().parents[2]
SMALL = [*runs.MODEL, *runs.CPU, "--patch-image-size", "32", "--criterion", "unival_label_smoothed", "--batch-size", "2"]
TRAIN = ["--task", "unival_caption", *SMALL, "--optimizer", "adam", "--lr", "1e-3"]
SAVE = ["--no-epoch-checkpoints", "--best-checkpoint-metric", "cider", "--maximize-best-checkpoint-metric"]
SCORES = r"loss [\d.]+, cider [\d.]+(, (bleu\d|rouge_l|best_cider) [\d.]+)+"
PROGRESS = r"(epoch \d+: loss [\d.]+(, .*)?; \d+ of \d+ updates|(validating|generating); \d+ of \d+ rows)"  # on a slow machine


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return tiny.write_data(tmp_path_factory.mktemp("data"), train=6, valid=3)


def run(capfd, *arguments):
    """Exit code, standard output and standard error of a command, as the process's own streams have them."""
    capfd.readouterr()
    try:
        code = main([str(argument) for argument in arguments])
    finally:
        runs.forget_run()
    return (code, *capfd.readouterr())


@pytest.fixture(scope="module")
def trained(data, tmp_path_factory):
    """A run of four updates that stopped within its second epoch, in a process of its own so that imports talk as they do."""
    out = tmp_path_factory.mktemp("trained")
    command = [sys.executable, "-m", "unival", "train", str(data), *TRAIN, *SAVE, "--save-dir", str(out), "--max-update", "4"]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300)
    return out, result


def only(kinds, text):
    """Lines of a text that are of none of the kinds, and those kinds that are missing."""
    lines = text.splitlines()
    strange = [line for line in lines if not any(re.fullmatch(kind, line) for kind in [*kinds, PROGRESS])]
    return strange, [kind for kind in kinds if not any(re.fullmatch(kind, line) for line in lines)]


def test_a_training_shows_what_a_person_needs(data, trained):
    out, result = trained
    assert (result.returncode, result.stderr) == (0, "")
    kinds = [
        rf"the whole log is {out}/train\.log",
        rf"vocabulary: 305 tokens, from {data}/vocab",
        r"model: [\d,]+ parameters",
        rf"valid: 3 rows from {data}/valid\.jsonl",
        rf"train: 6 rows from {data}/train\.jsonl",
        r"checked before the first update: .*",
        rf"epoch 1, 3 updates, valid: {SCORES.replace('best_cider', 'rouge_l')}; saved {out}/checkpoint_best\.pt",
        rf"epoch 2, 4 updates, valid: {SCORES}; saved {out}/checkpoint_\w+\.pt",
        rf"done in .*: 4 updates, best cider [\d.]+; the model is {out}/checkpoint_best\.pt, the newest {out}/checkpoint_last\.pt",
    ]
    assert only(kinds, result.stdout) == ([], [])
    log = (out / "train.log").read_text()
    assert "UnivalModel(" in log and "hydra" in log and "rows from" in log  # the rest is there
    assert '"train_loss"' in log


def test_going_on_and_ctrl_c(capfd, data, trained, tmp_path, monkeypatch):
    out = shutil.copytree(trained[0], tmp_path / "out")
    step = UnivalTask.train_step

    def interrupted(self, sample, model, criterion, optimizer, update_num, ignore_grad=False):
        if update_num == 5:
            raise KeyboardInterrupt
        return step(self, sample, model, criterion, optimizer, update_num, ignore_grad)

    monkeypatch.setattr(UnivalTask, "train_step", interrupted)
    arguments = ["train", data, *TRAIN, *SAVE, "--max-update", "9", "--disable-validation"]
    code, shown, error = run(capfd, *arguments, "--save-dir", out)
    assert code == 130 and f"starting from {out}/checkpoint_last.pt (epoch 2, 4 updates)" in shown
    last = f"{out}/checkpoint_last.pt"
    assert error == f"unival: error: stopped by Ctrl-C after 5 updates; the same command goes on from {last}\n"
    monkeypatch.setattr(UnivalTask, "build_model", lambda *_: signal.raise_signal(signal.SIGTERM))  # a cluster ends the job
    code, _, error = run(capfd, *arguments, "--save-dir", tmp_path / "none")
    assert (code, error) == (143, "unival: error: stopped by SIGTERM after 0 updates; nothing was saved\n")
    monkeypatch.setattr(UnivalTask, "build_model", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
    code, _, error = run(capfd, *arguments, "--save-dir", tmp_path / "none")
    assert (code, error) == (130, "unival: error: stopped by Ctrl-C after 0 updates; nothing was saved\n")


def test_validation_and_generation_show_the_same_scores_as_unival_score(capfd, data, trained, tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    path = trained[0] / "checkpoint_last.pt"
    common = ["--task", "unival_caption", *runs.CPU, "--path", path, "--batch-size", "2"]
    code, shown, error = run(capfd, "validate", data, *common)
    known = [r"vocabulary: 305 tokens, from .*", f"model: {path}", r"valid: 3 rows from .*"]
    kinds = [*known, f"valid: {SCORES}"]
    assert (code, error, only(kinds, shown)) == (0, "", ([], []))
    flags = ["--gen-subset", "valid", "--beam", "2", "--max-len-b", "8"]
    code, shown, error = run(capfd, "generate", data, *common, *flags, "--results-path", tmp_path)
    scores = next(line for line in error.splitlines() if line.startswith("valid: cider"))
    kinds = [*known, r"generated 3 rows in .* s", re.escape(scores), "answers .*", "the texts .*"]
    assert (code, shown, only(kinds, error)) == (0, "", ([], []))
    text = (tmp_path / "generate-valid.txt").read_text()
    assert "BLEU" not in text and text.splitlines()[-1] == f"Generate valid with beam=2: {scores.removeprefix('valid: ')}"
    assert (tmp_path / "generate-valid.log").is_file()
    assert main(["score", str(tmp_path / "generate-valid.txt"), "--table", str(data / "valid.jsonl")]) == 0
    theirs = dict(line.split()[:2] for line in capfd.readouterr().out.splitlines())  # their intervals follow
    assert dict(part.split() for part in scores[7:].split(", ")) == theirs
    code, shown, error = run(capfd, "generate", data, *common, *flags, "--shard-id", "0")  # standard output is for programs
    assert (code, [line.split("-")[0] for line in shown.splitlines()[:-1]]) == (0, ["S", "T", "H", "D", "P"] * 3)
    assert not list(tmp_path.glob("unival-*.log"))  # those of commands that went well and have no folder are removed
    for command in ("validate", "generate"):
        code, _, error = run(capfd, command, data, *changed(common, path=tmp_path / "missing.pt"))
        (log,) = tmp_path.glob(f"unival-{command}-*.log")
        assert code == 1 and error.splitlines()[-1].endswith(f"(the log is {log})") and "missing.pt" in log.read_text()


def test_a_table_without_answers_gives_a_submission(capfd, data, trained, tmp_path):
    rows = [json.loads(line) for line in (data / "valid.jsonl").read_text().splitlines()]
    mute = tmp_path / "mute.jsonl"
    mute.write_text("".join(json.dumps({"id": 7 + i, "image": row["image"]}) + "\n" for i, row in enumerate(rows)))
    common = ["--task", "unival_caption", *runs.CPU, "--path", trained[0] / "checkpoint_last.pt", "--batch-size", "2", "--media-root", data]
    flags = ["--gen-subset", "mute", "--beam", "2", "--max-len-b", "8", "--results-path", tmp_path]
    code, _, error = run(capfd, "generate", tmp_path, *common, *flags)
    assert code == 0, error
    assert f"{mute}: no column 'caption' to score with; generating without (the columns are id, image)" in error
    out, file = tmp_path / "submission.json", str(tmp_path / "generate-mute.txt")
    assert main(["score", file, "--table", str(mute), "--metrics", "none", "--submission", f"coco:{out}"]) == 0
    assert [(entry["image_id"], bool(entry["caption"])) for entry in json.loads(out.read_text())] == [(7, True), (8, True), (9, True)]
    code, shown, error = run(capfd, "validate", tmp_path, *common, "--valid-subset", "mute")
    assert code == 1 and "no column 'caption'" in error


def test_everything_is_shown_on_request(capfd, data, tmp_path):
    code, shown, _ = run(capfd, "train", data, *TRAIN, "--save-dir", tmp_path, "--no-save", "--max-update", "1", "--verbose")
    assert code == 0 and "UnivalModel(" in shown and "| INFO | fairseq" in shown
    assert "UnivalModel(" in (tmp_path / "train.log").read_text()


# Mistakes -----------------------------------------------------------------------------------------------------------------------


def changed(flags, **changes):
    """Flags without those whose value is None, with another value for others."""
    flags = list(flags)
    for name, value in changes.items():
        option = "--" + name.replace("_", "-")
        if option in flags:
            at = flags.index(option)
            del flags[at : at + (1 if option == "--cpu" else 2)]
        if value is not None:
            flags += [option, value] if value else [option]
    return flags


MISTAKES = {
    "no task": ({"task": None}, "give --task: unival, unival_caption"),
    "no architecture": ({"arch": None}, "give --arch: unival_tiny, unival_base, unival_large"),
    "no optimizer": ({"optimizer": None}, "give --optimizer, e.g."),
    "no learning rate": ({"lr": None}, "give --lr, the learning rate, e.g."),
    "no end of a schedule": (
        {"lr_scheduler": "polynomial_decay"},
        "give --total-num-update: --lr-scheduler polynomial_decay needs it",
    ),
    "text that hydra cannot read": ({"log_file": "a\\"}, "--log-file a\\: "),
    "no batch size": ({"batch_size": None, "max_tokens": "4096"}, "give --batch-size N"),
    "no data": ({"DATA": None}, "give the data first"),
    "missing folder": ({"DATA": "nowhere", "vocab_dir": "DATA/vocab"}, "nowhere: no such table or folder"),
    "missing split": ({"valid_subset": "valif"}, "train.jsonl, valid.jsonl"),
    "unknown option": ({"max_epochs": "3"}, "unknown option --max-epochs; did you mean --max-epoch"),
    "unknown task": ({"task": "unival_captoin"}, "--task unival_captoin: choose from unival, unival_pretrain, unival_caption, unival_vqa"),
    "unknown choice of few": ({"on_bad_answer": "ignore"}, "--on-bad-answer ignore: choose from raise, skip"),
    "unknown architecture": ({"arch": "unival_huge"}, "unival_tiny, unival_base, unival_large and"),
    "unknown criterion": ({"criterion": "unival_smooth"}, "unival_label_smoothed"),
    "unknown optimizer": ({"optimizer": "adan"}, "--optimizer adan: choose from"),
    "wrong type": ({"batch_size": "two"}, "--batch-size: invalid int value: 'two'"),
    "wrong list": ({"lr": "fast"}, "--lr: invalid value: 'fast'"),
    "wrong choice": ({"on_bad_sample": "ignore"}, "--on-bad-sample ignore: choose from raise, skip"),
    "half precision": ({"cpu": None, "fp16": ""}, "--autocast-bf16"),
    "bfloat16": ({"cpu": None, "bf16": ""}, "--autocast-bf16"),
    "no TensorBoard": ({"tensorboard_logdir": "tb"}, "pip install"),
    "another plugin of this name": ({"user_dir": "DATA/unival"}, "leave the option out"),
    "no such plugin": ({"user_dir": "nowhere"}, "--user-dir nowhere: no such folder"),
    "no such vocabulary": ({"vocab_dir": "nowhere"}, "there is no vocabulary folder nowhere"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_one_line(capfd, data, tmp_path, monkeypatch, mistake):
    monkeypatch.setattr("fairseq.logging.progress_bar.SummaryWriter", None)
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    (data / "unival").mkdir(exist_ok=True)
    changes, expected = MISTAKES[mistake]
    changes = {name: value and value.replace("DATA", str(data)) for name, value in changes.items()}
    place = changes.pop("DATA", str(data))
    flags = changed([*TRAIN, "--save-dir", str(tmp_path), "--no-save"], **changes)
    code, _, error = run(capfd, "train", *([place] if place else []), *flags)
    assert code == 1 and error.startswith("unival: error: ") and error.count("\n") == 1, error
    assert expected in error and "Traceback" not in error


def test_another_validation_table_is_named_before_the_model_is_built(capfd, data, tmp_path):
    shutil.copytree(data, tmp_path / "data")
    shutil.copy(data / "valid.jsonl", tmp_path / "data" / "valid2.jsonl")
    code, shown, error = run(capfd, "train", tmp_path / "data", *TRAIN, "--save-dir", tmp_path, "--no-save")
    assert code == 1 and "--valid-subset valid,valid2" in error and "model" not in shown


def test_losses_that_are_not_finite_name_update_and_rows(capfd, data, tmp_path):
    flags = [*changed(TRAIN, lr="1e30"), "--save-dir", tmp_path, "--no-save", "--max-update", "9", "--disable-validation"]
    code, _, error = run(capfd, "train", data, *flags)
    assert code == 1 and re.match(r"unival: error: update 2: the loss .* NaN or infinite in rows \d, \d; ", error), error
    log = (tmp_path / "train.log").read_text()
    assert "FloatingPointError" in log and "TypeError" not in log
    assert re.search(r"(NaN|Inf) detected in output of (en|de)coder", log)


def test_a_table_that_shrank(capfd, data, trained, tmp_path):
    folder, out = shutil.copytree(data, tmp_path / "data"), shutil.copytree(trained[0], tmp_path / "out")
    lines = (folder / "train.jsonl").read_text().splitlines()
    (folder / "train.jsonl").write_text("\n".join(lines[:2]) + "\n")
    code, _, error = run(capfd, "train", folder, *TRAIN, *SAVE, "--save-dir", out, "--max-update", "9")
    assert code == 1 and "has 2 rows, but had 6" in error and "--reset-dataloader" in error and error.count("\n") == 1


def test_a_fault_of_the_program_points_to_its_traceback(capfd, data, tmp_path, monkeypatch):
    def faulty(*_):
        raise KeyError("surprise")

    monkeypatch.setattr(UnivalTask, "build_model", faulty)
    flags = [*TRAIN, "--save-dir", tmp_path, "--no-save"]
    code, _, error = run(capfd, "train", data, *flags)
    assert code == 1 and error.count("\n") == 1 and "KeyError: 'surprise'" in error and f"{tmp_path}/train.log" in error
    log = (tmp_path / "train.log").read_text()
    assert "Traceback (most recent call last)" in log and "in faulty" in log
    with pytest.raises(KeyError):
        run(capfd, "train", data, *flags, "--traceback")


@pytest.mark.parametrize("arguments", [["frobnicate"], ["score"], ["train-vocab", "--size", "x"], ["generate", "data"]])
def test_usage_errors_of_every_command_are_one_line(capfd, arguments):
    code, shown, error = run(capfd, *arguments)
    assert (code, shown) == (1, "") and error.startswith("unival: error: ") and error.count("\n") == 1


# Processes ----------------------------------------------------------------------------------------------------------------------


def test_processes_that_fairseq_spawns_are_quiet_but_the_first(capfd, tmp_path):
    """They get the command by pickling, and set up logging for themselves."""
    request = fairseq.Request("train", ("data",), False, False)
    for function in (fairseq.training_process, fairseq.validating_process):
        assert pickle.loads(pickle.dumps((function, request))) == (function, request)
    for rank in (0, 1):
        cfg = OmegaConf.create({"distributed_training": {"distributed_rank": rank}})
        with fairseq._session_of_process(cfg, request, tmp_path / "train.log") as session:
            session.tell(f"rank {rank}")
            logging.getLogger("unival.x").error("of rank %d", rank)
    assert capfd.readouterr().out == "rank 0\nerror: of rank 0\nerror: of rank 1\n"
    assert "rank 1" in (tmp_path / "train.log").read_text()


def test_an_error_of_a_spawned_process_is_one_line():
    text = "\n\n-- Process 1 terminated with the following error:\nTraceback (most recent call last):\n  File\n"
    text += "unival.errors.UserError: a.jsonl: no\n"
    assert explain(RuntimeError(text)) == "a.jsonl: no"


def test_an_instructions_error_of_a_spawned_process_is_one_line():
    try:
        parse("[IMAG:image] what? -> [TEXT:caption]", MODALITIES)
    except InstructionError as error:
        wrapped = RuntimeError("-- Process 1 terminated with the following error:\n" + "".join(traceback.format_exception(error)))
        assert explain(wrapped) == explain(error)
        assert "\n" not in explain(error) and explain(error).startswith("unknown modality 'IMAG'")


def test_help_and_version_answer_at_once():
    code = "import sys; from unival.cli import main; codes = [main([flag]) for flag in sys.argv[1:]]; "
    code += "sys.stderr.write(str([name for name in ('torch', 'fairseq', 'numpy') if name in sys.modules]))"
    result = subprocess.run([sys.executable, "-c", code, "--version"], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert re.fullmatch(r"unival \d+\.\d+\.\d+\n", result.stdout) and result.stderr == "[]"
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    result = subprocess.run([sys.executable, "-m", "unival", "--help"], env=environment, capture_output=True, text=True, timeout=10)
    assert result.returncode == 0 and "train-vocab" in result.stdout and result.stderr == ""
