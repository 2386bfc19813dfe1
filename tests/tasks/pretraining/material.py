"""A mixture of two small streams, and runs of its stages."""

import json
import pathlib
import sys
from typing import Any

import pytest
import yaml

from tests import runs, tiny
from tests.test_run_scripts import RECORDER, ROOT, bash
from unival.cli import main
from unival.tasks.pretraining.file import read_mixture

MODEL = [*runs.MODEL, *runs.CPU, "--patch-image-size", "32"]
TRAINING = ["--criterion", "unival_label_smoothed", "--optimizer", "adam", "--lr", "1e-3", "--lr-scheduler", "unival_polynomial"]
QUESTION = "[IMAGE:image] [TEXT:question] -> [TEXT:answer,closed_set]"
MIXTURE: dict[str, Any] = {
    "streams": {
        "captions": {"table": "captions.jsonl", "preset": "unival_caption"},
        "questions": {"table": "questions.jsonl", "instruction": QUESTION, "closed_set": "answers.txt"},
    },
    "balancing": "equal",
    "stages": {"a": {"epochs": 1}},
}
CURRICULUM: dict[str, Any] = {
    "streams": {
        "captions": {"table": ["captions.jsonl", "more.jsonl"], "preset": "unival_caption", "valid": "valid.jsonl", "metrics": ["cider"]},
        "questions": {**MIXTURE["streams"]["questions"], "valid": "asked.jsonl", "metrics": ["accuracy"]},
        "texts": {"table": "captions.jsonl", "instruction": "what? -> [TEXT:caption]", "loss_weight": {0: 0.0, 2: 1.0}},
    },
    "balancing": "equal",
    "options": {
        **{"batch_size": 3, "lr": 1e-3, "criterion": "unival_label_smoothed", "best_checkpoint_metric": "captions/cider"},
        **{"maximize_best_checkpoint_metric": True, "label_smoothing": 0.1},
    },
    "stages": {
        "a": {"epochs": 2, "streams": ["captions"]},
        "b": {
            **{"epochs": 2, "schedule_epochs": 5, "updates_per_epoch": 4, "add": {"questions": {"weight": {0: 1, 1: 2}}, "texts": {}}},
            **{"balancing": "weights", "transition": 3, "keep_optimizer": True},
        },
    },
}
SMALL = [*runs.MODEL, *runs.CPU, "--patch-image-size", "32", "--num-codes", "0", "--num-bins", "0", "--log-interval", "1"]
ANSWERS = ("red", "blue", "a square")


def write_mixture(folder: pathlib.Path, content: Any = None, name: str = "mixture.yaml") -> pathlib.Path:
    """The file beside its tables."""
    path = folder / name
    path.write_text(yaml.safe_dump(MIXTURE if content is None else content, sort_keys=False))
    return path


def write_tables(folder: pathlib.Path, captions: int = 6, questions: int = 4) -> None:
    """Tables of captions and of questions about the same kind of images, candidate answers, and a vocabulary without codes and bins."""
    counts = {"captions": captions, "more": 3, "valid": 4, "questions": questions, "asked": 3}
    for seed, (name, rows) in enumerate(counts.items()):
        path = tiny.write_table(folder, rows, name=f"{name}.jsonl", seed=seed)
        if name in ("questions", "asked"):
            images = [json.loads(line)["image"] for line in path.read_text().splitlines()]
            asked = [{"image": image, "question": f"what is it {i}?", "answer": ANSWERS[i % 3]} for i, image in enumerate(images)]
            path.write_text("".join(json.dumps(row) + "\n" for row in asked))
    (folder / "answers.txt").write_text("\n".join(ANSWERS) + "\n")
    tiny.vocabulary(folder / "vocab", 0, 0)


def train(mixture: pathlib.Path, out: pathlib.Path, *flags: str, stage: str | None = "a") -> int:
    """Train a stage; returns the exit code.  The log goes to ``out/log.jsonl``."""
    out.mkdir(parents=True, exist_ok=True)
    named = [] if stage is None else ["--stage", stage]
    try:
        return main(
            [
                *("train", str(mixture), "--task", "unival_pretrain", *named, *MODEL, "--num-codes", "0", "--num-bins", "0", *TRAINING),
                *("--save-dir", str(out), "--log-format", "json", "--log-interval", "1", "--log-file", str(out / "log.jsonl")),
                *("--no-epoch-checkpoints", *flags),
            ]
        )
    finally:
        runs.forget_run()


def commands(place: pathlib.Path, script: str, *flags: str, **variables: object) -> list[list[str]]:
    """The arguments with which a script of ``run_scripts/pretrain`` starts ``unival train``, one list for each of its stages."""
    programs = place / "recording" / "bin"
    programs.mkdir(parents=True, exist_ok=True)
    python = f'#!/usr/bin/env bash\nPYTHONPATH="{ROOT}" exec "{sys.executable}"'
    unival = f'[ "$1" = train ] || {python.splitlines()[1]} -m unival "$@"'
    for name, content in {"unival": RECORDER.replace("\n", f"\n{unival}\n", 1), "python": f'{python} "$@"\n'}.items():
        (programs / name).write_text(content)
        (programs / name).chmod(0o755)
    log = place / "recorded"
    log.unlink(missing_ok=True)
    given = {"VIRTUAL_ENV": programs.parent, "RECORDED": log, **variables}
    result = bash(ROOT / "run_scripts" / "pretrain" / script, *flags, cwd=place, timeout=600, **given)
    assert result.returncode == 0, result.stdout + result.stderr
    return [call.split("\0")[2:] for call in log.read_text().split("\0\0") if call]


def run(arguments: list[str]) -> int:
    """Run one of these; returns the exit code."""
    try:
        return main(["train", *arguments])
    finally:
        runs.forget_run()


def read_stage(path: pathlib.Path, name: str, tables: pathlib.Path) -> Any:
    """A stage of a mixture file whose tables are in a folder named ``TABLES``."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TABLES", str(tables))
        return read_mixture(path).stage(name)
