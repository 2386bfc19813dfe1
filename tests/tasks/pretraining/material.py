"""A mixture of two small streams, and runs of its stages."""

import json
import pathlib
from typing import Any

import yaml

from tests import runs, tiny
from unival.cli import main

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
ANSWERS = ("red", "blue", "a square")


def write_mixture(folder: pathlib.Path, content: Any = None, name: str = "mixture.yaml") -> pathlib.Path:
    """The file beside its tables."""
    path = folder / name
    path.write_text(yaml.safe_dump(MIXTURE if content is None else content, sort_keys=False))
    return path


def write_tables(folder: pathlib.Path, captions: int = 6, questions: int = 4) -> None:
    """Tables of captions and of questions about the same kind of images, candidate answers, and a vocabulary without codes and bins."""
    tiny.write_table(folder, captions, name="captions.jsonl")
    tiny.write_table(folder, questions, name="questions.jsonl", seed=1)
    rows = [json.loads(line) for line in (folder / "questions.jsonl").read_text().splitlines()]
    asked = [{"image": row["image"], "question": f"what is it {i}?", "answer": ANSWERS[i % 3]} for i, row in enumerate(rows)]
    (folder / "questions.jsonl").write_text("".join(json.dumps(row) + "\n" for row in asked))
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
