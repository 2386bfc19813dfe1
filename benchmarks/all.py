"""Runs the benchmarks one after the other and writes what they measure as one page.

    python benchmarks/all.py --against FOLDER [--rounds 5] [--threads 2] [--clock wall] [--only model,generation] [--out FILE]

Every benchmark runs with its own defaults, against the same other tree (a git worktree of another commit), in turns.  The page has a table
for each: medians, the median of the rounds' ratios, the lowest and the highest, and what was aimed at, where something was.  With
``--only`` the other tables stay as they are on the page.
"""

import argparse
import datetime
import json
import os
import pathlib
import platform
import re
import statistics
import subprocess
import sys
import tempfile
from typing import Any

from harness import THIS_TREE, Result, arguments

FOLDER = pathlib.Path(__file__).resolve().parent
SCRIPTS = ("model", "generation", "api", "candidates", "groups", "data", "start")
AIMS = {  # name of a figure -> this tree : other, at most
    "caption, batch 4, 384 px, fp32, all": 0.92,
    "caption, batch 4, 384 px, bf16, all": 0.88,
    "video, batch 2, 8 x 224 px, bf16, all": 0.75,
    "image, fp32, all": 0.70,
    "image, bf16, all": 0.72,
    "image, fp32, encoder": 0.85,
    "fp32, 64 images": 0.67,
    "JPEG, 640 x 480 to 384 px, 64 rows": 0.30,
    "8 of 300 frames, H.264 640 x 480, 2 rows": 0.50,
    "import unival": 0.50,
    "unival train, 10 rows, to the first update": 0.50,
}


def git(folder: pathlib.Path, *arguments: str) -> str:
    """What git says in a folder, or "" where it is none of git's."""
    found = subprocess.run(["git", "-C", str(folder), *arguments], capture_output=True, text=True)
    return found.stdout.strip()


def commit(folder: pathlib.Path) -> str:
    """The commit of a tree, and whether files differ from it."""
    changed = git(folder, "status", "--porcelain", "--untracked-files=no")
    return (git(folder, "rev-parse", "--short", "HEAD") or "no git") + (" with changes" if changed else "")


def machine() -> str:
    """Processor, cores, vector instructions, load and versions, in a line."""
    import torch

    info = pathlib.Path("/proc/cpuinfo")
    found = re.search(r"model name\s*:\s*(.+)", info.read_text(encoding="utf-8")) if info.exists() else None
    processor = found[1] if found else platform.processor()
    load = f"{os.getloadavg()[0]:.1f} processes running at the start"
    return f"{processor}, {os.cpu_count()} cores, {torch.backends.cpu.get_cpu_capability()}, torch {torch.__version__}; {load}"


def number(value: float) -> str:
    return f"{value:.3g}" if value < 1000 else f"{value:.0f}"


def table(name: str, found: dict[str, Any], where: str, args: argparse.Namespace) -> str:
    """A benchmark's section of the page; ``where``: see :func:`machine`, before it ran."""
    rows = []
    for result in (Result(**values) for values in found["results"]):
        cells = [result.name, number(statistics.median(result.ours)), "", "", "", ""]
        if ratios := result.ratios:
            spread = f"{min(ratios):.2f} to {max(ratios):.2f}"
            cells[2:5] = number(statistics.median(result.theirs)), f"**{statistics.median(ratios):.2f}**", spread
            cells[5] = f"{AIMS[result.name]:.2f}" if result.name in AIMS else ""
        rows.append("| " + " | ".join(cells) + " |")
    when = f"{datetime.datetime.now():%Y-%m-%d}, {args.rounds} rounds, {found['clock']} seconds, {args.threads} threads"
    lines = [
        f"## {name}.py",
        "",
        f"{when}: {commit(THIS_TREE)} against {commit(args.against)} on {where}.",
        *(f"{line}." for line in found["note"].splitlines()),
        "",
        "| figure | this tree | other | ratio | lowest to highest | aim |",
        "|---|---|---|---|---|---|",
        *rows,
        "",
    ]
    return "\n".join(lines)


HEAD = """# What the benchmarks measured

Written by `python benchmarks/all.py --against FOLDER`, with FOLDER a git worktree of the commit named in each section. Both trees are
measured in turns; a ratio is the median over the rounds of this tree's value by the other one's, below 1 where this tree needs less.
Values are seconds unless their name says otherwise.

"""


def with_section(page: str, name: str, section: str) -> str:
    """The page with a benchmark's section put in, or replaced, in the order of :data:`SCRIPTS`."""
    parts = re.split(r"^(?=## )", page or HEAD, flags=re.MULTILINE)
    sections = {part.split(".py", 1)[0].removeprefix("## "): part.rstrip() + "\n\n" for part in parts[1:]}
    sections[name] = section + "\n"
    known = [key for key in SCRIPTS if key in sections]
    return (HEAD + "".join(sections[key] for key in known)).rstrip() + "\n"


def main(argv: list[str] | None = None) -> None:
    parser = arguments(__doc__)
    parser.add_argument("--out", type=pathlib.Path, default=FOLDER / "RESULTS.md", metavar="FILE", help="(default: %(default)s)")
    parser.add_argument("--figures", default="", metavar="TEXT", help="only the figures whose names contain this")
    args = parser.parse_args(argv)
    names = args.only.split(",") if args.only else list(SCRIPTS)
    if unknown := sorted(set(names) - set(SCRIPTS)):
        parser.error(f"--only {','.join(unknown)}: the benchmarks are {', '.join(SCRIPTS)}")
    if args.against is None or not (args.against / "unival").is_dir():
        parser.error("--against FOLDER: give a git worktree of another commit")
    for name in names:
        with tempfile.TemporaryDirectory() as temporary:
            file = pathlib.Path(temporary, "figures.json")
            options = ["--against", str(args.against), "--rounds", str(args.rounds), "--threads", str(args.threads), "--only", args.figures]
            command = [sys.executable, str(FOLDER / f"{name}.py"), *options, "--clock", args.clock, "--json", str(file)]
            print(f"{name}.py …", flush=True)
            where = machine()
            subprocess.run(command, check=True)
            found = json.loads(file.read_text(encoding="utf-8"))
        page = args.out.read_text(encoding="utf-8") if args.out.exists() else ""
        args.out.write_text(with_section(page, name, table(name, found, where, args)), encoding="utf-8")


if __name__ == "__main__":
    main()
