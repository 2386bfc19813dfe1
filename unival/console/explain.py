"""Explain exceptions in one line: the user's mistake, or where the traceback is.  Imports nothing heavy."""

import errno
import os
import pathlib
import pickle
import sys
import tempfile
import traceback

from unival.errors import InstructionError, UserError

INTERRUPTED = 130  # exit code after Ctrl-C
TERMINATED = 143  # exit code after SIGTERM
OWN_ERROR = "UserError: "
INSTRUCTION_ERROR = "InstructionError: "
DISK_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def explain(error: BaseException | None, folder: str | os.PathLike[str] | None = None) -> str | None:
    """The message for the user about an exception, or about one that it wraps; None if it is not about their input.

    Args:
        error: the exception.
        folder: folder that the command writes to, which errors of a full disk often do not name.
    """
    while error is not None:
        text = str(error)
        if isinstance(error, InstructionError):
            return error.one_line
        # data workers and spawned processes wrap their errors into a traceback
        if isinstance(error, UserError) or f"unival.errors.{OWN_ERROR}" in text:
            return text.rsplit(OWN_ERROR, 1)[-1].strip()
        if f"unival.errors.{INSTRUCTION_ERROR}" in text:  # likewise, in three lines: problem, text, caret
            problem, quoted = text.rsplit(INSTRUCTION_ERROR, 1)[-1].split("\n")[:2]
            return f"{problem}; in the instruction {quoted.strip()!r}"
        if isinstance(error, pickle.UnpicklingError):
            return f"the checkpoint was refused, nothing in it was run: it holds more than tensors and plain values ({first_line(error)})"
        if isinstance(error, OSError):
            if error.errno not in DISK_FULL:
                return first_line(error)
            place = "" if folder is None else f" (this run writes to {folder})"
            return f"{first_line(error)}{place}; make room and run it again (training resumes from its newest whole checkpoint)"
        error = error.__cause__ or error.__context__
    return None


def first_line(error: BaseException) -> str:
    """The first line of an error's message; for a process that ended by an exception, the last line of its traceback."""
    lines = [line for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
    return lines[-1] if lines[0].startswith("-- Process ") else lines[0]


def describe(error: Exception, log: str | os.PathLike[str] | None = None) -> str:
    """Describe any exception in one line; faults of the program refer to the traceback, in ``log`` or in a new file."""
    message = explain(error, None if log is None else pathlib.Path(log).parent)
    if message is not None:
        return message
    if log is None:
        with tempfile.NamedTemporaryFile("w", prefix="unival-", suffix=".log", delete=False, encoding="utf-8") as file:
            file.writelines(traceback.format_exception(error))
        log = file.name
    return f"{type(error).__name__}: {first_line(error)} (not foreseen: the traceback is in {log}, and --traceback shows it here)"


def complain(message: str) -> None:
    """Print an error message to standard error."""
    sys.stderr.write(f"unival: error: {message}\n")
