"""Runs one step of a script and shows how far it is: a bar on a terminal, a line every 15 seconds elsewhere.

    python live.py --title pictures --log LOG --files 'DIR/*/*.jpg' --total 20000 -- COMMAND ...
    python live.py --title captions --log LOG --lines FILE --prefix H- --total 400 -- COMMAND ...
    python live.py --title training --log LOG --training train.jsonl --minutes 6 --limit 30 --signal FILE --ratio 4 \\
        --summary training.json -- COMMAND ...
    python live.py --title videos --log LOG --training train.jsonl --updates 300 --summary training.json -- COMMAND ...

The command's own messages go to LOG; when it fails, the end of LOG is shown (or its last line alone, when that says what was
wrong), and its exit code is passed on. Needs nothing but Python.
"""

import argparse
import glob
import json
import math
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import IO, Protocol, TextIO

LINE_SECONDS = 15.0  # between two lines in a log
BAR_SECONDS = 0.5  # between two looks on a terminal
BAR = 24  # characters
LEAST_SCORE = 1.0  # CIDEr
SHOWN_ON_FAILURE = 12  # lines at the end of the command's messages
ERROR = re.compile(r"(unival: )?error: |The model ")  # starts of lines that say by themselves what is wrong


def clock_time(seconds: float) -> str:
    """Minutes and seconds: 75 -> "1:15"."""
    whole = max(0, round(seconds))
    return f"{whole // 60}:{whole % 60:02d}"


class Screen:
    """Where the state is shown: one bar that is rewritten on a terminal, lines now and then elsewhere."""

    def __init__(self, stream: TextIO, clock: Callable[[], float] = time.monotonic) -> None:
        self.stream, self.clock = stream, clock
        self.is_terminal = stream.isatty()
        self._last = clock()  # the first line after LINE_SECONDS: short steps have none
        self._drawn = False

    def show(self, fraction: float | None, text: str) -> None:
        """The state: how much is done (None: nobody knows) and what there is to say about it."""
        if self.is_terminal:
            done = BAR if fraction is None else round(BAR * min(1.0, max(0.0, fraction)))
            bar = "[" + "." * BAR + "] " if fraction is None else "[" + "#" * done + "." * (BAR - done) + "] "
            width = shutil.get_terminal_size().columns - 1
            self._write("\r" + (bar + text)[:width].ljust(width))
            self._drawn = True
        elif self.clock() - self._last >= LINE_SECONDS:
            self._last = self.clock()
            self._write(f"  {text}\n")

    def say(self, text: str) -> None:
        """A line that stays."""
        self.clear()
        self._write(f"  {text}\n")

    def clear(self) -> None:
        """Take the bar away."""
        if self._drawn:
            self._write("\r" + " " * (shutil.get_terminal_size().columns - 1) + "\r")
            self._drawn = False

    def _write(self, text: str) -> None:
        self.stream.write(text)
        self.stream.flush()


class Watch(Protocol):
    """What is known about a running command."""

    def look(self, elapsed: float, screen: Screen) -> tuple[float | None, str]:
        """The part that is done (None: unknown) and a text, ``elapsed`` seconds after the start; may say lines that stay."""


@dataclass
class Elapsed:
    """A step of which nothing can be counted."""

    title: str

    def look(self, elapsed: float, screen: Screen) -> tuple[float | None, str]:
        return None, f"{self.title}: {clock_time(elapsed)} so far"


def rate(speed: float) -> str:
    """A number per second with two digits before or after the point, as many as are of use."""
    return f"{speed:.0f}" if speed >= 10 else f"{speed:.2g}"


@dataclass
class Counted:
    """A step that makes ``total`` things, of which ``count`` tells how many there are."""

    title: str
    total: int
    count: Callable[[], int]

    def look(self, elapsed: float, screen: Screen) -> tuple[float | None, str]:
        done = self.count()
        if not done or done >= self.total:
            left = f"{'starting' if not done else 'finishing'}, {clock_time(elapsed)} so far"
        else:
            speed = done / elapsed
            left = f"{rate(speed)}/s, {clock_time((self.total - done) / speed)} left"
        return done / self.total, f"{self.title}: {done} of {self.total}, {left}"


def count_files(pattern: str) -> int:
    """Files of a glob pattern."""
    return sum(1 for _ in glob.iglob(pattern))


