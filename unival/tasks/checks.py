"""Checks before the first update of a run, so that mistakes do not show only later."""

import ast
import contextlib
import difflib
import importlib.util
import logging
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import fields
from typing import Any

from torch import nn

from unival.criterions.label_smoothed import LabelSmoothedCriterion
from unival.data.outside import check_answers
from unival.data.stream import Stream
from unival.errors import UserError, flag
from unival.generation.options import check_generation_options, generation_options
from unival.instructions import Instruction
from unival.metrics import METRICS
from unival.modalities import with_media
from unival.modalities.composed import MediaOptions
from unival.models.inference import check_type
from unival.tasks.averages import check_average
from unival.tasks.config import UnivalTaskConfig
from unival.tasks.disk import check_space
from unival.tasks.inputs import check_splits, find_table, find_train_tables, media_of_instructions, used_splits
from unival.tasks.restore import last_checkpoint
from unival.tasks.schedule import check_schedule
from unival.tasks.trial import first_examples, run_trial

logger = logging.getLogger(__name__)

# Values that fairseq's own criterions log at validation: name -> whether higher is better.  The trial shows which of them are logged.
FAIRSEQ_SCORES = {"loss": False, "nll_loss": False, "ppl": False, "accuracy": True}


class TrainingChecks:
    """The checks of a training run, which the task's hooks call as early as possible.

    Every method raises a UserError of one line.  Each process checks for itself, without communication.
    """

    def __init__(self, task: Any):
        self.task = task
        self.criterion: nn.Module | None = None
        self.references: dict[str, list[list[str]]] = {}  # validation split -> references by row, read once
        self.rows = 0.0  # rows of the training table, of several the mean
        self.found: list[str] = []
        self.seconds = 0.0
        with self._timed():
            check_counts(task.cfg)
            check_schedule(task.cfg)
            self.check_data()
            check_average(task.cfg)

    @contextlib.contextmanager
    def _timed(self) -> Iterator[None]:
        start = time.perf_counter()
        yield
        self.seconds += time.perf_counter() - start

    def check_data(self) -> None:
        """Check which tables there are, before anything is read."""
        check_splits(self.task.cfg)

    def before_model(self, start: Mapping[str, Any] | None) -> None:
        """Check generation options, packages for the instruction's media, the columns of every table, and one row of each.

        Args:
            start: the checkpoint that training starts from; None for a fresh start.
        """
        with self._timed():
            if start is not None:
                check_best_so_far(self.task.cfg, start)
            self.check_tables()

    def check_tables(self) -> None:
        """See :meth:`before_model`."""
        check_packages(self.task.instructions, self.task.media)
        splits, data = used_splits(self.task.cfg), self.task.cfg.data
        for split in splits:
            is_train = split == self.task.cfg.train_subset
            paths = find_train_tables(data, split) if is_train else [find_table(data, split, False)]
            for path in dict.fromkeys(paths):
                dataset = self.task.build_dataset(self.task.open_table(path), train=is_train)
                references = self.check_table(dataset)
                if is_train:
                    self.rows += len(dataset) * paths.count(path) / len(paths)
                elif references is not None:
                    self.references[split] = references
        check_eval_args(self.task)  # last, since a data set reports errors of its instruction first
        self.found.append(f"tables of {', '.join(splits)}")

    def check_table(self, dataset: Stream) -> list[list[str]] | None:
        """Check answers and one row of a table, of one to evaluate every row (not with ``--skip-checks``).

        Returns:
            The references of a table to evaluate, row by row.
        """
        if self.task.cfg.skip_checks:
            return None
        if dataset.is_train:
            check_answers(dataset)
        first_examples(dataset, 1)
        # evaluation never skips broken rows: they would end the run after an epoch
        return None if dataset.is_train else dataset.check_rows()

    def after_model(self, model: nn.Module) -> None:
        """Check the free disk space for checkpoints."""
        with self._timed():
            self.found.append(check_space(self.task.cfg, model, self.rows))

    def after_criterion(self, criterion: nn.Module) -> None:
        """Check that validation computes the value by which the best checkpoint is chosen."""
        self.criterion = criterion
        check_best_metric(self.task.cfg, criterion, self.other_scores(criterion))

    def other_scores(self, criterion: nn.Module) -> dict[str, bool]:
        """What validation computes besides the criterion's own values: name -> whether higher is better, as for all metrics."""
        return dict.fromkeys(self.task.evaluation.scores, True)

    def before_first_update(self, model: nn.Module) -> None:
        """Try a few rows with loss and generation (not with ``--skip-checks``), then log the checks in one line."""
        cfg = self.task.cfg
        if self.criterion is not None and not cfg.skip_checks:
            with self._timed():
                logged = self.try_rows(model, self.criterion)
            if not cfg.disable_validation and cfg.best_checkpoint_metric not in logged:
                raise UserError(_not_computed(cfg, sorted(logged)))
            self.found.append("loss and generation" if logged else "loss")
        logger.info("checked before the first update: %s (%.1f s)", "; ".join(self.found), self.seconds)

    def try_rows(self, model: nn.Module, criterion: nn.Module) -> set[str]:
        """Try a few rows; returns the names of the values that validation logs."""
        splits = used_splits(self.task.cfg)
        valid = None if self.task.cfg.disable_validation else self.task.datasets[splits[1]]
        train = self.task.datasets[splits[0]]
        assert isinstance(train, Stream)
        return run_trial(self.task, model, criterion, train, valid)


