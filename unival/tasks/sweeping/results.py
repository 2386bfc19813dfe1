"""Results of a sweep in a file of JSON lines, one for every point and table: a sweep that was stopped goes on from there."""

import hashlib
import json
import os
import pathlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from unival.checkpoints.merging.points import Point
from unival.errors import UserError
from unival.tasks.sweeping.table import Measured

BLOCK = 1 << 20  # bytes that are hashed at a time
OF_MERGE = ("base", "method", "weights", "missing", "recalibration", "statistics")  # besides the models


@dataclass(frozen=True)
class Result:
    """What a point scores on a table.

    Attributes:
        table, part: name of the table, and whether it is for testing or validation.
        point: name of the point.
        coefficient: what its value is: lambda, scale.
        value: the number that curves are drawn over; None: several numbers distinguish the points.
        inputs: what the scores depend on: name -> value or hash.
        measured: the scores.
        metric: the score that points are compared by.
    """

    table: str
    part: str
    point: str
    coefficient: str
    value: float | None
    inputs: Mapping[str, Any]
    measured: Measured
    metric: str

    @property
    def score(self) -> float:
        """The score that points are compared by."""
        return self.measured.scores[self.metric]


class Results:
    """The file of results.

    Args:
        path: the file; it need not exist.  None: results are not kept.

    Raises:
        UserError: it is no such file.
    """

    def __init__(self, path: pathlib.Path | None):
        self.path = path
        self._found: dict[tuple[str, str, str], Result] = {}
        if path is not None and path.is_file():
            _drop_cut_line(path)
            for result in read_results(path):
                self._found[_key(result)] = result

    def find(self, table: str, part: str, point: Point, inputs: Mapping[str, Any]) -> tuple[Result | None, list[str]]:
        """The result of a point on a table.

        Returns:
            The result, or None if there is none of these inputs; and the names of inputs that changed since there was one.
        """
        result = self._found.get((table, part, point.name))
        if result is None:
            return None, []
        names = dict.fromkeys([*result.inputs, *inputs])
        changed = [name for name in names if result.inputs.get(name) != inputs.get(name)]
        return (None, changed) if changed else (result, [])

    def add(self, result: Result) -> None:
        """Write a result, at once.

        Raises:
            UserError: the file cannot be written.
        """
        self._found[_key(result)] = result
        if self.path is None:
            return
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with self.path.open("a", encoding="utf-8") as file:
                file.write(json.dumps(asdict(result)) + "\n")
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise UserError(f"{self.path}: cannot be written: {error.strerror or error}") from error


def _key(result: Result) -> tuple[str, str, str]:
    return result.table, result.part, result.point


def _drop_cut_line(path: pathlib.Path) -> None:
    """Remove the last line if it has no end: the process was killed while it wrote."""
    content = path.read_bytes()
    if content and not content.endswith(b"\n"):
        with path.open("r+b") as file:
            file.truncate(content.rfind(b"\n") + 1)


def read_results(path: pathlib.Path) -> list[Result]:
    """Read a file of results; of several with the same point and table the last one counts.

    Raises:
        UserError: there is no such file, or a line is no result.
    """
    if not path.is_file():
        raise UserError(f"{path}: no such file; expected the results of `unival sweep` or `unival barrier`")
    found: dict[tuple[str, str, str], Result] = {}
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        try:
            read = json.loads(line)
            measured = Measured(**{**read["measured"], "intervals": {k: (v[0], v[1]) for k, v in read["measured"]["intervals"].items()}})
            result = Result(**{**read, "measured": measured})
        except (ValueError, TypeError, KeyError, IndexError) as error:
            raise UserError(f"{path}, line {number}: is no result of `unival sweep`; give another file or remove this one") from error
        found.pop(_key(result), None)
        found[_key(result)] = result
    return list(found.values())


def of_one_sweep(results: Sequence[Result]) -> list[Result]:
    """Those of a file's results that belong to one curve with the newest: of the same merge, tables and settings, at other points."""
    newest = {(result.table, result.part): result for result in results}
    last = results[-1]
    return [r for r in results if _fixed(r) == _fixed(newest[r.table, r.part]) and _merge(r) == _merge(last)]


def _fixed(result: Result) -> dict[str, Any]:
    """What all points on a table have in common."""
    options = {name: value for name, value in result.inputs["options"].items() if name != result.coefficient}
    return {**result.inputs, "options": options, "coefficients": None}


def _merge(result: Result) -> dict[str, Any]:
    """What all points on all tables have in common."""
    return {name: value for name, value in result.inputs.items() if name.startswith("model ") or name in OF_MERGE}


def digest(path: str | pathlib.Path) -> str:
    """Hash of a file.

    Raises:
        UserError: it cannot be read.
    """
    whole = hashlib.sha256()
    try:
        with pathlib.Path(path).open("rb") as file:
            while block := file.read(BLOCK):
                whole.update(block)
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror or error}") from error
    return whole.hexdigest()
