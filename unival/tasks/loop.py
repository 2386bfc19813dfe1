"""The training loop's hooks: batches planned for all processes, batches without rows, updates without a gradient, equal norms."""

import logging
import pathlib
from functools import partial
from typing import Any

import torch
import torch.distributed
from fairseq.distributed import utils as distributed
from fairseq.optim.amp_optimizer import AMPOptimizer
from fairseq.tasks import FairseqTask
from fairseq.utils import apply_to_sample
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from unival.data.collate import collate
from unival.data.example import Example
from unival.data.mixture import EpochBatches, Mixture
from unival.data.order import NO_BATCH_SIZE
from unival.data.stream import Stream
from unival.data.table import Table
from unival.errors import UserError
from unival.optim.unused import UsedParts
from unival.tasks.config import UnivalTaskConfig
from unival.tasks.inputs import train_tables
from unival.tasks.schedule import tell_schedule
from unival.vocab import Vocabulary

logger = logging.getLogger(__name__)

REDUCERS = ("pytorch_ddp", "c10d")  # fairseq's names of torch's DistributedDataParallel
Step = tuple[Any, Any, dict[str, Any]]  # loss, sample size, values to log


class LoopTask(FairseqTask):
    """What a task does for every batch and update; what a batch means is up to the tasks derived from it."""

    cfg: UnivalTaskConfig
    vocabulary: Vocabulary

    def __init__(self, cfg: UnivalTaskConfig):
        super().__init__(cfg)
        self._train_batches: EpochBatches | None = None
        self._rows_by_epoch: list[int] = []
        self.planned_updates: int | None = None  # of all epochs; None without --max-epoch
        self._began = False
        self._idle_updates = 0  # of the present epoch
        self._used = UsedParts()  # by the present update
        self._silent = False  # whether a batch of the present update has only streams of loss weight 0
        self._skipped = ""  # what was wrong with the last row that was skipped

    def build_model(self, cfg: Any, from_checkpoint: bool = False) -> Any:
        """fairseq's hook, before the model is wrapped for several processes."""
        if not from_checkpoint:
            look_for_unused_parts(self.cfg)
        return super().build_model(cfg, from_checkpoint)

    def has_sharded_data(self, split: str) -> bool:
        """fairseq's hook: whether every epoch loads the table to train on, since it is another one."""
        return len(train_tables(self.cfg.data)) > 1

    def open_table(self, path: str | pathlib.Path) -> Table:
        """Open one of this task's tables."""
        raise NotImplementedError

    def rows_by_epoch(self, mixture: Mixture) -> list[int]:
        """Rows of the tables that epochs train on in turn; empty where there are none in turn."""
        if not mixture.is_train or not self.has_sharded_data(self.cfg.train_subset):
            return []
        if not self._rows_by_epoch:
            self._rows_by_epoch = [len(self.open_table(path)) for path in train_tables(self.cfg.data)]
        return self._rows_by_epoch

    def get_batch_iterator(
        self,
        dataset: Stream | Mixture,
        max_tokens: int | None = None,
        max_sentences: int | None = None,
        max_positions: Any = None,
        ignore_invalid_inputs: bool = False,
        required_batch_size_multiple: int = 1,
        seed: int = 1,
        num_shards: int = 1,
        shard_id: int = 0,
        num_workers: int = 0,
        epoch: int = 1,
        data_buffer_size: int = 0,
        disable_iterator_cache: bool = False,
        skip_remainder_batch: bool = False,
        grouped_shuffling: bool = False,
        update_epoch_batch_itr: bool = False,
    ) -> EpochBatches:
        """fairseq's hook.  Batches are counted in rows, none is left out for its length, and all are as good in any order.

        Before the first epoch fairseq reads the whole validation data without using it; it gets none there.
        """
        if max_sentences is None:
            raise UserError(NO_BATCH_SIZE)
        mixture = dataset if isinstance(dataset, Mixture) else Mixture([dataset])
        mixture.set_epoch(epoch)
        batches = EpochBatches(
            mixture,
            max_sentences,
            update_freq=self.cfg.update_freq if mixture.is_train else [1],
            workers=num_workers,
            ahead=data_buffer_size,
            pin_memory=torch.cuda.is_initialized(),  # this process uses a GPU
            seed=seed,
            ranks=num_shards,
            rank=shard_id,
            epoch=epoch,
            skip_remainder_batch=skip_remainder_batch,
            rows_by_epoch=self.rows_by_epoch(mixture),
            dry=not mixture.is_train and self._train_batches is not None and not self._began,
            on_epoch=partial(tell_schedule, self.cfg) if mixture.is_train else None,
        )
        if mixture.is_train:
            self._train_batches = batches
        return batches

    def begin_epoch(self, epoch: int, model: Any) -> None:
        """fairseq's hook before each epoch of training."""
        self._began = True
        self._idle_updates = 0
        if self._train_batches is not None and self.cfg.max_epoch:
            self.planned_updates = sum(map(self._train_batches.length, range(1, self.cfg.max_epoch + 1)))

    def train_step(
        self,
        sample: dict[str, Any],
        model: Any,
        criterion: Any,
        optimizer: Any,
        update_num: int,
        ignore_grad: bool = False,
    ) -> Step:
        """fairseq's training step, and the counts of skipped rows and cut texts; a batch without rows adds nothing."""
        for self._skipped in sample["skipped"]:
            logger.warning("skipped: %s", self._skipped)
        if sample["nsentences"]:
            step = super().train_step(sample, model, criterion, optimizer, update_num, ignore_grad)
            self._used.note(optimizer)
            if step[0].is_leaf:  # its streams have loss weights of 0: nothing was learned, and no communication took place
                self._silent = True
                self.idle_step(sample, model, criterion, optimizer, update_num)
        else:
            self._used.note(optimizer)
            step = self.idle_step(sample, model, criterion, optimizer, update_num)
        step[2].update({count: sample[count] for count in ("num_truncated", "num_empty")}, num_skipped=len(sample["skipped"]))
        return step

    def idle_step(self, sample: dict[str, Any], model: Any, criterion: Any, optimizer: Any, update_num: int) -> Step:
        """The step of a batch without rows: other processes wait for the same communication, and for the same values to log.

        A row without media stands in, its loss times 0; random numbers are drawn as if there had been none.
        """
        sample = {**self.idle_batch(model), **{key: sample[key] for key in ("stream_names",) if key in sample}}
        with torch.random.fork_rng([sample["target"].device] if sample["target"].is_cuda else []):
            step = super().train_step(sample, model, criterion, optimizer, update_num, ignore_grad=True)
        return weightless(step)

    def idle_batch(self, model: nn.Module) -> dict[str, Any]:
        """The batch of :meth:`idle_step`."""
        return self.stand_in(model)

    def stand_in(self, model: nn.Module) -> dict[str, Any]:
        """A batch of one row without media, on the model's device."""
        bos, eos = self.vocabulary.bos, self.vocabulary.eos
        example = Example(
            row=-1,
            source=torch.tensor([bos, eos]),
            prev_output=torch.tensor([bos]),
            target=torch.tensor([eos]),
            prefix=torch.tensor([], dtype=torch.long),
            references=["a"],
        )
        device = next(model.parameters()).device
        return apply_to_sample(lambda tensor: tensor.to(device), collate([example], self.vocabulary.pad))

    def optimizer_step(self, optimizer: Any, model: Any, update_num: int) -> None:
        """fairseq's hook.  Without a gradient from any row of any process, weights and optimizer state stay as they are; so do those
        of parts that no row of the update has used.

        Raises:
            UserError: an epoch has no row that can be used.
        """
        silent, self._silent = self._silent, False
        if not (silent or "skip" in (self.cfg.on_bad_sample, self.cfg.on_bad_answer)) or has_gradient(optimizer):
            with self._used.only(optimizer):
                super().optimizer_step(optimizer, model, update_num)
        else:
            if isinstance(optimizer, AMPOptimizer):
                optimizer.scaler.update()  # ends the update that its scaling began
            if not silent:
                self._count_idle_update()
        average_statistics(model)

    def _count_idle_update(self) -> None:
        self._idle_updates += 1
        assert self._train_batches is not None, "an update without batches"
        if self._idle_updates == self._train_batches.updates:
            tables = self._train_batches.mixture.where
            raise UserError(f"{tables}: no row can be used (--on-bad-sample, --on-bad-answer), for example {self._skipped}")