class Tail:
    """The new whole lines of a file that somebody is writing."""

    def __init__(self, path: pathlib.Path) -> None:
        self.path, self._read, self._rest = path, 0, b""

    def lines(self) -> list[str]:
        """The lines since the last call; none while the file is not there."""
        try:
            with self.path.open("rb") as file:
                file.seek(self._read)
                content = file.read()
        except FileNotFoundError:
            return []
        self._read += len(content)
        *whole, self._rest = (self._rest + content).split(b"\n")
        return [line.decode("utf-8", errors="replace") for line in whole]


class CountedLines:
    """How many lines of a file start with a prefix."""

    def __init__(self, path: pathlib.Path, prefix: str) -> None:
        self._tail, self._prefix, self._count = Tail(path), prefix, 0

    def __call__(self) -> int:
        self._count += sum(line.startswith(self._prefix) for line in self._tail.lines())
        return self._count


@dataclass
class Training:
    """fairseq's training, from its JSON log.

    When the validation score with the right pixels reaches ``ratio`` times that with another image's (and LEAST_SCORE, since of
    two scores near zero any ratio may be chance), the file ``signal`` is made: the schedule `unival_timed` then ends training when
    ``minutes`` are over, else it goes on for ``limit`` at most. Where a number of updates is
    ``planned``, all of that has no effect.
    """

    log: pathlib.Path
    minutes: float
    limit: float
    ratio: float
    signal: pathlib.Path | None
    metric: str = "cider"
    title: str = "training"
    updates: int = 0
    speed: float = 0.0  # updates a second
    loss: float = math.nan  # bits per token
    planned: int = 0  # updates; 0: time is planned instead
    last_update: int = 0  # the last one planned, or known once the learning rate falls
    wall: float = 0.0  # seconds of training at the last line
    looks: bool = False
    scores: dict[int, dict[str, float]] = field(default_factory=dict)  # update -> subset -> score
    wall_read: float = 0.0

    def __post_init__(self) -> None:
        self._tail = Tail(self.log)
        self.last_update = self.last_update or self.planned

    def look(self, elapsed: float, screen: Screen) -> tuple[float | None, str]:
        for line in self._tail.lines():
            start = line.find("{")
            try:
                record = json.loads(line[start:]) if start >= 0 else None
            except ValueError:
                continue
            if isinstance(record, dict):
                self.read(record, elapsed, screen)
        if not self.updates:
            return None, f"{self.title}: starting, {clock_time(elapsed)} so far"
        seconds = self.wall + elapsed - self.wall_read
        parts = [f"update {self.updates}", f"{rate(self.speed)}/s", f"loss {self.loss:.2f}", *self.score_text()]
        left, done = self.left(seconds)
        return done, f"{self.title}: " + ", ".join([*parts, left])

    def read(self, record: dict, elapsed: float, screen: Screen) -> None:
        """Take over what a line of the log says; its numbers are strings."""
        if "num_updates" in record and "ups" in record:
            self.updates = int(record["num_updates"])
            self.speed, self.loss = float(record["ups"]), float(record["loss"])
            self.wall, self.wall_read = float(record["wall"]), elapsed
            self.last_update = int(float(record.get("last_update", self.last_update)))
        for subset in ("valid", "valid_swapped"):
            score = record.get(f"{subset}_{self.metric}")
            if score is not None:
                update = int(float(record[f"{subset}_num_updates"]))
                known = self.scores.setdefault(update, {})
                if subset not in known:
                    known[subset] = float(score)
                    if len(known) == 2:
                        self.compare(update, known, screen)

    def compare(self, update: int, known: dict[str, float], screen: Screen) -> None:
        """Say what a validation gave; give the signal when the model looks."""
        right, other = known["valid"], known["valid_swapped"]
        line = f"update {update}: validation CIDEr {right:.2f} with the right pixels, {other:.2f} with another image's"
        if right < LEAST_SCORE or right < self.ratio * other:
            screen.say(line)
            return
        screen.say(line + ("" if self.looks else ": the model looks"))
        self.looks = True
        if self.signal is not None:
            self.signal.touch()

    def score_text(self) -> list[str]:
        """The newest pair of scores, in few words."""
        both = [known for _, known in sorted(self.scores.items()) if len(known) == 2]
        return [f"CIDEr {both[-1]['valid']:.2f} (other image {both[-1]['valid_swapped']:.2f})"] if both else []

    def left(self, seconds: float) -> tuple[str, float]:
        """How much time is left, in words, and the part that is done."""
        if self.last_update and self.updates >= self.last_update:
            return "finishing", 1.0
        if self.last_update:
            left = (self.last_update - self.updates) / self.speed if self.speed else 0.0
            return f"{clock_time(left)} left", self.updates / self.last_update
        plan, limit = self.minutes * 60, self.limit * 60
        if self.looks or seconds < plan:
            return f"{clock_time(plan - seconds)} left", seconds / plan if seconds < plan else 0.99
        return f"until it looks, at most {clock_time(limit - seconds)} more", seconds / limit

    def summary(self) -> dict:
        """What the last step needs to know."""
        found = {"updates": self.updates, "seconds": self.wall, "looks": self.looks, "scores": self.scores}
        return found | {"title": self.title, "planned": self.planned}


