"""A table on which merged models are evaluated, as validation and ``unival generate`` do; its batches are read once and kept."""

import dataclasses
import math
import pathlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from fairseq import utils
from fairseq.tasks import TASK_DATACLASS_REGISTRY, TASK_REGISTRY
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from unival.checkpoints.merging.inputs import Checkpoint
from unival.criterions.label_smoothed import LabelSmoothedConfig, LabelSmoothedCriterion
from unival.data.reading import Reader, in_order
from unival.errors import UserError, unknown
from unival.generation.answer_options import AnswerOptions
from unival.generation.options import drop_device_options, generation_options
from unival.metrics.score import evaluate_rows
from unival.tasks.base import UnivalTask
from unival.tasks.config import UnivalTaskConfig
from unival.tasks.presets import PRESETS
from unival.tasks.resume import find_vocabulary, given_settings, saved_in, task_name
from unival.tasks.sweeping.store import MediaStore

LOSS = "loss"
PARTS = ("test", "valid")
# Options of evaluation that a checkpoint brings where it is evaluated on what it was trained for.
EVALUATION = ("eval_metrics", "eval_args", "eval_box_threshold", "eval_cider_df")
Told = Callable[[int], None]  # is told the number of rows that were evaluated


@dataclass(frozen=True)
class TableSpec:
    """A table to evaluate on.

    Attributes:
        name: name of what it tests, which a table for testing and one for validation have in common.
        part: one of :data:`PARTS`: coefficients are chosen on ``valid``.
        path: the file.
        like: name of the model whose task, instruction and candidate answers it is read with.
        options: options of the task that differ.
        metric: the score that coefficients are compared by; None: the first of the task's.
    """

    name: str
    part: str
    path: str
    like: str
    options: Mapping[str, str] = field(default_factory=dict)
    metric: str | None = None


@dataclass(frozen=True)
class Measured:
    """What a model scores on a table.

    Attributes:
        scores: name -> score of all rows, among them ``loss``: the negative log-likelihood of the targets in bits per token.
        intervals: name -> 95% bootstrap interval.
        nll: negative log-likelihood of each row's target in bits, summed over its tokens.
        tokens: number of these.
    """

    scores: dict[str, float]
    intervals: dict[str, tuple[float, float]]
    nll: list[float]
    tokens: list[int]


def task_for(spec: TableSpec, like: Checkpoint) -> UnivalTask:
    """Make the task of a table: that of a checkpoint, as ``unival generate`` makes it, with the options of the table.

    Where task and instruction are the checkpoint's, its options of validation apply as well.

    Raises:
        UserError: there is no such task or option, or a value cannot be used.
    """
    saved = saved_in(like.container)
    own = task_name(like.name, saved)
    name = spec.options.get("task", own)
    kind = TASK_REGISTRY.get(name)
    if kind is None or TASK_DATACLASS_REGISTRY.get(name) is not UnivalTaskConfig:
        raise UserError(unknown(f"task of table {spec.name}", name, PRESETS) + f" (--set {spec.name}.task=…)")
    changed = {option: value for option, value in spec.options.items() if option != "task"}
    known = {option.name: option for option in dataclasses.fields(UnivalTaskConfig) if "help" in option.metadata and option.name != "data"}
    for option in changed:
        if option not in known:
            raise UserError(unknown(f"option of table {spec.name}", option, known))
    is_same = name == own and changed.get("instruction") in (None, saved.settings.instruction)
    kept = [*EVALUATION, *AnswerOptions.__dataclass_fields__] if is_same else []
    values = drop_device_options({option: saved.options[option] for option in kept if option in known and option in saved.options})
    try:
        defaults = OmegaConf.structured(UnivalTaskConfig(data=spec.path, seed=1, cpu=True, bf16=False, fp16=False))
        cfg = OmegaConf.merge(defaults, values | changed)
    except OmegaConfBaseException as error:
        raise UserError(f"--set {spec.name}.{error.key}={changed.get(str(error.key))}: {str(error).splitlines()[0]}") from error
    given = given_settings(cfg, kind.preset)
    return kind(cfg, find_vocabulary(cfg, given, saved.settings, pathlib.Path(like.name)), given=given, trained=saved.settings)