def check_counts(cfg: Any) -> None:
    """Check counts that fairseq divides by, some of them only at the end of an epoch, and limits of training.

    Raises:
        UserError: a count is below 1, or a limit is negative.
    """
    counts = {name: cfg[name] for name in ("batch_size", "batch_size_valid", "log_interval", "validate_interval", "save_interval")}
    for name, value in [*counts.items(), *(("update_freq", value) for value in cfg.update_freq)]:
        if value is not None and value < 1:
            raise UserError(f"{flag(name)} {value:g}: must be at least 1")
    for name in ("max_update", "max_epoch"):
        if cfg[name] < 0:
            raise UserError(f"{flag(name)} {cfg[name]}: must be at least 1, or 0 for no limit")


def check_generation(cfg: Any) -> None:
    """Check fairseq-generate's table and options before it loads models.

    Raises:
        UserError: the table does not exist, two options name different types, or ``--model-overrides`` names an option of the task, which
            would have no effect.
    """
    check_type(cfg.dtype)
    if cfg.fp16 and cfg.dtype != "fp32":
        raise UserError(f"--dtype {cfg.dtype} and --fp16: give one of them")
    find_table(cfg.data, cfg.gen_subset, cfg.gen_subset == cfg.train_subset)
    options = {field.name for field in fields(UnivalTaskConfig) if field.metadata}
    try:
        overrides = dict(ast.literal_eval(cfg.model_overrides))
    except (ValueError, SyntaxError, TypeError) as error:
        raise UserError(f"--model-overrides {cfg.model_overrides!r}: expected a dict such as {{'name': value}}") from error
    for name in overrides:
        if name in options:
            given = "the first argument" if name == "data" else flag(name)
            raise UserError(f"--model-overrides: {name!r} is an option of the task: give {given} itself")


def check_eval_args(task: Any) -> None:
    """Check names, types and ranges of ``--eval-args``, also if no metric uses them.

    Raises:
        UserError: one is wrong; the first is named.
    """
    options, target = task.generation_options(), task.target_of(task.instructions)
    try:
        check_generation_options(generation_options(options), task.target_dictionary, task.trie, target.span, target.length)
    except UserError as error:
        raise UserError(f"--eval-args {task.cfg.eval_args}: {error}") from error


def check_packages(instructions: Sequence[Instruction], media: MediaOptions) -> None:
    """Warn of missing packages that some files of the instruction's media need; packages that all files need fail at the first row."""
    for name in sorted(media_of_instructions(instructions)):
        for package, purpose in with_media()[name].packages(media).items():
            if importlib.util.find_spec(package) is None:
                logger.warning("the package %s is not installed: %s", package, purpose)


