"""``--task unival_pretrain``: one model trained on many streams at once, one stage of a mixture file at a time."""

import functools
import logging
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Optional  # fairseq's argument parser does not know ``str | None``

import torch
from fairseq.tasks import register_task

from unival.data.mixture import Mixture
from unival.errors import UserError, counted
from unival.tasks.base import UnivalTask
from unival.tasks.closed_set import limit_loss
from unival.tasks.config import UnivalTaskConfig
from unival.tasks.presets import Preset
from unival.tasks.pretraining.checks import MixtureChecks
from unival.tasks.pretraining.file import MixtureFile, StageSpec, is_mixture, read_mixture
from unival.tasks.pretraining.shares import shares
from unival.tasks.pretraining.streams import TaskStream

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

    @functools.cached_property
    def mixture(self) -> MixtureFile:
        """The mixture file; it is read when training or evaluation on it begins, not when a checkpoint is used."""
        return read_mixture(self.cfg.data)

    @functools.cached_property
    def stage(self) -> StageSpec:
        """The stage that is trained."""
        return self.mixture.stage(self.cfg.stage)

    @functools.cached_property
    def streams(self) -> dict[str, TaskStream]:
        """The streams of the stage; to be asked for when the positions of the model are known."""
        return {spec.name: TaskStream(spec, self) for spec in self.stage.streams}

    def needed_media(self) -> set[str] | None:
        """The media of the streams of this stage and of earlier ones."""
        if not is_mixture(self.cfg.data):
            return super().needed_media()
        return {name for spec in self.mixture.until(self.stage) for name in TaskStream(spec, self).media}

    def load_dataset(self, split: str, combine: bool = False, task_cfg: Any = None, epoch: int = 1, **kwargs: Any) -> None:
        """Load the streams of the stage; with a table as data, load it as ``--task unival`` does."""
        if not is_mixture(self.cfg.data):
            super().load_dataset(split, combine, task_cfg, epoch, **kwargs)
            return
        if split != self.cfg.train_subset or not self.is_training:
            raise UserError(f"{self.cfg.data}: a mixture has no split {split!r}")
        self.datasets[split] = self.training_mixture()

    def training_mixture(self) -> Mixture:
        """The streams of the stage in their shares; an epoch has as many rows as they have together, those above a cap not counted."""
        streams = [stream.training_data() for stream in self.streams.values()]
        specs = self.stage.streams
        counts = [min(len(stream), spec.cap or len(stream)) for stream, spec in zip(streams, specs, strict=True)]
        found = shares(self.stage.balancing, counts, [spec.weight for spec in specs])
        for stream, share in zip(streams, found, strict=True):
            logger.info("%s: %s, share %.3g", stream.name, counted(len(stream), "row"), share)
        return Mixture(streams, [share * sum(counts) / len(stream) for stream, share in zip(streams, found, strict=True)])

    def with_limits(self, sample: dict[str, Any]) -> dict[str, Any]:
        """Add the constraints of the loss to a batch: the candidate answers of each row's stream, or the range of its tokens."""
        if not sample["nsentences"] or not is_mixture(self.cfg.data):
            return super().with_limits(sample)
        target, size = sample["target"], len(self.vocabulary)
        sample = limit_loss(sample, size)
        tries = {number: stream.trie for number, stream in enumerate(self.streams.values()) if stream.trie is not None}
        masks, counts = None, torch.zeros_like(sample["stream"])
        for number, trie in tries.items():
            rows = sample["stream"] == number
            if not bool(rows.any()):
                continue
            counts[rows] = trie.size
            if masks is None:
                masks = sample.get("constraint_masks", torch.ones(*target.shape, size, dtype=torch.bool, device=target.device)).clone()
            trie.to(target.device)
            masks[rows] &= trie.target_masks(target[rows], self.vocabulary.pad, size)
        if masks is None:
            return sample
        if "outside" in sample:
            masks[sample["outside"]] = True
        return {**sample, "constraint_masks": masks, "num_candidates": counts}
