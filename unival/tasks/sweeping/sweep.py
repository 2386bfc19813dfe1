"""Evaluate points of a merge on tables, in one process: a point's weights are made once, every table is read once."""

import json
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch

from unival.checkpoints.merging import PASSES, ROWS
from unival.checkpoints.merging.inputs import Checkpoint, fitting_inputs, read_checkpoint, with_our_keys
from unival.checkpoints.merging.methods import make_rule, method_named
from unival.checkpoints.merging.points import Point
from unival.checkpoints.merging.record import file_record, record
from unival.checkpoints.merging.statistics import read_statistics
from unival.errors import UserError, counted
from unival.tasks.base import UnivalTask
from unival.tasks.sweeping.model import MergedModel
from unival.tasks.sweeping.recalibration import Recalibration
from unival.tasks.sweeping.results import Result, Results, digest
from unival.tasks.sweeping.store import MediaStore
from unival.tasks.sweeping.table import EvaluatedTable, TableSpec, task_for

logger = logging.getLogger(__name__)

Planned = tuple[Point, EvaluatedTable, Mapping[str, Any], Result | None]  # with what the result depends on, and the one that is there
Told = Callable[[str, int, int], None]  # what is evaluated, rows that are done, rows in all


@dataclass(frozen=True)
class Merge:
    """What is merged.

    Attributes:
        models: the files.
        base: the file of the pretrained model; None without.
        method: name of the method.
        weights, missing, unrelated: as of :func:`unival.checkpoints.merging.inputs.fitting_inputs` and ``read_checkpoint``.
        statistics: files of statistics, one per model; none: the method needs none.
    """

    models: Sequence[str]
    base: str | None = None
    method: str = "linear"
    weights: str = "model"
    missing: str = "error"
    unrelated: bool = False
    statistics: Sequence[str] = ()


@dataclass(frozen=True)
class Running:
    """How points are evaluated.

    Attributes:
        batch_size: rows at a time.
        workers: processes that read media.
        device: where the model computes.
        generates: False: the loss alone.
        resamples: draws of rows for intervals; 0: none.
        recalibrate: tables on which statistics of batch norms are computed again at every point; none: they are averaged.
        rows: rows of each of these tables that are used.
        memory: bytes of decoded media that are kept in memory, and not in a temporary file.
        passes: over the rows of these tables.
    """

    batch_size: int = 16
    workers: int = 0
    device: torch.device = torch.device("cpu")
    generates: bool = True
    resamples: int = 1000
    recalibrate: Sequence[str] = ()
    rows: int = ROWS
    memory: int = 4 << 30
    passes: int = PASSES


