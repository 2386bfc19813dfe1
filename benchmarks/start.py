"""Times what comes before the work: ``import unival``, and a training run of 10 rows to its first update.

    python benchmarks/start.py [--against FOLDER] [--rounds 5]

Every figure starts a process of its own.  The run trains a tiny model on captions of images of 40 x 40 pixels, writes nothing but its log
and does not validate.  What every run has to import, whatever this package does, limits it: torch, fairseq, and what torch imports for its
first optimizer (``torch._dynamo``).  Unlike that figure, a run imports them without Python's garbage collector.  Bytecode is kept between
the rounds, in a folder of its own.
"""

import argparse
import contextlib
import json
import os
import pathlib
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from functools import partial

import numpy as np
from harness import Builders, Figure, arguments, main

ROWS = 10
CAPTION = "a red square above a green circle"
INSTRUCTION = "[IMAGE:image] what does the image describe? -> [TEXT:caption]"
IMPORTS = {
    "import torch": "import torch",
    "imports that every run needs": "import torch, fairseq; torch.optim.Adam([torch.nn.Parameter(torch.ones(1))])",
    "import unival": "import unival",
}
MODEL = ("--arch", "unival_tiny", "--encoder-embed-dim", "32", "--encoder-ffn-embed-dim", "64", "--decoder-ffn-embed-dim", "64")
HEADS = ("--encoder-attention-heads", "2", "--decoder-attention-heads", "2", "--image-backbone", "resnet18", "--patch-image-size", "32")
LOOP = ("--criterion", "unival_label_smoothed", "--optimizer", "adam", "--lr", "1e-3", "--batch-size", "4", "--num-workers", "0")


@contextlib.contextmanager
def table(args: argparse.Namespace) -> Iterator[list[str]]:
    """A folder with a table of images, and a vocabulary."""
    from PIL import Image

    from unival.vocab import train_vocabulary

    with tempfile.TemporaryDirectory() as temporary:
        folder = pathlib.Path(temporary)
        train_vocabulary([f" {CAPTION}", f" {INSTRUCTION}"], 300, folder / "vocab")
        rng = np.random.default_rng(0)
        for i in range(ROWS):
            Image.fromarray(rng.integers(0, 256, (40, 40, 3), dtype=np.uint8)).save(folder / f"{i}.jpg")
        lines = [json.dumps({"image": f"{i}.jpg", "caption": CAPTION}) for i in range(ROWS)]
        (folder / "train.jsonl").write_text("\n".join(lines) + "\n")
        yield ["--folder", str(folder)]


def seconds(command: list[str], args: argparse.Namespace) -> float:
    """Wall or processor time of a process; it starts in the folder of the table, since Python looks for packages where it starts first."""
    bytecode = {"PYTHONPYCACHEPREFIX": str(args.folder / "bytecode"), "PYTHONDONTWRITEBYTECODE": ""}
    start, used = time.perf_counter(), resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(command, check=True, capture_output=True, cwd=args.folder, env={**os.environ, **bytecode})
    if args.clock == "wall":
        return time.perf_counter() - start
    now = resource.getrusage(resource.RUSAGE_CHILDREN)
    return now.ru_utime + now.ru_stime - used.ru_utime - used.ru_stime


def importing(code: str, args: argparse.Namespace) -> Figure:
    """A process that imports."""
    return lambda: {"": seconds([sys.executable, "-W", "ignore", "-c", code], args)}


def first_update(args: argparse.Namespace) -> Figure:
    """A run of one update."""
    task = ["--task", "unival", "--instruction", INSTRUCTION, "--num-codes", "0", "--num-bins", "0", "--eval-metrics="]
    command = [sys.executable, "-W", "ignore", "-m", "unival.cli", "train", str(args.folder), *task, *MODEL, *HEADS, *LOOP]
    command += ["--cpu", "--max-update", "1", "--disable-validation", "--no-save", "--save-dir", str(args.folder / "out")]
    return lambda: {"": seconds(command, args)}


def figures(args: argparse.Namespace) -> tuple[Builders, str]:
    builders: Builders = {name: partial(importing, code, args) for name, code in IMPORTS.items()}
    return {**builders, f"unival train, {ROWS} rows, to the first update": partial(first_update, args)}, ""


def parser() -> argparse.ArgumentParser:
    result = arguments(__doc__)
    result.add_argument("--folder", type=pathlib.Path, help=argparse.SUPPRESS)
    return result


if __name__ == "__main__":
    main(__file__, parser(), figures, prepare=table)
