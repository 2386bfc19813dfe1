"""Tells a learning-rate schedule how many updates its run has, once the batches of an epoch are planned."""

from typing import Any

from omegaconf import DictConfig

from unival.data.batches import EpochBatches


def tell_schedule(cfg: Any, batches: EpochBatches) -> None:
    """Write the run's length into the options of its schedule, if that has a place for it.

    Args:
        cfg: the task's options, a part of the run's configuration; the schedule's are another.
        batches: at the beginning of an epoch, or within one that is resumed.
    """
    run = cfg._get_root()
    schedule = run.lr_scheduler if "lr_scheduler" in run else None
    if not cfg.max_epoch or not isinstance(schedule, DictConfig) or "planned_updates" not in schedule:
        return
    lengths = [batches.length(epoch) for epoch in range(1, cfg.max_epoch + 1)]
    schedule.planned_updates = sum(lengths)
    schedule.updates_left = batches.updates_left + sum(lengths[batches.epoch :])
