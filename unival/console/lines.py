"""Show the essential messages of a run on the console; the log file has all.  Imports nothing heavy.

fairseq reports by logging alone, so the console is a logging handler: it prints this package's own messages, rewrites some of
fairseq's, draws progress from the records of ``unival.progress`` and leaves out the rest.
"""

import json
import logging
import re
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, TextIO

from unival.errors import counted

PROGRESS = "unival.progress"  # logger of the records of ``unival.tasks.progress``
FORMAT = "%(asctime)s | %(levelname)s | %(name)s | %(message)s"
DATE_FORMAT = "%Y-%m-%d %H:%M:%S"
SHOWN_LOGGERS = ("unival", "fairseq", "fairseq_cli")
SECONDS_PER_LINE = 15.0  # between two lines of progress in a log
SECONDS_PER_FRAME = 0.2  # between two updates of the bar on a terminal
BAR_WIDTH = 24
REPEATS = 3  # warnings of one kind that are shown; further ones once per SECONDS_PER_REPEAT
SECONDS_PER_REPEAT = 60.0
# Values of fairseq that are neither losses nor scores.
BOOKKEEPING = frozenset(
    ["epoch", "nll_loss", "ppl", "wps", "ups", "wpb", "bsz", "num_updates", "wall", "train_wall", "lr", "gnorm", "clip"]
    + ["loss_scale", "gb_free", "gb_total", "ema_decay", "n_correct", "total", "ntokens", "nsentences"]
)
COUNTS = frozenset(["num_skipped", "num_truncated", "num_empty"])  # shown unless 0
# fairseq's messages that are shown, rewritten: logger, pattern, text.
REPHRASED: tuple[tuple[str, re.Pattern[str], str], ...] = tuple(
    (logger, re.compile(pattern), shown)
    for logger, pattern, shown in (
        (
            "fairseq_cli.train",
            r"num\. shared model params: (?P<all>[\d,]+) \(num\. trained: (?P=all)\)",
            "model: {all} parameters",
        ),
        (
            "fairseq_cli.train",
            r"num\. shared model params: (?P<all>[\d,]+) \(num\. trained: (?P<trained>[\d,]+)\)",
            "model: {all} parameters, {trained} of them trained",
        ),
        (  # fairseq has reset its count, as --finetune-from-model does
            "fairseq.trainer",
            r"Loaded checkpoint (?P<path>.+) \(epoch \d+ @ 0 updates\)",
            "starting from {path}",
        ),
        (
            "fairseq.trainer",
            r"Loaded checkpoint (?P<path>.+) \(epoch (?P<epoch>\d+) @ (?P<updates>\d+) updates\)",
            "starting from {path} (epoch {epoch}, {updates} updates)",
        ),
        ("fairseq_cli.train", r"(?P<all>early stop since .*)", "{all}"),
        ("fairseq_cli.train", r"Stopping training due to cumulative_training_time: .* > (?P<all>.*)", "stopping: {all}"),
        ("fairseq_cli.train", r"(?P<all>stopping training because current learning rate .*)", "{all}"),
        ("fairseq_cli.validate", r"loading model\(s\) from (?P<path>.+)", "model: {path}"),
        ("fairseq_cli.generate", r"loading model\(s\) from (?P<path>.+)", "model: {path}"),
        (
            "fairseq_cli.generate",
            r"Translated (?P<rows>[\d,]+) sentences \(.*\) in (?P<seconds>[\d.]+)s .*",
            "generated {rows} rows in {seconds} s",
        ),
    )
)
SAVED = re.compile(r"Saved checkpoint (?P<path>.+) \(epoch (?P<epoch>\d+) @ (?P<updates>\d+) updates, .*")


# fairseq's messages at the start of an epoch: its number, its updates.
EPOCH = re.compile(r"begin training epoch (\d+)")
UPDATES = re.compile(r"(?:skip final residual batch, )?grouped total_num_itrs = (\d+)")


@dataclass
class RunPlan:
    """The known limits of a training run, which ends at the first of them (0: no limit)."""

    max_update: int = 0
    max_epoch: int = 0
    metric: str = "loss"  # by which the best checkpoint is chosen
    maximize: bool = False

    def updates(self, per_epoch: int | None, planned: int | None = None) -> int | None:
        """Updates of the whole run, given those of an epoch or, if known, of the run; None if it has no known end."""
        limits = [self.max_update, planned or self.max_epoch * (per_epoch or 0)]
        return min((limit for limit in limits if limit > 0), default=None)


@dataclass
class Seen:
    """What the console knows of a run."""

    updates: int = 0
    epoch: int = 0
    per_epoch: int | None = None  # updates
    best: float | None = None
    counts: dict[Any, int] = field(default_factory=dict)  # kind of warning -> number
    shown_at: dict[Any, float] = field(default_factory=dict)


