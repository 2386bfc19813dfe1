"""Index of the offsets at which the rows of a table start.

It is a file next to the table (or in the user's cache folder), written on first use and again when the table changes.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import mmap
import os
import pathlib
import uuid

import numpy as np

from unival.text import BOM

logger = logging.getLogger(__name__)

INDEX_VERSION = 1
INDEX_HEADER = 3  # numbers before the offsets in an index file: version, and size (bytes) and mtime (ns) of the table
INDEX_CHUNK = 1 << 20  # bytes that are scanned for line ends at a time: small enough for the CPU cache
INDEX_SAMPLES = 16  # offsets of an index file that are checked against the table


def line_offsets(path: pathlib.Path, data: mmap.mmap | bytes, stamp: tuple[int, int]) -> np.ndarray:
    """Offsets at which rows start, from the index file if it is up to date.

    Args:
        path: the table.
        data: content of the table.
        stamp: size (bytes) and mtime (ns) of the table.

    Returns:
        ``rows + 1`` numbers, uint64: the start of each row, then the end of the last one.
    """
    places = _index_places(path)
    for place in places:
        offsets = _read_index(place, data, stamp)
        if offsets is not None:
            return offsets
    offsets = _scan_lines(data)
    for place in places:
        if _write_index(place, offsets, stamp):
            return offsets
    logger.warning("cannot write the line index of %s to any of %s: every process scans the table again", path, places)
    return offsets


def _index_places(path: pathlib.Path) -> tuple[pathlib.Path, ...]:
    cache = pathlib.Path(os.environ.get("XDG_CACHE_HOME") or pathlib.Path.home() / ".cache") / "unival" / "index"
    full_name = hashlib.sha256(str(path.resolve()).encode()).hexdigest()[:24]
    return path.with_name(f".{path.name}.index.npy"), cache / f"{full_name}.{path.name}.index.npy"


def _scan_lines(data: mmap.mmap | bytes) -> np.ndarray:
    starts = [np.array([len(BOM) if data[: len(BOM)] == BOM else 0], dtype=np.uint64)]
    for begin in range(0, len(data), INDEX_CHUNK):
        chunk = np.frombuffer(data[begin : begin + INDEX_CHUNK], dtype=np.uint8)
        starts.append((np.flatnonzero(chunk == ord("\n")) + (begin + 1)).astype(np.uint64))
    offsets = np.concatenate(starts)
    if offsets[-1] < len(data):  # no newline after the last row
        offsets = np.append(offsets, np.uint64(len(data)))
    rows = len(offsets) - 1
    while rows and not data[int(offsets[rows - 1]) : int(offsets[rows])].strip():  # blank lines at the end
        rows -= 1
    return offsets[: rows + 1]


def _read_index(place: pathlib.Path, data: mmap.mmap | bytes, stamp: tuple[int, int]) -> np.ndarray | None:
    """The offsets in the index file ``place``; None if there is no such file or it is out of date."""
    try:
        index = np.load(place, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError):
        return None
    if index.dtype != np.uint64 or index.ndim != 1 or len(index) <= INDEX_HEADER:
        return None
    if tuple(map(int, index[:INDEX_HEADER])) != (INDEX_VERSION, *stamp):
        return None
    offsets = index[INDEX_HEADER:]
    if int(offsets[-1]) > len(data):
        return None
    # A file replaced within the resolution of the clock may have the same size and time: check some lines, too
    rows = len(offsets) - 1
    sampled = {int(i) for i in np.linspace(0, rows - 1, INDEX_SAMPLES)} if rows else set()
    if all(_is_line(data, int(offsets[i]), int(offsets[i + 1])) for i in sampled):
        return offsets
    return None


def _is_line(data: mmap.mmap | bytes, start: int, end: int) -> bool:
    begins = start in (0, len(BOM)) or data[start - 1] == ord("\n")
    line_end = data.find(b"\n", start, end)
    return begins and (line_end == end - 1 or (line_end == -1 and end == len(data)))


def _write_index(place: pathlib.Path, offsets: np.ndarray, stamp: tuple[int, int]) -> bool:
    """Write an index file atomically, so that a process that opens the table at the same time never reads a partial index.

    Returns:
        Whether it was written.
    """
    temporary = place.with_name(f"{place.name}.{uuid.uuid4().hex}")
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        with temporary.open("xb") as file:
            np.save(file, np.concatenate([np.array([INDEX_VERSION, *stamp], dtype=np.uint64), offsets]))
        temporary.replace(place)
    except OSError as error:
        logger.debug("cannot write the line index %s: %s", place, error)
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
        return False
    return True