class Sweep:
    """Points of a merge on tables.

    Args:
        merge: what is merged.
        points: the points, each of another name; further ones may follow.
        specs: the tables.
        running: how they are evaluated.

    Raises:
        UserError: a checkpoint or a table cannot be used, or they do not fit together.
    """

    def __init__(self, merge: Merge, points: Sequence[Point], specs: Sequence[TableSpec], running: Running):
        self.merge, self.running = merge, running
        self.models = [with_our_keys(read_checkpoint(path, merge.weights)) for path in merge.models]
        base = None if merge.base is None else with_our_keys(read_checkpoint(merge.base))
        self.inputs = fitting_inputs(self.models, base, merge.missing, merge.unrelated)
        tasks = [task_for(spec, self.like(spec)) for spec in specs]
        made = record(merge.models, merge.base, merge.method)
        hashes = [file["sha256"] for file in made["files"]]
        kind, statistics = method_named(merge.method).statistics, None
        if kind is not None:
            statistics = read_statistics(merge.statistics, kind, hashes, merge.weights, self.inputs)
        self.model = MergedModel(self.inputs, merge.method, running.device, statistics)
        self._store = MediaStore(running.memory)
        self._at: str | None = None  # name of the point whose weights the model has
        self._recalibration: Recalibration | None = None
        self._move(points[0])
        self.tables = [self._table(spec, task) for spec, task in zip(specs, tasks, strict=True)]
        self.sums = {path: digest(path) for path in (*(spec.path for spec in specs), *running.recalibrate)}
        if running.recalibrate:
            how = running.recalibrate, running.batch_size, running.rows, running.passes
            self._recalibration = Recalibration(self.model, self.models, *how, self._store)
            self._at = None  # the first point was not recalibrated
        self.files: dict[str, Any] = {f"model {number}": own for number, own in enumerate(hashes, start=1)}
        self.files |= {"base": made["base"]["sha256"] if made["base"] else None, "method": merge.method}
        self.files |= {"weights": merge.weights, "missing": merge.missing, "recalibration": self._about_recalibration()}
        self.files |= {"statistics": [file_record(path)["sha256"] for path in merge.statistics] or None}

    @property
    def coefficient(self) -> str:
        """The name of the number that distinguishes points."""
        if len(self.merge.models) > 2 and method_named(self.merge.method).shares:
            return "coefficients"
        return "scale" if "scale" in method_named(self.merge.method).options() else "lambda"

    def _about_recalibration(self) -> dict[str, Any] | None:
        running = self.running
        if not running.recalibrate:
            return None
        about = {"tables": [self.sums[path] for path in running.recalibrate], "rows": running.rows, "batch size": running.batch_size}
        return about if running.passes == PASSES else {**about, "passes": running.passes}  # results of before have no number

    def like(self, spec: TableSpec) -> Checkpoint:
        """The model whose task a table is evaluated with."""
        return next(model for model in self.models if model.name == spec.like)

    def _table(self, spec: TableSpec, task: UnivalTask) -> EvaluatedTable:
        self.model.module(self.like(spec), task)  # limits the task's positions
        running = self.running
        table = EvaluatedTable(spec, task, running.batch_size, running.workers, running.generates, self._store)
        if spec.metric is not None and spec.metric not in table.scores:
            raise UserError(f"--metric {spec.name}={spec.metric}: scores of this table are {', '.join(table.scores)}")
        return table

    def _move(self, point: Point) -> None:
        if self._at != point.name:
            self.model.move(point)
            if self._recalibration is not None:
                self._recalibration()
            self._at = point.name

    def inputs_of(self, point: Point, table: EvaluatedTable) -> dict[str, Any]:
        """All that the scores of a point on a table depend on."""
        _, options = make_rule(self.merge.method, point.options)
        used = {"coefficients": point.coefficients if method_named(self.merge.method).weighed else None, "options": options}
        mine = {"table": self.sums[table.spec.path], "options of the table": dict(table.spec.options), "resamples": self.running.resamples}
        return json.loads(json.dumps({**self.files, **used, **mine, **table.settings}, default=str))  # as it is read again

    def run(self, points: Sequence[Point], results: Results, told: Told = lambda what, done, total: None) -> list[Result]:
        """Evaluate what the file of results does not have yet.

        Args:
            points: the points.
            results: the file.
            told: is called before a point and after every batch.

        Returns:
            The results of all points and tables, point by point.
        """
        plan, changed = self._plan(points, results)
        if changed:
            names = ", ".join(changed)
            logger.warning("%s has results of other inputs (changed: %s): these points are evaluated again", results.path, names)
        kept = sum(result is not None for *_, result in plan)
        if kept:
            logger.info("%s of %d in %s are kept", counted(kept, "result"), len(plan), results.path)
        try:
            return list(self._results(plan, results, told))
        except KeyboardInterrupt:
            if results.path is not None:
                there = [results.find(table.spec.name, table.spec.part, point, inputs)[0] for point, table, inputs, _ in plan]
                made = len(there) - there.count(None)
                logger.info("%d of %s are in %s; the same command goes on", made, counted(len(plan), "result"), results.path)
            raise

    def _results(self, plan: Sequence[Planned], results: Results, told: Told) -> Iterator[Result]:
        done, total = 0, sum(len(table) for _, table, _, result in plan if result is None)
        for point, table, inputs, result in plan:
            if result is None:
                what = f"{point.name} on {table.spec.name} ({table.spec.part})"
                told(what, done, total)

                def rows(count: int, what: str = what) -> None:
                    nonlocal done
                    done += count
                    told(what, done, total)

                self._move(point)
                model = self.model.module(self.like(table.spec), table.task)
                measured = table.evaluate(model, rows, self.running.resamples)
                spec, place = table.spec, (point.name, self.coefficient, point.value)
                result = Result(spec.name, spec.part, *place, inputs, measured, table.metric)
                results.add(result)
            yield replace(result, metric=table.metric)

    def _plan(self, points: Sequence[Point], results: Results) -> tuple[list[Planned], list[str]]:
        plan: list[Planned] = []
        changed: dict[str, None] = {}
        for point in points:
            for table in self.tables:
                inputs = self.inputs_of(point, table)
                result, others = results.find(table.spec.name, table.spec.part, point, inputs)
                changed.update(dict.fromkeys(others))
                plan.append((point, table, inputs, result))
        return plan, list(changed)