def look_for_unused_parts(cfg: UnivalTaskConfig) -> None:
    """Turn on ``--find-unused-parameters`` where a run needs it: torch's reducer would wait for parts that no rank uses in a step.

    There always are some: those of image codes, of media that a batch lacks, of a batch whose rows were all skipped.

    Args:
        cfg: the task's options, a part of the run's configuration.
    """
    run = cfg._get_root()
    distribution = run.distributed_training if "distributed_training" in run else None
    if distribution is None or distribution.distributed_world_size == 1 or distribution.ddp_backend not in REDUCERS:
        return
    if not distribution.find_unused_parameters:
        distribution.find_unused_parameters = True
        logger.info("--find-unused-parameters is on: a step does not use every part of the model")


def weightless(step: Step) -> Step:
    """A step as one of no rows: the same values to log, on the same devices, all 0."""
    loss, _, logging_output = step
    return loss * 0, 0, {key: value * 0 for key, value in logging_output.items()}


def has_gradient(optimizer: Any) -> bool:
    """Whether any parameter has a gradient other than 0; all processes say the same, since gradients were summed over them."""
    return any(p.grad is not None and bool(p.grad.any()) for p in optimizer.params)


def average_statistics(model: nn.Module) -> None:
    """Give all processes the mean of their batch norms' running statistics, so that all evaluate the model that is saved.

    One reduction of all of them per update: for a ResNet-101 840 KB.  It cannot wait for a checkpoint, which one process writes alone.  In
    float64 statistics that are equal keep their bits.
    """
    ranks = distributed.get_data_parallel_world_size()
    if ranks == 1:
        return
    statistics = [
        buffer
        for norm in model.modules()
        if isinstance(norm, _BatchNorm) and norm.training
        for buffer in (norm.running_mean, norm.running_var)
        if buffer is not None
    ]
    if not statistics:
        return
    mean = torch.cat([buffer.double().flatten() for buffer in statistics])
    torch.distributed.all_reduce(mean, group=distributed.get_data_parallel_group())
    mean /= ranks
    for buffer, values in zip(statistics, mean.split([buffer.numel() for buffer in statistics]), strict=True):
        buffer.copy_(values.view_as(buffer))
