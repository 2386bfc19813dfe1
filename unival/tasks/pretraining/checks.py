"""Checks of a stage before its first update."""

from torch import nn

from unival.errors import UserError
from unival.tasks.checks import TrainingChecks, check_packages
from unival.tasks.pretraining.file import is_mixture
from unival.tasks.pretraining.streams import errors_of
from unival.tasks.trial import run_trial


class MixtureChecks(TrainingChecks):
    """The checks of :class:`unival.tasks.checks.TrainingChecks`, of every stream of a stage."""

    def check_data(self) -> None:
        """Read the mixture file."""
        task = self.task
        if not is_mixture(task.cfg.data):
            raise UserError(f"{task.cfg.data}: --task unival_pretrain trains on a mixture file, mixture.yaml")
        if not task.cfg.disable_validation:
            raise UserError("give --disable-validation: a mixture is not validated yet")
        run = task.cfg._get_root()
        if "dataset" in run:
            run.dataset.ignore_unused_valid_subsets = True
        assert task.stage is not None

    def check_tables(self) -> None:
        """Check the packages, the columns and a row of every stream."""
        for stream in self.task.streams.values():
            check_packages(stream.instructions, self.task.media)
            dataset = stream.training_data()
            with errors_of(stream.spec.place):
                self.check_table(dataset)
            self.rows += len(dataset)
        self.found.append(f"streams {', '.join(self.task.streams)}")

    def try_rows(self, model: nn.Module, criterion: nn.Module) -> set[str]:
        """Try a few rows of every stream."""
        for stream in self.task.datasets[self.task.cfg.train_subset].streams:
            run_trial(self.task, model, criterion, stream, None)
        return set()
