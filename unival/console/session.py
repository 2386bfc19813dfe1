"""Logging of one command: essential messages on the console, everything (warnings and tracebacks included) in a file.

Python's logging is configured while the command runs and restored afterwards.  Records are buffered until the path of the log file is
known from the command line.
"""

import contextlib
import logging
import logging.handlers
import os
import pathlib
import signal
import sys
import tempfile
import threading
from collections.abc import Iterator
from types import TracebackType
from typing import Any, NoReturn, TextIO

from unival.console.lines import DATE_FORMAT, FORMAT, PROGRESS, SHOWN_LOGGERS, Console
from unival.errors import UserError

HELD_BACK = 100_000  # most buffered records


class Session:
    """Context manager for running a command.

    With ``verbose`` (or ``LOGLEVEL`` in the environment, which also sets the level) the console shows all that is logged.
    """

    def __init__(self, stream: TextIO, verbose: bool = False, show_stats: bool = False, bar: bool = True) -> None:
        self.verbose = verbose or "LOGLEVEL" in os.environ
        self.console = Console(stream, show_stats, bar)
        self.path: pathlib.Path | None = None
        self._stream = stream
        self._file: TextIO | None = None
        self.keep = True  # keep the file also without an error
        self._held = logging.handlers.MemoryHandler(HELD_BACK, flushLevel=logging.CRITICAL + 1, flushOnClose=False)
        self._held.addFilter(_is_no_progress)
        self._before: tuple[int, list[logging.Handler]] = (logging.WARNING, [])

    def __enter__(self) -> "Session":
        root = logging.getLogger()
        self._before = root.level, list(root.handlers)
        root.handlers[:] = [self._held]
        root.setLevel(os.environ.get("LOGLEVEL", "INFO").upper())
        logging.captureWarnings(True)  # into the file
        if self.verbose:
            everything = logging.StreamHandler(self._stream)
            everything.setFormatter(logging.Formatter(FORMAT, DATE_FORMAT))
            everything.addFilter(_is_no_progress)
            root.addHandler(everything)
        else:
            logging.getLogger(PROGRESS).setLevel(logging.DEBUG)
            self.console.setLevel(logging.DEBUG)
            for name in SHOWN_LOGGERS:
                logging.getLogger(name).addHandler(self.console)
        return self

    def open(self, path: pathlib.Path, keep: bool = True) -> None:
        """Write the log to ``path`` from now on, buffered records first; unless ``keep``, it is removed at the end of a
        command that did not fail.

        Raises:
            UserError: the file cannot be written.
        """
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._file = path.open("a", buffering=1, encoding="utf-8")
        except OSError as error:
            raise UserError(f"the log {path} cannot be written: {error.strerror}") from error
        self.path, self.keep = path, keep
        handler = _LogFile(self._file)
        handler.setFormatter(logging.Formatter(FORMAT, DATE_FORMAT))
        handler.addFilter(_is_no_progress)
        self._held.setTarget(handler)
        self._held.flush()
        root = logging.getLogger()
        root.handlers[:] = [handler if other is self._held else other for other in root.handlers]

    @contextlib.contextmanager
    def prints_to_file(self) -> Iterator[None]:
        """Redirect standard output to the log: fairseq-validate logs there whatever is configured."""
        if self.verbose or self._file is None:
            yield
            return
        with contextlib.redirect_stdout(self._file):
            yield

    def silence(self) -> None:
        """Show only errors on the console from now on: another process of the run writes to it."""
        self.console.setLevel(logging.ERROR)

    def tell(self, text: str) -> None:
        """Write a message to the console and to the log."""
        logging.getLogger("unival").info(text)

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if error is not None:
            logging.getLogger("traceback").error("the command ended by an exception", exc_info=error)
        self.console.close()
        for name in SHOWN_LOGGERS:
            logging.getLogger(name).removeHandler(self.console)
        logging.getLogger(PROGRESS).setLevel(logging.NOTSET)
        logging.captureWarnings(False)
        root = logging.getLogger()
        root.setLevel(self._before[0])
        root.handlers[:] = self._before[1]
        if self._file is not None:
            with contextlib.suppress(OSError):  # the disk is full
                self._file.close()
        if self.path is not None and not self.keep and (error is None or isinstance(error, KeyboardInterrupt)):
            self.path.unlink(missing_ok=True)


class _LogFile(logging.StreamHandler):
    """The log file: on a full disk, lines are lost without a traceback of logging for each."""

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802  logging's name
        if not isinstance(sys.exc_info()[1], OSError):
            super().handleError(record)


def _is_no_progress(record: logging.LogRecord) -> bool:
    return record.name != PROGRESS


def temporary_log(command: str) -> pathlib.Path:
    """Path of a log for a command without a folder of its own."""
    return pathlib.Path(tempfile.gettempdir()) / f"unival-{command}-{os.getpid()}.log"


@contextlib.contextmanager
def stopped_by_sigterm() -> Iterator[None]:
    """Let SIGTERM, which schedulers of clusters send, end a command like Ctrl-C, so that it cleans up."""

    def stop(number: int, frame: Any) -> NoReturn:
        raise KeyboardInterrupt("SIGTERM")

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
