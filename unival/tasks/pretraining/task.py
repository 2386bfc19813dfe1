"""``--task unival_pretrain``: one model trained on many streams at once, one stage of a mixture file at a time."""

import functools
import logging
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Optional  # fairseq's argument parser does not know ``str | None``

import torch
from fairseq.distributed import utils as distributed
from fairseq.tasks import register_task

from unival.data.bounded import WHOLE
from unival.data.mixture import Mixture
from unival.errors import UserError, counted
from unival.tasks.base import UnivalTask
from unival.tasks.config import UnivalTaskConfig
from unival.tasks.presets import Preset
from unival.tasks.pretraining import plan
from unival.tasks.pretraining.checks import MixtureChecks
from unival.tasks.pretraining.evaluation import MixtureEvaluation
from unival.tasks.pretraining.file import MixtureFile, StageSpec, StreamSpec, is_mixture, read_mixture
from unival.tasks.pretraining.limits import limit_to_candidates
from unival.tasks.pretraining.optimizer import KeptOptimizer, kept_optimizer, put_into
from unival.tasks.pretraining.streams import TaskStream, media_of
from unival.tasks.pretraining.weights import ScheduledWeights, StreamWeights

logger = logging.getLogger(__name__)


@dataclass
class PretrainConfig(UnivalTaskConfig):
    """Options of ``--task unival_pretrain``."""

    stage: Optional[str] = field(
        default=None, metadata={"group": "task", "help": "the stage of the mixture file to train (default: its only one)"}
    )
    if TYPE_CHECKING:

        def __getattr__(self, name: str) -> Any: ...


