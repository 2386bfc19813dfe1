#!/usr/bin/env python
"""Speed and memory of the commands that merge, with base-size files: ``unival merge`` against copying the files it reads.

Writes one model of random weights (``--arch``) and gives it as many names as models are merged (hard links: the disk holds it once,
the work is that of several files); a copy reads and writes every one of them.  Memory is the largest amount of anonymous memory of the
merging process, without the pages of the files that it maps.

With ``--tables`` the commands that read rows are measured instead, each once: statistics and the methods that use them, learnt
coefficients, recalibration, a sweep.  Their limits say how many times a model may be in memory.  What computes on rows takes besides its
model 200 MB more than merging does for what it imports, and an image of 480 pixels 500 MB where gradients are computed.  Learning
coefficients and recalibration have the merged weights and a model that is built with them in memory at the same time.

    python benchmarks/merging.py                      # linear, four models
    python benchmarks/merging.py --method ties --base
    python benchmarks/merging.py --tables --rows 4
"""

import argparse
import json
import os
import pathlib
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass

LIMIT_OF_TIME = 1.5  # times copying the files
LIMIT_OF_MEMORY = 1.3  # times one model, and 200 MB
MEGABYTE = 1e6
SPARE = 200  # MB besides the models
BYTE_TOKENS = 300  # of the vocabulary; the rest are codes of images, which need no files


def write_model(path: pathlib.Path, arch: str, tokens: int, scale: float = 1.0) -> None:
    """A checkpoint of random weights, times ``scale``, with its configuration and vocabulary."""
    from dataclasses import asdict

    import torch

    from unival.checkpoints.convert import new_container
    from unival.models.build import build_model
    from unival.models.config import UnivalConfig
    from unival.models.unival import SIZES
    from unival.tasks.config import UnivalTaskConfig
    from unival.vocab import Vocabulary, train_vocabulary

    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        train_vocabulary(["a red square"], BYTE_TOKENS, folder)
        codes = tokens - len(Vocabulary.load(folder, 0, 0).dictionary)
        vocabulary = Vocabulary.load(folder, codes, 0)
        files = vocabulary.files()
    options = {**asdict(UnivalConfig()), **SIZES[arch], "_name": arch}
    state = build_model(options, tokens).state_dict()
    for value in {value.data_ptr(): value for value in state.values() if value.is_floating_point()}.values():
        value.mul_(scale)
    sizes = {"num_codes": codes, "num_bins": 0}
    defaults = asdict(UnivalTaskConfig(data="", seed=1, cpu=True, bf16=False, fp16=False))
    plain = {name: value for name, value in defaults.items() if not str(value).startswith("${")}
    task = {**plain, "_name": "unival_caption", **sizes}
    kept = {**sizes, "vocabulary": vocabulary.fingerprint, "vocabulary_files": files}
    torch.save(new_container(state, {"model": options, "task": task}, kept, {}), path)


