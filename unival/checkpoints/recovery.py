"""Find the complete checkpoints of a run, so that a run that was stopped while saving resumes from the newest of them.

fairseq writes one file under a temporary name, renames it when it is complete, and copies it to the other names, ``checkpoint_last.pt``
last of all.  A kill or a full disk in between leaves a truncated copy, or none, and a file that is complete and newer.  Only the
directories at the ends of files are read here and, to compare them, options and counts; never the weights.
"""

import os
import pathlib
import re
import shutil
import zipfile
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

from unival.checkpoints.files import ZIP, read
from unival.errors import UserError, counted

UNFINISHED = ".tmp"  # suffix of files that fairseq, or this module, has not finished
HEAD = 16  # bytes that tell the format of a file


@dataclass(frozen=True)
class Saved:
    """A complete checkpoint: its number of updates, its score, and the best score up to then."""

    path: pathlib.Path
    updates: int
    score: float | None
    best: float | None

    @property
    def was_best(self) -> bool:
        """Whether it was the best when it was saved, so that ``checkpoint_best.pt`` should be a copy of it."""
        return self.score is not None and self.score == self.best

    def __str__(self) -> str:
        return f"{self.path.name} ({counted(self.updates, 'update')})"


def is_cut_short(path: pathlib.Path) -> bool:
    """Whether a file is a truncated checkpoint: empty, zeros, or a zip file without some of its records.

    Files of other formats are left to the reader.
    """
    with path.open("rb") as file:
        head = file.read(HEAD).rstrip(b"\0")
    if not ZIP.startswith(head[: len(ZIP)]):
        return False
    try:
        with zipfile.ZipFile(path) as archive:
            end = archive.start_dir  # records lie before the directory, which is written last
            return not all(record.header_offset + record.compress_size <= end for record in archive.infolist())
    except (zipfile.BadZipFile, ValueError, NotImplementedError, EOFError):
        return True


def look_at(path: pathlib.Path) -> Saved | None:
    """Read updates and scores of a checkpoint; None if it cannot be read safely or was not written by a run of ours."""
    try:
        container: dict[str, Any] = {} if is_cut_short(path) else read(path)
        updates = int(container["optimizer_history"][-1]["num_updates"])
        extra = container["extra_state"]
        return Saved(path, updates, extra.get("val_loss"), extra.get("best")) if container["task_state"] else None
    except (UserError, OSError, LookupError, TypeError, AttributeError, ValueError):
        return None


def newest(paths: Sequence[pathlib.Path]) -> Saved | None:
    """The complete checkpoint with the most updates, the last written of equal ones; None if there is none."""
    found = [saved for saved in map(look_at, paths) if saved is not None]
    return max(found, key=lambda saved: (saved.updates, saved.path.stat().st_mtime_ns), default=None)


def saved_files(folder: pathlib.Path, suffix: str = "") -> list[pathlib.Path]:
    """The checkpoints in a run's folder, by fairseq's file names (``suffix`` as in ``--checkpoint-suffix``)."""
    return _named(folder, suffix, "")


def mend(folder: pathlib.Path, suffix: str = "", besides: Collection[pathlib.Path] = ()) -> str | None:
    """Repair the folder of a run that was stopped while saving: ``checkpoint_last.pt`` becomes its newest complete checkpoint.

    A complete ``checkpoint_last.pt`` is replaced only by one with more updates that was written later; ``checkpoint_best.pt``, too,
    if the newest checkpoint is the best.  Files are replaced atomically, so that this may be stopped at any time.

    Args:
        folder: folder of the run's checkpoints.
        suffix: suffix of their names, before ``.pt``.
        besides: resolved paths of checkpoints in the folder that are not the run's own, such as the one it started from.

    Returns:
        A line about the checkpoint that the run resumes from; None if nothing had to be repaired.

    Raises:
        UserError: there are checkpoints, but none is complete; or a copy cannot be written.
    """
    unfinished = _named(folder, suffix, UNFINISHED)
    for path in unfinished:
        path.unlink()
    files = [path for path in saved_files(folder, suffix) if path.resolve() not in besides]
    cut_short = [path for path in files if is_cut_short(path)]
    last = folder / f"checkpoint_last{suffix}.pt"
    if last in files and last not in cut_short:
        written = last.stat().st_mtime_ns
        later = [path for path in files if path not in cut_short and path != last and path.stat().st_mtime_ns >= written]
        present = look_at(last) if later or cut_short else None
        if present is None:
            return None  # complete, or the reader gives the error
        source, reason = present, ""
        rival = newest(later)
        if rival is not None and rival.updates > present.updates:
            source, reason = rival, f"{last.name} is of {counted(present.updates, 'update')}"
    else:
        found = newest([path for path in files if path not in cut_short])
        if found is None:
            return _nothing_whole(folder, files, bool(unfinished))
        source, reason = found, f"{last.name} is {'cut short' if last in cut_short else 'not there'}"
    copies = _copies(folder, suffix, source, cut_short)
    for copy in copies:
        replace_by_copy(source.path, copy)
    said = [f"{reason}, as after a stop while saving: resuming from {source}"] if reason else []
    said += ["a new --save-dir starts afresh"] if last not in files else []
    said += [f"{path.name} was cut short and is a copy of {source.path.name} now" for path in cut_short if path in copies and path != last]
    said += [f"{path.name} is cut short and of no use" for path in cut_short if path not in copies]
    return f"{folder}: {'; '.join(said)}" if said else None


