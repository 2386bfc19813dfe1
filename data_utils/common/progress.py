"""How far a builder is: a line now and then, which is rewritten on a terminal."""

import sys
import time
from collections.abc import Mapping
from typing import TextIO

SECONDS = 30.0  # between two lines
SECONDS_ON_TERMINAL = 0.5


class Progress:
    """Shows how many rows there are so far.

    Args:
        stream: where it is shown; default: standard error.
    """

    def __init__(self, stream: TextIO | None = None) -> None:
        self._stream = sys.stderr if stream is None else stream
        self._is_terminal = self._stream.isatty()
        self._seconds = SECONDS_ON_TERMINAL if self._is_terminal else SECONDS
        self._next = time.monotonic() + self._seconds

    @property
    def is_due(self) -> bool:
        """Whether it is time for the next line."""
        return time.monotonic() >= self._next

    def show(self, rows: Mapping[str, int]) -> None:
        """Show the rows of every table."""
        self._next = time.monotonic() + self._seconds
        counts = "rows so far: " + ", ".join(f"{table} {count:,}" for table, count in rows.items())
        self._stream.write(f"\r\x1b[K{counts}" if self._is_terminal else f"{counts}\n")
        self._stream.flush()

    def end(self) -> None:
        """Remove the line from a terminal."""
        if self._is_terminal:
            self._stream.write("\r\x1b[K")
            self._stream.flush()
