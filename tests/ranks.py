"""Runs on two processes of this machine (gloo): several training runs one after another in the same pair, since starting one costs seconds.

``run_on_two_ranks`` starts the pair; this file, run as a module, is one of its processes.
"""

import importlib
import json
import os
import pathlib
import socket
import subprocess
import sys
from collections.abc import Sequence

ROOT = pathlib.Path(__file__).resolve().parents[1]


def run_on_two_ranks(folder: pathlib.Path, *trainings: Sequence[str], codes: Sequence[int] | None = None) -> list[str]:
    """Each training is what follows ``unival train``; returns what each rank printed.

    Args:
        folder: for the list of trainings.
        trainings: arguments of each training, without those of distribution; or ``python``, module and function, which is called on
            both ranks after a training has connected them.
        codes: exit code of each training, on both ranks (default: 0).
    """
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    plan = folder / f"trainings-{port}.json"
    plan.write_text(json.dumps(list(map(list, trainings))))
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    processes = []
    for rank in range(2):
        command = [sys.executable, "-m", "tests.ranks", str(plan), str(port), str(rank)]
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
        processes.append(subprocess.Popen(command, cwd=ROOT, env=environment, **pipes))
    outputs = []
    try:
        outputs = [process.communicate(timeout=600)[0] for process in processes]
    finally:
        for process in processes:
            process.kill()
    expected = list(codes or [0] * len(trainings))
    for output in outputs:
        assert f"exit codes {expected}" in output, output[-5000:]
    return outputs


def main(plan: str, port: str, rank: str) -> None:
    """One rank: every training of the plan."""
    from tests import runs
    from unival.cli import main as unival

    distributed = [
        *("--distributed-world-size", "2", "--distributed-rank", rank, "--distributed-no-spawn"),
        *("--distributed-backend", "gloo", "--distributed-init-method", f"tcp://127.0.0.1:{port}"),
        *("--ddp-backend", "legacy_ddp"),  # fairseq's other backends need GPUs; a training may choose one
    ]
    codes = []
    for arguments in json.loads(pathlib.Path(plan).read_text()):
        if arguments[0] == "python":
            getattr(importlib.import_module(arguments[1]), arguments[2])()
            codes.append(0)
            continue
        codes.append(unival(["train", *distributed, *arguments]))
        runs.forget_run()
    print(f"exit codes {codes}", flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
