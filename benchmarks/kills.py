"""Kills a training run that saves all the time, starts it again each time, and compares its end with that of an uninterrupted one.

    python benchmarks/kills.py [--kills 20] [--within 1] [--updates 100] [--seed 1] [--at written:1 best:2 last:2] [--out FOLDER]

Random kills come within a second, in which a checkpoint or some are written and copied, from when a start of the run
begins to save.  ``--at`` kills at chosen points before them: half way through the N-th file that a start of the run writes
(``written:N``), or through its N-th copy to ``checkpoint_best.pt`` (``best:N``) or ``checkpoint_last.pt`` (``last:N``).
Exit code 0: the weights, the optimizer's state and the best checkpoint have the same bits as without any kill.
"""

import argparse
import json
import os
import pathlib
import random
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Sequence
from typing import Any

import fairseq_cli.train  # noqa: F401  these are imported once, here, not in every start of a run
import numpy as np
import timm  # noqa: F401
import torch
from PIL import Image

import unival.tasks  # noqa: F401
from unival.checkpoints.files import read
from unival.checkpoints.recovery import is_cut_short
from unival.cli import main as run_command
from unival.vocab import train_vocabulary

MODEL = "--arch unival_tiny --encoder-embed-dim 32 --encoder-ffn-embed-dim 64 --decoder-ffn-embed-dim 64 --image-backbone resnet10"
TASK = "--task unival_caption --num-codes 0 --num-bins 0 --patch-image-size 32 --eval-metrics= --criterion unival_label_smoothed"
TRAINING = "--cpu --num-workers 0 --batch-size 4 --optimizer adam --lr 1e-4 --lr-scheduler fixed --log-format json"
SAVING = "--save-interval-updates 1 --keep-interval-updates 2 --keep-last-epochs 2 --best-checkpoint-metric loss"
PATIENCE = 300  # seconds until a run that does nothing is given up


def write_data(folder: pathlib.Path) -> None:
    """Twelve small images with captions to learn, two to validate with, and a vocabulary."""
    (folder / "images").mkdir()
    words = ["red", "green", "blue", "square", "circle", "above", "left", "of"]
    for seed, (split, rows) in enumerate({"train": 12, "valid": 2}.items()):
        rng, lines = np.random.default_rng(seed), []
        for i in range(rows):
            Image.fromarray(rng.integers(0, 256, (32, 32, 3), dtype=np.uint8)).save(folder / f"images/{split}{i}.png")
            lines.append(json.dumps({"image": f"images/{split}{i}.png", "caption": " ".join(rng.choice(words, 4))}))
        (folder / f"{split}.jsonl").write_text("\n".join(lines) + "\n")
    train_vocabulary([" " + " ".join(words)], 270, folder / "vocab")


def forked(work: Callable[[], int | None], log: pathlib.Path) -> int:
    """Do something in a process of its own that has all imports already; its output is added to a log.  Returns its number."""
    pid = os.fork()
    if pid:
        return pid
    code = 1
    try:
        with log.open("a") as output:
            for stream in (1, 2):
                os.dup2(output.fileno(), stream)
        torch.set_num_threads(1)
        code = work() or 0
    except BaseException:  # noqa: BLE001  it ends here, whatever it is
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        os._exit(code)


def ended(pid: int, seconds: float | None = None) -> int | None:
    """The exit code of a process, negative for a signal; None if it still runs after these seconds."""
    until = time.monotonic() + (PATIENCE if seconds is None else seconds)
    while time.monotonic() < until:
        done, status = os.waitpid(pid, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.002)
    if seconds is None:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        raise TimeoutError(f"the run did nothing for {PATIENCE} s")
    return None


def kill_half_way(point: str) -> Callable[[str, tuple[Any, ...]], None]:
    """An audit hook that leaves half a file where fairseq writes or copies a whole one, and kills the process."""
    name, count = point.split(":")
    left = int(count)

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        nonlocal left
        written = name == "written" and event == "os.rename" and str(arguments[0]).endswith(".pt.tmp")
        copied = event == "shutil.copyfile" and pathlib.Path(arguments[1]).name == f"checkpoint_{name}.pt"
        left -= written or copied
        if (written or copied) and left == 0:
            size = os.stat(arguments[0]).st_size // 2
            if written:
                os.truncate(arguments[0], size)
            else:
                pathlib.Path(arguments[1]).write_bytes(pathlib.Path(arguments[0]).read_bytes()[:size])
            os.kill(os.getpid(), signal.SIGKILL)

    return hook