def run(command: Sequence[str], messages: IO[bytes], output: IO[bytes], watch: Watch, screen: Screen) -> int:
    """Runs ``command``, its standard error going to ``messages`` and its standard output to ``output``; returns its exit code."""
    start = time.monotonic()
    process = subprocess.Popen(command, stdout=output, stderr=messages, stdin=subprocess.DEVNULL)
    try:
        while True:
            try:
                code = process.wait(BAR_SECONDS)
                break
            except subprocess.TimeoutExpired:
                screen.show(*watch.look(time.monotonic() - start, screen))
        watch.look(time.monotonic() - start, screen)
    except KeyboardInterrupt:  # the command got it as well
        process.wait()
        code = 130
    finally:
        screen.clear()
    return code


def failure(code: int, messages: Sequence[str], command: Sequence[str], log: pathlib.Path) -> list[str]:
    """What to show of a command that failed: its own one-line error, or the end of its messages and where they are."""
    if code == 130:
        return [f"Stopped; all messages are in {log}"]
    if messages and ERROR.match(messages[-1]):
        return [messages[-1]]
    return [*messages[-SHOWN_ON_FAILURE:], f"This failed: {' '.join(command[:2])}; all its messages are in {log}"]


def parser() -> argparse.ArgumentParser:
    """The command's arguments."""
    made = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("--title", required=True, help="what the step makes, in a word or two")
    made.add_argument("--log", required=True, type=pathlib.Path, help="file for the command's messages")
    made.add_argument("--files", metavar="GLOB", help="count these files")
    made.add_argument("--lines", type=pathlib.Path, metavar="FILE", help="count the lines of this file")
    made.add_argument("--prefix", default="", help="with --lines: only those that start so")
    made.add_argument("--total", type=int, default=0, help="how many there will be")
    made.add_argument("--training", type=pathlib.Path, metavar="FILE", help="fairseq's JSON log")
    made.add_argument("--minutes", type=float, default=0, help="with --training: minutes that are planned")
    made.add_argument("--limit", type=float, default=0, help="with --training: minutes at most")
    made.add_argument("--updates", type=int, default=0, help="with --training: updates that are planned, in place of minutes")
    made.add_argument("--signal", type=pathlib.Path, metavar="FILE", help="with --training: made when the model looks")
    made.add_argument("--ratio", type=float, default=4, help="with --training: scores from which on the model looks")
    made.add_argument("--summary", type=pathlib.Path, metavar="FILE", help="with --training: what became of it, as JSON")
    made.add_argument("--show", action="store_true", help="show what the command writes to standard output, at its end")
    made.add_argument("command", nargs="+", help="the command, after --")
    return made


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command and shows its state; returns its exit code."""
    args = parser().parse_args(arguments)
    watch: Watch = Elapsed(args.title)
    if args.training:
        title = args.title if args.updates else "training"
        watch = Training(args.training, args.minutes, args.limit, args.ratio, args.signal, title=title, planned=args.updates)
    elif args.files:
        watch = Counted(args.title, args.total, lambda: count_files(args.files))
    elif args.lines:
        watch = Counted(args.title, args.total, CountedLines(args.lines, args.prefix))
    screen = Screen(sys.stdout)
    with args.log.open("wb") as messages, tempfile.TemporaryFile() as kept:
        code = run(args.command, messages, kept if args.show else messages, watch, screen)
        kept.seek(0)
        shown = kept.read().decode("utf-8", errors="replace").splitlines()
    for line in shown:
        screen.say(line)
    if isinstance(watch, Training) and args.summary:
        args.summary.write_text(json.dumps(watch.summary()) + "\n", encoding="utf-8")
    if code:
        lines = args.log.read_text(encoding="utf-8", errors="replace").splitlines()
        sys.stderr.write("\n".join(failure(code, lines, args.command, args.log)) + "\n")
    return code


if __name__ == "__main__":
    sys.exit(main())