class Console(logging.Handler):
    """The logging handler that writes to the console; a progress bar is drawn only on a terminal.

    With ``show_stats``, fairseq's own progress lines are shown instead of ours (``--log-format``).
    """

    def __init__(
        self,
        stream: TextIO,
        show_stats: bool = False,
        bar: bool = True,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        super().__init__(logging.INFO)
        self.stream = stream
        self.show_stats = show_stats
        self.is_terminal = bar and stream.isatty()
        self.clock = clock
        self.plan = RunPlan()
        self.seen = Seen()
        self._unfinished = False  # whether a step was shown of what is not training, and not its last
        self._bar = ""
        self._pending = ""  # scores of a validation, until the path of the saved model is known
        self._below: list[str] = []  # lines that follow it
        self._next_progress = clock() + (0 if self.is_terminal else SECONDS_PER_LINE)
        self._last_tick: tuple[int, float] | None = None  # update, time
        self._seconds_per_update: float | None = None

    def emit(self, record: logging.LogRecord) -> None:
        """Show a record, if it is to be shown."""
        try:
            if record.name == PROGRESS:
                self._progress(record)
            elif record.module == "progress_bar":
                self._stats(record)
            elif record.name.split(".")[0] == "unival":
                self._own(record)
            else:
                self._foreign(record)
        except Exception:  # noqa: BLE001  as logging does it: a message must not end a run
            self.handleError(record)

    def line(self, text: str) -> None:
        """Write a line of text."""
        self._flush_pending()
        self._write(text)

    def close(self) -> None:
        """Write pending scores, and clear the bar."""
        self._flush_pending()
        self._erase()
        super().close()

    # --- records ----------------------------------------------------------------------------------------------------------------

    def _own(self, record: logging.LogRecord) -> None:
        if record.levelno >= logging.WARNING:
            self._warning(record, (record.name, record.msg), record.getMessage())
        else:
            self.line(record.getMessage())

    def _foreign(self, record: logging.LogRecord) -> None:
        message = record.getMessage()
        if record.levelno >= logging.WARNING:
            first = (message.splitlines() or [""])[0]
            if first.startswith("Traceback"):  # it is in the file; the error that ends a run is shown as one line
                return
            self._warning(record, (record.name, first), f"fairseq: {first}")
            return
        epoch, updates, saved = EPOCH.fullmatch(message), UPDATES.fullmatch(message), SAVED.fullmatch(message)
        if epoch:
            self.seen.epoch = int(epoch[1])
        if updates:
            self.seen.per_epoch = int(updates[1])
        if saved:
            self._last_tick = None
            self._pending = f"{self._pending}; saved {saved['path']}" if self._pending else f"saved {saved['path']}"
            self._flush_pending()
            return
        for logger, pattern, shown in REPHRASED:
            match = pattern.fullmatch(message) if record.name == logger else None
            if match:
                self.line(shown.format(**match.groupdict()))
                return

    def _warning(self, record: logging.LogRecord, kind: Any, message: str) -> None:
        """Show a warning: of one kind the first few, then one now and then with its number."""
        count = self.seen.counts[kind] = self.seen.counts.get(kind, 0) + 1
        now = self.clock()
        if record.levelno < logging.ERROR and count > REPEATS and now < self.seen.shown_at[kind] + SECONDS_PER_REPEAT:
            return
        self.seen.shown_at[kind] = now
        more = f" (number {count} of this kind; the log has all)" if count > REPEATS else ""
        self.line(f"{record.levelname.lower()}: {message}{more}")

    def _stats(self, record: logging.LogRecord) -> None:
        """Read fairseq's statistics, a JSON object, of an interval, an epoch or a validation."""
        message = record.getMessage()
        if self.show_stats:
            self.line(f"{record.name} | {message}")
            return
        try:
            stats = json.loads(message)
        except json.JSONDecodeError:  # another message of that module
            self._foreign(record)
            return
        if record.name == "train" and isinstance(stats, dict) and float(stats.get("train_num_skipped", 0)):
            self.line(f"epoch {stats['epoch']}: {counted(round(float(stats['train_num_skipped'])), 'row')} skipped")
        if record.name in ("train", "train_inner", "fairseq.logging.progress_bar") or not isinstance(stats, dict):
            return
        subset = record.name
        scores = {key.removeprefix(f"{subset}_"): value for key, value in stats.items()}
        self._keep_best(scores)
        shown, *of_streams = _scores(scores)
        self._flush_pending()
        self._last_tick = None
        has_place = "epoch" in stats and "num_updates" in scores
        when = f"epoch {stats['epoch']}, {counted(int(scores['num_updates']), 'update')}, " if has_place else ""
        self._pending, self._below = f"{when}{subset}: {shown}", of_streams
        if not when:
            self._flush_pending()

    def _keep_best(self, scores: dict[str, Any]) -> None:
        best = max if self.plan.maximize else min
        names = (self.plan.metric, f"best_{self.plan.metric}")
        values = [float(scores[name]) for name in names if name in scores]
        if values:
            self.seen.best = best([*values, *([self.seen.best] if self.seen.best is not None else [])])

    # --- progress ---------------------------------------------------------------------------------------------------------------

    def _progress(self, record: logging.LogRecord) -> None:
        """Show a step of training, validation or generation (its attributes are in ``unival.tasks.progress``)."""
        step = record.__dict__["step"]
        now = self.clock()
        if step.kind == "training":
            if self._last_tick is not None and step.done > self._last_tick[0]:
                seconds = (now - self._last_tick[1]) / (step.done - self._last_tick[0])
                before = self._seconds_per_update
                self._seconds_per_update = seconds if before is None else 0.9 * before + 0.1 * seconds
            if self._last_tick is None or step.done > self._last_tick[0]:
                self._last_tick = (step.done, now)
            self.seen.updates = step.done
        is_last = self._unfinished and step.total is not None and step.done >= step.total
        if self.show_stats or (now < self._next_progress and not is_last):
            return
        self._unfinished = step.kind != "training" and not is_last  # what follows training says how far it came
        self._next_progress = now + (SECONDS_PER_FRAME if self.is_terminal else SECONDS_PER_LINE)
        text, done, total = self._training(step) if step.kind == "training" else (step.kind, step.done, step.total)
        if self.is_terminal:
            self._draw(text, done, total)
        else:
            unit = "updates" if step.kind == "training" else "rows"
            self.line(f"{text}; {_share(done, total)} {unit}")

    def _training(self, step: Any) -> tuple[str, int, int | None]:
        total = self.plan.updates(self.seen.per_epoch, step.total)
        parts = [f"epoch {self.seen.epoch}: loss {step.loss():.3f}"]
        if self._seconds_per_update:
            parts.append(_speed(self._seconds_per_update))
            if total:
                parts.append(f"{duration(max(total - step.done, 0) * self._seconds_per_update)} left")
        return ", ".join(parts), step.done, total

    def _draw(self, text: str, done: int, total: int | None) -> None:
        self._flush_pending()
        filled = min(BAR_WIDTH * done // total, BAR_WIDTH) if total else 0
        bar = f"[{'#' * filled}{'.' * (BAR_WIDTH - filled)}] " if total else ""
        width = shutil.get_terminal_size((80, 24)).columns - 1  # a longer line would wrap and stay
        self._bar = f"{bar}{_share(done, total)}  {text}"[:width]
        self.stream.write(f"\r\x1b[K{self._bar}")
        self.stream.flush()

    def _erase(self) -> None:
        if self._bar:
            self.stream.write("\r\x1b[K")
            self.stream.flush()
            self._bar = ""

    def _flush_pending(self) -> None:
        text, self._pending, below, self._below = self._pending, "", self._below, []
        if text:
            self._write("\n".join([text, *below]))

    def _write(self, text: str) -> None:
        self._erase()
        self.stream.write(text + "\n")
        self.stream.flush()


def _scores(scores: dict[str, Any]) -> list[str]:
    """The scores of a validation in words: those of all rows, and a line for each stream, whose scores are called ``<stream>/<score>``."""
    found: dict[str, list[str]] = {"": []}
    for name, value in scores.items():
        stream, _, key = name.rpartition("/") if not name.startswith("best_") else ("", "", name)
        if key not in BOOKKEEPING and (key not in COUNTS or float(value)):
            found.setdefault(stream, []).append(f"{key} {_number(value)}")
    width = max(map(len, found))
    overall = ", ".join(found.pop(""))
    return [overall, *(f"  {stream:{width}}  {', '.join(said)}" for stream, said in found.items())]


def _share(done: int, total: int | None) -> str:
    return f"{done} of {total}" if total else str(done)


def _speed(seconds: float) -> str:
    return f"{1 / seconds:.1f} updates/s" if seconds < 1 else f"{seconds:.1f} s per update"


def _number(value: Any) -> str:
    try:
        return f"{round(float(value), 4):g}"
    except (TypeError, ValueError):
        return str(value)


def duration(seconds: float) -> str:
    """Format seconds for reading: ``45 s``, ``3 min 5 s``, ``2 h 10 min``."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"