class Run:
    """A run in a folder: one start after the other."""

    def __init__(self, data: pathlib.Path, folder: pathlib.Path, updates: int) -> None:
        self.folder, self.log, self.said = folder, folder.with_suffix(".log"), 0
        self.arguments = [*f"{MODEL} {TASK} {TRAINING} {SAVING}".split(), "--max-update", str(updates), "--save-dir", str(folder)]
        self.arguments = ["train", str(data), *self.arguments]

    def start(self, point: str | None = None) -> int:
        def work() -> int:
            if point:
                sys.addaudithook(kill_half_way(point))
            return run_command(self.arguments)

        return forked(work, self.log)

    def savings(self) -> int:
        """How often the run has begun to save."""
        log = self.folder / "train.log"
        return log.read_text(errors="replace").count("Preparing to save checkpoint") if log.is_file() else 0

    def start_and_kill(self, delay: float) -> int | None:
        """Kill a start some seconds after it begins to save; its exit code if it ended before."""
        before, pid, until = self.savings(), self.start(), time.monotonic() + PATIENCE
        while (code := ended(pid, 0.005)) is None and self.savings() == before and time.monotonic() < until:
            pass
        if code is None and (code := ended(pid, delay)) is None:
            os.kill(pid, signal.SIGKILL)
            ended(pid)
        return code

    def damage(self) -> str:
        """What the last kill left."""
        names = sorted(path.name for path in self.folder.glob("checkpoint*"))
        unfinished = [name for name in names if name.endswith(".tmp")]
        cut = [name for name in names if name not in unfinished and is_cut_short(self.folder / name)]
        return ", ".join([f"{name} cut short" for name in cut] + [f"{name} unfinished" for name in unfinished]) or "-"

    def resumed(self) -> str:
        """What the newest start said of where it went on from."""
        lines = self.log.read_text(errors="replace").splitlines()[self.said :]
        self.said += len(lines)
        said = [line.split(f"{self.folder}: ")[-1] for line in lines if "resuming from" in line or "starts over" in line]
        return said[-1] if said else "-"


def same_bits(a: Any, b: Any) -> bool:
    """Whether two nested structures are equal to the last bit."""
    if isinstance(a, torch.Tensor):
        return isinstance(b, torch.Tensor) and a.dtype == b.dtype and torch.equal(a, b)
    if isinstance(a, dict):
        return isinstance(b, dict) and a.keys() == b.keys() and all(same_bits(a[key], b[key]) for key in a)
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(map(same_bits, a, b))
    return bool(a == b)


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--kills", type=int, default=20, help="number of random kills (default: %(default)s)")
    parser.add_argument("--at", nargs="*", default=[], metavar="POINT:N", help="kill at these points first: written, best, last")
    parser.add_argument("--updates", type=int, default=100, help="length of the run (default: %(default)s)")
    parser.add_argument("--within", type=float, default=1.0, help="random kills come at most so many seconds later (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=1, help="of the random moments (default: %(default)s)")
    parser.add_argument("--out", type=pathlib.Path, help="keep everything in this new folder (default: a temporary one)")
    args = parser.parse_args(argv)
    with tempfile.TemporaryDirectory() as temporary:
        out = args.out or pathlib.Path(temporary)
        data = out / "data"
        data.mkdir(parents=True)
        assert ended(forked(lambda: write_data(data), out / "data.log")) == 0, (out / "data.log").read_text()
        killed, whole = Run(data, out / "killed", args.updates), Run(data, out / "whole", args.updates)
        kills = [lambda point=point: ended(killed.start(point)) for point in args.at]
        rng = random.Random(args.seed)
        kills += [lambda: killed.start_and_kill(rng.uniform(0, args.within))] * args.kills
        print("| kill | left behind | the next start says |\n|---|---|---|")
        damage = ""
        for number, kill in enumerate([*kills, lambda: ended(killed.start())], start=1):
            code = kill()
            if number > 1:
                print(f"| {number - 1} | {damage} | {killed.resumed()} |", flush=True)
            if code is not None and code != -signal.SIGKILL:
                break
            damage = killed.damage()
        if code == 0 and number <= len(kills):
            print(f"The run ended after {number - 1} kills: give more --updates")
        for run, end in ((killed, code), (whole, ended(whole.start()))):
            if end != 0:
                print(f"The run in {run.folder} failed:\n{run.log.read_text(errors='replace')[-3000:]}")
                return 1
        same = True
        for name, keys in (("last", ("model", "last_optimizer_state")), ("best", ("model",))):
            a, b = (read(run.folder / f"checkpoint_{name}.pt") for run in (killed, whole))
            equal = all(same_bits(a[key], b[key]) for key in keys)
            print(f"checkpoint_{name}.pt: {'the same bits' if equal else 'OTHER BITS'} as uninterrupted")
            same = same and equal and a["optimizer_history"][-1]["num_updates"] == b["optimizer_history"][-1]["num_updates"]
    return 0 if same else 1


if __name__ == "__main__":
    sys.exit(main())
