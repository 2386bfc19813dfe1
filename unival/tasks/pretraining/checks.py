"""Checks of a stage before its first update."""

from typing import Any

from torch import nn

from unival.criterions.label_smoothed import LabelSmoothedCriterion
from unival.data.example import Example, Sample
from unival.data.mixture import Mixture
from unival.data.stream import Stream
from unival.errors import UserError
from unival.tasks.checks import TrainingChecks, check_eval_args, check_packages
from unival.tasks.pretraining.file import is_mixture
from unival.tasks.pretraining.streams import errors_of
from unival.tasks.trial import run_trial

IN_FILE = ("instruction", "closed_set", "columns", "selected_cols")  # options of other tasks, which every stream has for itself


class MixtureChecks(TrainingChecks):
    """The checks of :class:`unival.tasks.checks.TrainingChecks`, of every stream of a stage."""

    def check_data(self) -> None:
        """Read the mixture file, and check options that do not go with it."""
        task, cfg = self.task, self.task.cfg
        if not is_mixture(cfg.data):
            raise UserError(f"{cfg.data}: --task unival_pretrain trains on a mixture file, e.g. mixture.yaml")
        for name in IN_FILE:
            if cfg[name] is not None:
                raise UserError(f"--{name.replace('_', '-')} is not for a mixture: {cfg.data} says it for every stream")
        if cfg.builder != "plain":
            raise UserError(f"--builder {cfg.builder} is not for a mixture: {cfg.data} names the builder of every stream")
        if cfg.eval_metrics:
            raise UserError(f"--eval-metrics {cfg.eval_metrics}: {cfg.data} says the metrics of every stream; '' is for none")
        stage = task.stage
        if not cfg.disable_validation:
            if cfg.valid_subset != "valid":
                raise UserError(f"--valid-subset {cfg.valid_subset}: the streams of a mixture are validated together, as valid")
            if not task.validated_specs:
                raise stage.place.error("none of its streams has valid, a table for validation: give one, or --disable-validation")
            self._check_names()
        run = cfg._get_root()
        if "dataset" in run:
            run.dataset.ignore_unused_valid_subsets = True

    def _check_names(self) -> None:
        """fairseq writes the name of the best checkpoints' metric into names of files."""
        name, count = self.task.cfg.best_checkpoint_metric, self.task.cfg.keep_best_checkpoints
        if "/" in name and count > 0:
            raise UserError(
                f"--keep-best-checkpoints {count} would put {name} into names of files, where / cannot be: leave it out;"
                " checkpoint_best.pt is the best one"
            )

    def check_tables(self) -> None:
        """Check the packages, the columns and a row of every stream, all rows of those to validate on, and generation options."""
        task = self.task
        task.open_mixture()
        for stream in task.streams:
            check_packages(stream.instructions, task.media)
            dataset = stream.training_data()
            with errors_of(stream.spec.place):
                self.check_table(dataset)
            self.rows += len(dataset)
        for stream in () if task.cfg.disable_validation else task.valid_streams:
            dataset = stream.validation_data()
            with errors_of(stream.spec.place / "valid"):
                references = self.check_table(dataset)
                if references is not None:
                    self.references[stream.name] = references
                if stream.evaluation.metrics:
                    check_eval_args(stream)
        self.found.append(f"streams {', '.join(stream.name for stream in task.streams)} of stage {task.stage.name}")

    def other_scores(self, criterion: nn.Module) -> dict[str, bool]:
        """The metrics of every stream, and the values that the criterion logs of it."""
        of_streams = criterion.logged_scores() if isinstance(criterion, LabelSmoothedCriterion) else {}
        names = [stream.name for stream in self.task.valid_streams]
        losses = {f"{name}/{key}": is_higher for name in names for key, is_higher in of_streams.items() if key != "ppl"}
        return {**losses, **super().other_scores(criterion)}

    def try_rows(self, model: nn.Module, criterion: nn.Module) -> set[str]:
        """Try a few rows of every stream; returns the names of the values that validation logs."""
        cfg = self.task.cfg
        train = parts(self.task.datasets[cfg.train_subset])
        valid = [] if cfg.disable_validation else parts(self.task.datasets[cfg.valid_subset])
        logged: set[str] = set()
        for number in range(max(len(train), len(valid))):
            logged |= run_trial(self.task, model, criterion, train[number % len(train)], valid[number % len(valid)] if valid else None)
        return logged


class Part:
    """A stream of a mixture whose rows are batched as those of the mixture."""

    def __init__(self, stream: Stream, mixture: Mixture):
        self.stream, self.mixture = stream, mixture

    def __len__(self) -> int:
        return len(self.stream)

    def read(self, number: int) -> list[Example]:
        """The examples of a row."""
        return self.stream.read(number)

    def is_skipped(self, error: UserError) -> bool:
        """Whether a row is skipped because of an error."""
        return self.stream.is_skipped(error)

    def collater(self, samples: list[Sample]) -> dict[str, Any]:
        """Batch rows."""
        return self.mixture.collater(samples)


def parts(mixture: Mixture) -> list[Part]:
    """The streams of a mixture."""
    return [Part(stream, mixture) for stream in mixture.streams]