@register_task("unival_pretrain", dataclass=PretrainConfig)
class PretrainTask(UnivalTask):
    """A stage of a mixture file; its data are the file.  A checkpoint of it is a model like any other."""

    preset = Preset("unival_pretrain", about="Many streams at once, one stage of a mixture file at a time.")
    training_checks = MixtureChecks

    streams: list[TaskStream]  # that the stage trains; see open_mixture
    valid_streams: list[TaskStream]  # with a table for validation, of this and of earlier stages
    weights: StreamWeights
    _opened = False
    _kept: KeptOptimizer | None = None  # the state of the optimizer of the stage before, until the first step
    _loss_weights: torch.Tensor | None = None  # of the present epoch

    @functools.cached_property
    def mixture(self) -> MixtureFile:
        """The mixture file; it is read when training or validation on it begins, not when a checkpoint is used."""
        return read_mixture(self.cfg.data)

    @functools.cached_property
    def stage(self) -> StageSpec:
        """The stage that is trained."""
        return self.mixture.stage(self.cfg.stage)

    @property
    def validated_specs(self) -> list[StreamSpec]:
        """The streams with a table for validation, of this stage and of earlier ones: what is forgotten shows."""
        return [spec for spec in self.mixture.until(self.stage) if spec.valid is not None]

    def open_mixture(self) -> None:
        """Make the streams of the stage, once the positions of the model are known."""
        if self._opened:
            return
        self._opened = True
        self.streams = [TaskStream(spec, self) for spec in plan.trained_specs(self.mixture, self.stage)]
        self.valid_streams = [TaskStream(spec, self) for spec in self.validated_specs]
        self.evaluation = MixtureEvaluation(self.valid_streams, self.cfg.eval_args)
        self.weights = ScheduledWeights([stream.spec for stream in self.streams])

    # --- data -----------------------------------------------------------------------------------------------------------------

    def load_dataset(self, split: str, combine: bool = False, task_cfg: Any = None, epoch: int = 1, **kwargs: Any) -> None:
        """Load the streams of the stage; with a table as data, load it as ``--task unival`` does."""
        if not is_mixture(self.cfg.data):
            super().load_dataset(split, combine, task_cfg, epoch, **kwargs)
            return
        if self.is_generating:
            raise UserError(f"{self.cfg.data}: generate for a table, with its --instruction or --task, e.g. --task unival_caption")
        self.open_mixture()
        if self.is_training and split == self.cfg.train_subset:
            self.datasets[split] = self.training_mixture()
        else:
            self.datasets[split] = self.validation_mixture(split)

    def training_mixture(self) -> Mixture:
        """The streams that the stage trains, in their shares."""
        data = [stream.training_data() for stream in self.streams]
        specs = [stream.spec for stream in self.streams]
        rows = {stream.name: len(stream) for stream in data}
        shares = plan.planned_shares(self.mixture, self.stage, rows, self.weights)
        total = plan.rows_per_epoch(self.stage, rows, self.rows_per_update())
        mixture = Mixture(data, shares=shares, rows_per_epoch=total, numbers=[spec.number for spec in specs])
        assert mixture.plan is not None
        is_changing = self.stage.transition or any(len(spec.weight) > 1 for spec in specs)
        for stream, share in zip(data, mixture.plan.weights([0])[0] / WHOLE, strict=True):
            logger.info("%s: %s, share %.3g%s", stream.name, counted(len(stream), "row"), share, " at first" if is_changing else "")
        return mixture

    def rows_per_update(self) -> int:
        """Rows of an update on all processes."""
        freq = self.cfg.update_freq
        if self.stage.updates_per_epoch and len(freq) > 1:
            raise (self.stage.place / "updates_per_epoch").error("needs an --update-freq that is the same in all epochs")
        return (self.cfg.batch_size or 1) * int(freq[0]) * distributed.get_data_parallel_world_size()

    def validation_mixture(self, split: str) -> Mixture:
        """The streams that are validated, one after the other."""
        if not self.valid_streams:
            raise self.stage.place.error("none of its streams has valid, a table for validation")
        data = [stream.validation_data() for stream in self.valid_streams]
        mixture = Mixture(data, numbers=[stream.spec.number for stream in self.valid_streams])
        mixture.split = split
        mixture.take_shard(*self.shard)
        for stream, rows in zip(self.valid_streams, data, strict=True):
            logger.info("%s of %s: %s from %s", split, stream.name, counted(len(rows), "row"), rows.table.path)
            if stream.evaluation.metrics:
                known = None if self.checks is None else self.checks.references.pop(stream.name, None)
                assert isinstance(self.evaluation, MixtureEvaluation)
                self.evaluation.fit_stream(stream, split, rows.references() if known is None else known)
        return mixture

    # --- model ----------------------------------------------------------------------------------------------------------------

    def needed_media(self) -> set[str] | None:
        """The media of the streams of this stage and of earlier ones."""
        if not is_mixture(self.cfg.data):
            return super().needed_media()
        return {name for spec in self.mixture.until(self.stage) for name in media_of(spec)}

    def build_model(self, cfg: Any, from_checkpoint: bool = False) -> Any:
        """Build the model; media that came with this stage are new to the checkpoint of the one before."""
        if from_checkpoint or not is_mixture(self.cfg.data):
            return super().build_model(cfg, from_checkpoint)
        self._check_media(cfg)
        if self.stage.keep_optimizer:
            self._kept = kept_optimizer(self.cfg, self.start, self.stage.place / "keep_optimizer")
        model = super().build_model(cfg, from_checkpoint)
        if self._kept is not None:
            self._kept = self._kept.fitted(model)
        return model

    def _check_media(self, cfg: Any) -> None:
        """Check that the model takes what the streams need."""
        if cfg.modalities is not None:
            taken = set(filter(None, cfg.modalities.split(",")))
            for spec in plan.trained_specs(self.mixture, self.stage):
                lacking = sorted(media_of(spec) - taken)
                if lacking:
                    raise spec.place.error(f"needs {', '.join(lacking)}, and --modalities {cfg.modalities or '(none)'} has none")
        elif self.stage.number and not cfg.new_modalities:
            before = self.mixture.until(self.mixture.stages[self.stage.number - 1])
            known = {name for spec in before for name in media_of(spec)}
            cfg.new_modalities = ",".join(sorted((self.needed_media() or set()) - known))

    # --- checkpoints ----------------------------------------------------------------------------------------------------------

    def state_dict(self) -> dict[str, Any]:
        """As of any task, and the instructions of the streams in place of one."""
        state = super().state_dict()
        if not self._opened:
            return state
        return {**state, "streams": {stream.name: [part.text for part in stream.instructions] for stream in self.streams}}

    def get_checkpoint_dict(self) -> dict[str, Any]:
        """fairseq's hook: what a checkpoint has of the task's own, to go on from within a run."""
        return {type(self).__name__: {"stream_weights": self.weights.state_dict()}} if self._opened else {}

    def set_checkpoint_dict(self, state: dict[str, Any]) -> None:
        """fairseq's hook, where a run is resumed."""
        self.weights.load_state_dict(state["stream_weights"])

    # --- steps ----------------------------------------------------------------------------------------------------------------

    def begin_epoch(self, epoch: int, model: Any) -> None:
        """Decide the loss weights of an epoch; the first planned epoch is 0."""
        super().begin_epoch(epoch, model)
        weights = self.weights.begin(epoch - 1)
        self._loss_weights = None if all(weight == 1 for weight in weights) else torch.tensor(weights, dtype=torch.float64)

    def train_step(
        self, sample: dict[str, Any], model: Any, criterion: Any, optimizer: Any, update_num: int, *args: Any, **kwargs: Any
    ) -> Any:
        """fairseq's training step, with the loss weights of the streams."""
        if self._kept is not None:
            put_into(optimizer, self._kept)
            self._kept = None
        if self._loss_weights is not None:
            sample = {**sample, "stream_loss_weights": self._loss_weights}
        return super().train_step(sample, model, criterion, optimizer, update_num, *args, **kwargs)

    def valid_step(self, sample: dict[str, Any], model: Any, criterion: Any, ema_model: Any = None) -> Any:
        """The validation step, of one stream."""
        if "stream_names" not in sample and self._opened:  # there is only one
            only = torch.zeros_like(sample["stream"])
            sample = {**sample, "stream": only, "stream_names": [stream.name for stream in self.valid_streams]}
        return super().valid_step(sample, model, criterion, ema_model)

    def with_limits(self, sample: dict[str, Any]) -> dict[str, Any]:
        """Add the constraints of the loss to a batch: the candidate answers of each row's stream, or the range of its tokens."""
        if not sample["nsentences"] or not self._opened:
            return super().with_limits(sample)
        tries = {stream.name: stream.trie for stream in [*self.valid_streams, *self.streams]}
        return limit_to_candidates(sample, [tries[name] for name in sample["stream_names"]], self.vocabulary)

    def reduce_metrics(self, logging_outputs: list[dict[str, Any]], criterion: Any) -> None:
        """Log what any task does; what was learned of each stream is noted for its weights."""
        super().reduce_metrics(logging_outputs, criterion)
        if criterion.training and self._opened:
            for output in logging_outputs:
                self.weights.observe(output)