def whole_beside(path: pathlib.Path) -> str:
    """The end of a message about a truncated checkpoint: names the newest complete one in its folder."""
    found = newest([file for file in path.parent.glob("checkpoint*.pt") if file != path])
    return f"the newest whole one there is {found}" if found else "copy or fetch it again"


def replace_by_copy(source: pathlib.Path, target: pathlib.Path) -> None:
    """Make ``target`` a copy of ``source``; at any time there is the old file, none, or the complete new one.

    Raises:
        UserError: the copy cannot be written.
    """
    unfinished = target.with_name(target.name + UNFINISHED)
    try:
        if target.is_file() and is_cut_short(target):
            target.unlink()  # frees the space for the copy
        with source.open("rb") as reading, unfinished.open("wb") as writing:
            shutil.copyfileobj(reading, writing, length=1 << 24)
            writing.flush()
            os.fsync(writing.fileno())
        os.replace(unfinished, target)
    except OSError as error:
        unfinished.unlink(missing_ok=True)
        raise UserError(f"{target}: cannot be made a copy of {source.name}: {error.strerror or error}") from error


def _nothing_whole(folder: pathlib.Path, files: Sequence[pathlib.Path], unfinished: bool) -> str | None:
    """The message for a run without a complete checkpoint to resume from.

    Raises:
        UserError: there are damaged checkpoints; starting over would silently lose what was learned.
    """
    damaged = [path for path in files if is_cut_short(path) or not _is_readable(path)]
    if damaged:
        names, them = ", ".join(path.name for path in damaged), "it" if len(damaged) == 1 else "them"
        raise UserError(
            f"{folder}: no whole checkpoint to resume from: {names} cut short or not readable; to start over, remove {them} or give"
            " another --save-dir"
        )
    return f"{folder}: the run was stopped before its first checkpoint was complete: it starts over" if unfinished else None


def _is_readable(path: pathlib.Path) -> bool:
    try:
        return bool(read(path))
    except UserError:
        return False


def _copies(folder: pathlib.Path, suffix: str, source: Saved, cut_short: Sequence[pathlib.Path]) -> list[pathlib.Path]:
    """The files that were to be copies of the newest checkpoint and are not, in fairseq's order: ``checkpoint_last.pt`` last."""
    last, best = folder / f"checkpoint_last{suffix}.pt", folder / f"checkpoint_best{suffix}.pt"
    found = []
    if source.was_best:
        # among the best that are kept, a file's name tells its score, and a digit that tells equal scores apart
        name = re.compile(rf"checkpoint\.best_.+_{re.escape(f'{source.score:.3f}')}\d+{re.escape(suffix)}\.pt")
        found = [path for path in cut_short if path == best or name.fullmatch(path.name)]
        if best not in found and source.path not in (best, last):
            present = look_at(best) if best.is_file() else None
            found += [best] if present is None or present.updates < source.updates else []
    return [*found, *([last] if source.path != last else [])]


def _named(folder: pathlib.Path, suffix: str, ending: str) -> list[pathlib.Path]:
    kinds = r"_last|_best|\d+|_\d+_\d+|\.best_.+_-?\d+\.\d+"
    name = re.compile(rf"checkpoint({kinds}){re.escape(suffix)}\.pt{re.escape(ending)}")
    return sorted(path for path in folder.glob("checkpoint*") if name.fullmatch(path.name) and path.is_file())