class EvaluatedTable:
    """A table with its task.

    Args:
        spec: what it is.
        task: its task, after the model was built, whose positions limit its texts.
        batch_size: rows at a time.
        workers: processes that read; 0: none.
        generates: False: the loss alone.
        store: keeps the media.

    Raises:
        UserError: the table cannot be opened, lacks the column to score with, or a row has no reference.
    """

    def __init__(self, spec: TableSpec, task: UnivalTask, batch_size: int, workers: int, generates: bool, store: MediaStore):
        self.spec, self.task = spec, task
        table = task.open_table(spec.path)
        absent = task.absent_columns(table)
        if absent:
            raise UserError(f"{spec.path}: no column {absent[0]!r} to score with; the columns are {', '.join(table.columns)}")
        self.dataset = task.build_dataset(table)
        self.dataset.split = spec.name
        self.batch_size, self.workers, self.store = batch_size, workers, store
        self.metrics = list(task.evaluation.metrics) if generates else []
        self.references = self.dataset.references()
        criterion = LabelSmoothedConfig(sentence_avg=False)
        self.criterion = LabelSmoothedCriterion(task, criterion).eval()
        self._batches: list[dict[str, Any]] = []

    def __len__(self) -> int:
        return len(self.dataset)

    @property
    def scores(self) -> list[str]:
        """Names of the scores."""
        return [*(score for name in self.metrics for score in self.task.evaluation.metrics[name].keys), LOSS]

    @property
    def metric(self) -> str:
        """The score that points are compared by."""
        return self.spec.metric or self.scores[0]

    @property
    def settings(self) -> dict[str, Any]:
        """What the scores depend on, besides the model and the table."""
        task = self.task
        options = vars(generation_options(task.generation_options())) if self.metrics else {}
        return {
            "instruction": task.instruction_text,
            "candidate answers": list(task.answers),
            "media": {name: value for name, value in vars(task.media).items() if not name.startswith("_")},
            "metrics": self.metrics,
            "settings of metrics": dataclasses.asdict(task.evaluation.metric_options) if self.metrics else {},
            "generation": {name: value for name, value in options.items() if not name.startswith("_")},
        }

    def batches(self) -> Sequence[dict[str, Any]]:
        """The batches, in order: media are decoded when they are first asked for, and kept as the integers that files hold."""
        if not self._batches:
            rows = in_order(len(self), self.batch_size)
            self._batches = [self.store.keep(batch) for batch in Reader(self.dataset, self.dataset.collater, rows, workers=self.workers)]
        return self._batches

    @torch.no_grad()
    def evaluate(self, model: Any, told: Told = lambda rows: None, resamples: int = 1000) -> Measured:
        """Loss and scores of a model.

        Args:
            model: the model, in eval mode.
            told: is called after every batch with its number of rows.
            resamples: draws of rows for the intervals; 0: none.
        """
        device = next(model.parameters()).device
        options = generation_options(self.task.generation_options())
        generator = self.task.build_generator([model], options) if self.metrics else None
        texts: dict[int, str] = {}
        nll, tokens = np.zeros(len(self)), np.zeros(len(self), dtype=np.int64)
        for batch in self.batches():
            sample = utils.move_to_cuda(batch, device) if device.type == "cuda" else batch
            ids = batch["id"].tolist()
            nll[ids], tokens[ids] = self.loss_of_rows(model, sample)
            if generator is not None:
                outputs = self.task.outputs(generator, [model], sample)
                texts.update((row, output.text) for row, output in zip(ids, outputs, strict=True))
            told(len(ids))
        loss = float(nll.sum() / max(tokens.sum(), 1))
        scores, intervals = {LOSS: loss}, {}
        if resamples:
            intervals[LOSS] = loss_interval(nll, tokens, resamples)
        if self.metrics:
            texts = dict(sorted(texts.items()))
            references = dict(enumerate(self.references))
            where = self.dataset.where_reference
            found = evaluate_rows(texts, references, self.metrics, options=self.task.evaluation.metric_options, where=where)
            scores = {**found.total, **scores}
            intervals |= found.intervals(resamples) if resamples else {}
        return Measured(scores, intervals, nll.tolist(), tokens.tolist())

    def loss_of_rows(self, model: Any, sample: dict[str, Any]) -> tuple[np.ndarray, np.ndarray]:
        """The negative log-likelihood of each row's target in bits, and its number of tokens: what validation sums to ``nll_loss``."""
        limited = self.task.with_limits(sample)
        features, _ = model(**limited["net_input"], features_only=True)
        counted = self.criterion.select_tokens(model, features, limited)
        _, losses = self.criterion.token_losses(counted)
        rows = sample["nsentences"]
        sums = torch.zeros(rows, dtype=torch.float64, device=losses.device).index_add_(0, counted.rows, losses[0].double())
        return sums.cpu().numpy() / math.log(2), torch.bincount(counted.rows, minlength=rows).cpu().numpy()


def loss_interval(nll: np.ndarray, tokens: np.ndarray, resamples: int) -> tuple[float, float]:
    """The 95% bootstrap interval of the loss per token: rows are drawn with replacement."""
    from unival.metrics.intervals import draws, percentiles

    losses = [float(drawn @ nll / max(drawn @ tokens, 1)) for drawn in draws(len(nll), resamples)]
    return percentiles(losses)