def check_best_metric(cfg: Any, criterion: nn.Module, others: Mapping[str, bool]) -> None:
    """Check that validation computes ``--best-checkpoint-metric``, and that its direction is right.

    Raises:
        UserError: it is not computed, two values have its name, or the worst checkpoint would be kept.
    """
    name = cfg.best_checkpoint_metric
    if cfg.disable_validation:
        given = {"best-checkpoint-metric": name != "loss", "patience": cfg.patience > 0, "validate-with": cfg.validate_with != "model"}
        for option, is_given in given.items():
            if is_given:
                logger.warning("--%s has no effect with --disable-validation: there is no score", option)
        return
    scores = dict(others)
    is_ours = isinstance(criterion, LabelSmoothedCriterion)
    if is_ours or type(criterion).__module__.startswith("fairseq."):
        logged = criterion.logged_scores() if is_ours else FAIRSEQ_SCORES  # type: ignore[operator]
        if is_ours and "accuracy" in logged and "accuracy" in scores:
            raise UserError("--report-accuracy logs the accuracy of tokens as accuracy, and so does --eval-metrics accuracy: leave one out")
        scores = {**logged, **scores}
        if name not in scores:
            raise UserError(_not_computed(cfg, list(scores)))
    if scores.get(name) and not cfg.maximize_best_checkpoint_metric:
        raise UserError(
            f"--best-checkpoint-metric {name}: higher is better, and checkpoint_best.pt would be the worst; add"
            " --maximize-best-checkpoint-metric"
        )
    if scores.get(name) is False and cfg.maximize_best_checkpoint_metric:
        raise UserError(
            f"--best-checkpoint-metric {name}: lower is better, and checkpoint_best.pt would be the worst; leave out"
            " --maximize-best-checkpoint-metric"
        )


def check_best_so_far(cfg: Any, start: Mapping[str, Any]) -> None:
    """Check that a resumed run chooses its best checkpoint by the same value as before.

    Raises:
        UserError: the best score so far is of another value, with which fairseq would compare the new ones.
    """
    is_new = cfg.finetune_from_model is not None and not last_checkpoint(cfg).is_file()
    begins_anew = cfg.reset_optimizer or cfg.reset_meters or is_new
    saved = (start.get("cfg") or {}).get("checkpoint") or {}
    best = (start.get("extra_state") or {}).get("best")
    if begins_anew or cfg.disable_validation or best is None or "best_checkpoint_metric" not in saved:
        return
    names = ("best_checkpoint_metric", "maximize_best_checkpoint_metric")
    before, now = ((options[names[0]], bool(options.get(names[1]))) for options in (saved, cfg))
    if before != now:
        flags = f"--best-checkpoint-metric {before[0]}" + (" --maximize-best-checkpoint-metric" if before[1] else "")
        raise UserError(
            f"the run that is resumed chose its best checkpoint by {flags} (so far {best:g}), which {now[0]} cannot be compared with:"
            " give the same, or --reset-meters to start again"
        )


def _not_computed(cfg: Any, computed: Sequence[str]) -> str:
    name = cfg.best_checkpoint_metric
    owners = {score: f"add {metric} to --eval-metrics" for metric, cls in METRICS.items() for score in cls.keys}
    how = {**owners, "accuracy": "add --report-accuracy (of tokens) or add accuracy to --eval-metrics", **dict.fromkeys(computed, "")}
    meant = name if name in how else next(iter(difflib.get_close_matches(name, how, n=1)), "")
    if meant == name:
        advice = f": {how[meant]}, or choose from"
    elif meant:
        advice = f", did you mean {meant!r}?" + (f" Then {how[meant]}, or choose from" if how[meant] else " There are")
    else:
        advice = "; there are"
    return f"--best-checkpoint-metric {name!r} is not computed at validation{advice} {', '.join(computed)}"
