"""Runs of fairseq's commands on tiny data, in this process unless said otherwise.

They are on the CPU; ``UNIVAL_TEST_GPU=1`` makes them use the GPU, where fairseq is free to choose.
"""

import json
import logging
import os
import pathlib
import sys
from typing import Any

from fairseq import checkpoint_utils
from fairseq.logging import metrics

from unival.cli import main

MODEL = [
    *(
        "--arch",
        "unival_tiny",
        "--encoder-embed-dim",
        "32",
        "--encoder-ffn-embed-dim",
        "64",
        "--decoder-ffn-embed-dim",
        "64",
    ),
    *("--encoder-attention-heads", "2", "--decoder-attention-heads", "2", "--image-backbone", "resnet10"),
]
TASK = ["--task", "unival_caption", "--num-codes", "0", "--num-bins", "0"]
ONE_PROCESS = ["--required-batch-size-multiple", "1", "--num-workers", "0"]
CPU = ONE_PROCESS if os.environ.get("UNIVAL_TEST_GPU") == "1" else ["--cpu", *ONE_PROCESS]


def train_flags(data: pathlib.Path, out: pathlib.Path, *flags: str) -> list[str]:
    """Arguments of a training run; the log goes to ``out/log.jsonl``, one JSON object a line."""
    return [
        str(data),
        *TASK,
        *MODEL,
        *CPU,
        *("--patch-image-size", "32", "--criterion", "unival_label_smoothed", "--label-smoothing", "0.1"),
        *("--optimizer", "adam", "--lr", "1e-3", "--lr-scheduler", "polynomial_decay", "--total-num-update", "100"),
        *("--save-dir", str(out), "--log-format", "json", "--log-interval", "1", "--log-file", str(out / "log.jsonl")),
        *("--no-epoch-checkpoints", "--best-checkpoint-metric", "cider", "--maximize-best-checkpoint-metric"),
        *flags,
    ]


def train(data: pathlib.Path, out: pathlib.Path, *flags: str) -> int:
    """Train; returns the exit code."""
    out.mkdir(parents=True, exist_ok=True)
    try:
        return main(["train", *train_flags(data, out, *flags)])
    finally:
        forget_run()


def forget_run() -> None:
    """Undo what a run leaves in the process: fairseq's log files (later runs would write to them too), its best score so far, and what
    an epoch that did not end has logged."""
    metrics.reset()
    vars(checkpoint_utils.save_checkpoint).pop("best", None)
    for logger in [logging.getLogger(), *map(logging.getLogger, list(logging.root.manager.loggerDict))]:
        for handler in [h for h in logger.handlers if isinstance(h, logging.FileHandler)]:
            logger.removeHandler(handler)
            handler.close()


def generate(
    data: pathlib.Path, checkpoint: pathlib.Path, out: pathlib.Path, split: str = "valid", *flags: str
) -> pathlib.Path:
    """Generate for a split with the task's own generation options; returns the output file."""
    code = main(
        [
            *("generate", str(data), *TASK, *CPU, "--path", str(checkpoint), "--gen-subset", split),
            *(
                "--beam",
                "5",
                "--max-len-b",
                "22",
                "--no-repeat-ngram-size",
                "3",
                "--batch-size",
                "3",
                "--results-path",
                str(out),
                *flags,
            ),
        ]
    )
    assert code == 0
    return out / f"generate-{split}.txt"


def log_lines(out: pathlib.Path, key: str, name: str = "log.jsonl") -> list[dict[str, Any]]:
    """Lines of the training log that hold ``key``."""
    lines: list[dict[str, Any]] = []
    seen: set[str] = set()
    for line in (out / name).read_text().splitlines():
        start = line.find("{")
        if start >= 0 and f'"{key}"' in line and line[start:] not in seen:  # fairseq logs to two handlers
            seen.add(line[start:])
            lines.append(json.loads(line[start:]))
    return lines


def python() -> str:
    """The interpreter, for runs in a process of their own."""
    return sys.executable