def write_table(path: pathlib.Path, rows: int, size: int) -> None:
    """A table of images of noise with captions."""
    import numpy as np
    from PIL import Image

    rng = np.random.default_rng(1)
    lines = []
    for row in range(rows):
        Image.fromarray(rng.integers(0, 256, (size, size, 3), dtype=np.uint8)).save(path.parent / f"{row}.png")
        lines.append(json.dumps({"image": f"{row}.png", "caption": "a red square"}))
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def run(command: str, arguments: list[str]) -> tuple[float, float, float]:
    """Run a command of ``unival``: seconds, seconds of the processor, and the peak of anonymous memory in MB."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    start = time.perf_counter()
    process = subprocess.Popen([sys.executable, "-m", "unival", command, *arguments], stdout=subprocess.DEVNULL)
    peak = 0.0
    while process.poll() is None:
        try:
            status = pathlib.Path(f"/proc/{process.pid}/status").read_text(encoding="utf-8")
        except OSError:
            break
        found = [line.split()[1] for line in status.splitlines() if line.startswith("RssAnon")]
        peak = max([peak, *(int(kilobytes) * 1024 / MEGABYTE for kilobytes in found)])
        time.sleep(0.02)
    if process.wait():
        raise SystemExit(f"unival {command} {' '.join(arguments)}: ended with code {process.returncode}")
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    used = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return time.perf_counter() - start, used, peak


def copy(files: list[pathlib.Path], to: pathlib.Path) -> tuple[float, float]:
    """Copy files one after the other, through to the disk: seconds, and seconds of the processor."""
    start, used = time.perf_counter(), time.process_time()
    for file in files:
        with file.open("rb") as source, to.open("wb") as target:
            shutil.copyfileobj(source, target, 1 << 22)
            target.flush()
            os.fsync(target.fileno())
    return time.perf_counter() - start, time.process_time() - used


def measure_merge(folder: pathlib.Path, args: argparse.Namespace) -> None:
    """Measure ``unival merge``, and print."""
    first, out = folder / "model-0.pt", folder / "out.pt"
    write_model(first, args.arch, args.vocabulary)
    files = [first, *(folder / f"model-{i}.pt" for i in range(1, args.models))]
    for file in files[1:]:
        file.hardlink_to(first)
    models, base = list(map(str, files)), []
    if args.base:
        files.append(folder / "base.pt")
        write_model(files[-1], args.arch, args.vocabulary, scale=0.99)
        base = ["--base", str(files[-1])]
    merges, copies = [], []
    for _ in range(args.rounds):
        copies.append(copy(files, folder / "copy.pt"))
        (folder / "copy.pt").unlink()
        merges.append(run("merge", [*models, *base, "--method", args.method, "--out", str(out)]))
        out.unlink()
    size = first.stat().st_size / MEGABYTE
    (wall, cpu, _), (copy_wall, copy_cpu) = min(merges), min(copies)
    peak, limit = max(peak for _, _, peak in merges), LIMIT_OF_MEMORY * size + SPARE
    print(f"{args.method} of {args.models} models of {size:.0f} MB")
    print(f"merge  {wall:6.2f} s ({cpu:.2f} s of the processor)")
    print(f"copy   {copy_wall:6.2f} s ({copy_cpu:.2f} s of the processor)")
    print(f"ratio  {wall / copy_wall:6.2f} (limit {LIMIT_OF_TIME})")
    print(f"memory {peak:6.0f} MB anonymous (limit {limit:.0f} MB)")


@dataclass(frozen=True)
class Work:
    """A command that is measured.

    Attributes:
        name: what it is.
        command: the command of ``unival``.
        arguments: its arguments.
        models: how many times a model may be in memory.
        removed: a file that is not needed any more afterwards.
    """

    name: str
    command: str
    arguments: list[str]
    models: float
    removed: pathlib.Path | None = None


def works(folder: pathlib.Path, args: argparse.Namespace) -> Iterator[Work]:
    """The commands that read rows, in an order in which files are there and few at a time."""
    models = [str(folder / f"model-{i}.pt") for i in range(args.models)]
    table, base, out = str(folder / "table.jsonl"), str(folder / "base.pt"), folder / "out.pt"
    merge = [*models, "--out", str(out)]
    small = ["--batch-size", str(args.rows)]
    for kind, method, copies in (("fisher", "fisher", 3), ("gram", "regmean", 2)):
        file = folder / f"{kind}.safetensors"
        yield Work(f"statistics, {kind}", "statistics", [models[0], "--kind", kind, "--table", table, "--out", str(file)], copies)
        files = ",".join([str(file)] * len(models))
        yield Work(f"merge, {method}", "merge", [*merge, "--method", method, "--statistics", files], LIMIT_OF_MEMORY, out)
        file.unlink()
    tables = ",".join([table] * len(models))
    adaptive = ["--base", base, "--method", "adamerging", "--tables", tables, "--steps", str(args.steps), *small]
    # merged weights and the model, which has its own until they are loaded; a batch's gradients
    yield Work(f"merge, adamerging, {args.steps} steps", "merge", [*merge, *adaptive], 4, out)
    yield Work("merge, linear, recalibrated", "merge", [*merge, "--recalibrate", table, *small], 3, out)
    swept = ["--points", "0,0.5,1"] if args.models == 2 else ["--points", "0,1"]
    points = ["--table", table, *swept, "--resamples", "0", *small]
    yield Work("sweep", "sweep", [*models, *points, "--out", str(folder / "sweep")], 2)
    recalibrated = ["--recalibrate", table, "--out", str(folder / "recalibrated")]
    yield Work("sweep, recalibrated", "sweep", [*models, *points, *recalibrated], 2)


def measure_tables(folder: pathlib.Path, args: argparse.Namespace) -> None:
    """Measure the commands that read rows, and print."""
    first = folder / "model-0.pt"
    write_model(first, args.arch, args.vocabulary)
    write_model(folder / "base.pt", args.arch, args.vocabulary, scale=0.99)
    for number in range(1, args.models):
        (folder / f"model-{number}.pt").hardlink_to(first)
    write_table(folder / "table.jsonl", args.rows, args.image_size)
    size = first.stat().st_size / MEGABYTE
    print(f"{args.models} models of {size:.0f} MB, {args.rows} rows")
    for work in works(folder, args):
        wall, cpu, peak = run(work.command, work.arguments)
        limit = work.models * size + SPARE
        print(f"{work.name:28} {wall:7.1f} s ({cpu:6.1f} s of the processor) {peak:6.0f} MB anonymous (limit {limit:.0f} MB)", flush=True)
        if work.removed is not None:
            work.removed.unlink()


def parser() -> argparse.ArgumentParser:
    """The options."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--method", default="linear")
    add("--base", action="store_true", help="give the method a base")
    add("--models", type=int, default=4, help="(default: %(default)s)")
    add("--arch", default="unival_base")
    add("--vocabulary", type=int, default=59457, help="its size (default: %(default)s, as published)")
    add("--rounds", type=int, default=3, help="the best of so many is shown (default: %(default)s)")
    add("--tables", action="store_true", help="measure the commands that read rows")
    add("--rows", type=int, default=4, help="with --tables: images, all in one batch (default: %(default)s)")
    add("--image-size", type=int, default=480, help="with --tables: pixels (default: %(default)s)")
    add("--steps", type=int, default=3, help="with --tables: steps of AdaMerging (default: %(default)s)")
    return parser


def main(argv: list[str] | None = None) -> None:
    """Measure and print."""
    args = parser().parse_args(argv)
    with tempfile.TemporaryDirectory() as name:
        (measure_tables if args.tables else measure_merge)(pathlib.Path(name), args)


if __name__ == "__main__":
    main()
