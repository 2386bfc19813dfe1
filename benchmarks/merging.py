#!/usr/bin/env python
"""Speed and memory of ``unival merge`` with base-size files, against copying the files it reads.

Writes one model of random weights (``--arch``) and gives it as many names as models are merged (hard links: the disk holds it once,
the work is that of several files); a copy reads and writes every one of them.  Memory is the largest amount of anonymous memory of the
merging process, without the pages of the files that it maps.

    python benchmarks/merging.py                      # linear, four models
    python benchmarks/merging.py --method ties --base
"""

import argparse
import os
import pathlib
import resource
import shutil
import subprocess
import sys
import tempfile
import time

LIMIT_OF_TIME = 1.5  # times copying the files
LIMIT_OF_MEMORY = 1.3  # times one model, and 200 MB
MEGABYTE = 1e6


def write_model(path: pathlib.Path, arch: str, tokens: int, scale: float = 1.0) -> None:
    """A checkpoint of random weights, times ``scale``, with its configuration."""
    from dataclasses import asdict

    import torch

    from unival.checkpoints.convert import new_container
    from unival.models.build import build_model
    from unival.models.config import UnivalConfig
    from unival.models.unival import SIZES

    options = {**asdict(UnivalConfig()), **SIZES[arch], "_name": arch}
    state = build_model(options, tokens).state_dict()
    for value in {value.data_ptr(): value for value in state.values() if value.is_floating_point()}.values():
        value.mul_(scale)
    torch.save(new_container(state, {"model": options, "task": {"_name": "unival"}}, {}, {}), path)


def merge(arguments: list[str]) -> tuple[float, float, float]:
    """Run ``unival merge``: seconds, seconds of the processor, and the peak of anonymous memory in MB."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    start = time.perf_counter()
    process = subprocess.Popen([sys.executable, "-m", "unival", "merge", *arguments], stdout=subprocess.DEVNULL)
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
        raise SystemExit(f"unival merge {' '.join(arguments)}: ended with code {process.returncode}")
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


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--method", default="linear")
    parser.add_argument("--base", action="store_true", help="give the method a base")
    parser.add_argument("--models", type=int, default=4, help="(default: %(default)s)")
    parser.add_argument("--arch", default="unival_base")
    parser.add_argument("--vocabulary", type=int, default=59457, help="its size (default: %(default)s, as published)")
    parser.add_argument("--rounds", type=int, default=3, help="the best of so many is shown (default: %(default)s)")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
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
            merges.append(merge([*models, *base, "--method", args.method, "--out", str(out)]))
            out.unlink()
        size = first.stat().st_size / MEGABYTE
        (wall, cpu, _), (copy_wall, copy_cpu) = min(merges), min(copies)
        peak, limit = max(peak for _, _, peak in merges), LIMIT_OF_MEMORY * size + 200
        print(f"{args.method} of {args.models} models of {size:.0f} MB")
        print(f"merge  {wall:6.2f} s ({cpu:.2f} s of the processor)")
        print(f"copy   {copy_wall:6.2f} s ({copy_cpu:.2f} s of the processor)")
        print(f"ratio  {wall / copy_wall:6.2f} (limit {LIMIT_OF_TIME})")
        print(f"memory {peak:6.0f} MB anonymous (limit {limit:.0f} MB)")


if __name__ == "__main__":
    main()
