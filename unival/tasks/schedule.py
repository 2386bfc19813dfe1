"""What a task has to do with its run's learning-rate schedule: its options are tried at the start, and it is told the run's length."""

from argparse import Namespace
from typing import Any

import torch
from fairseq.optim import FairseqOptimizer
from fairseq.optim.lr_scheduler import build_lr_scheduler
from omegaconf import DictConfig

from unival.data.mixture import EpochBatches
from unival.errors import UserError
from unival.quiet_import import uncollected

OTHERS = ("pass_through",)  # schedules that belong to an optimizer


class StandIn(FairseqOptimizer):
    """An optimizer of one number, to build a schedule for."""

    def __init__(self, lr: float):
        super().__init__(Namespace())
        with uncollected():  # the first optimizer of a process imports torch._dynamo
            self._optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=lr)


def check_schedule(cfg: Any) -> None:
    """Build the run's schedule, and take the first steps of fairseq's own: only there they say that options do not go together.

    Args:
        cfg: the task's options, a part of the run's configuration.

    Raises:
        UserError: the schedule cannot be used as it is asked for.
    """
    schedule = _options(cfg)
    if schedule is None or schedule.get("_name") in (None, *OTHERS):
        return
    warm = max(schedule.get(name) or 0 for name in ("warmup_updates", "warmup_steps"))
    try:
        trial = build_lr_scheduler(schedule, StandIn(cfg._get_root().optimization.lr[0]))
        for update in (0, 1, warm + 1) if type(trial).__module__.startswith("fairseq.") else ():
            trial.step_update(update)
    except UserError:
        raise
    except (AssertionError, ValueError, ArithmeticError) as error:
        needs_length = not cfg.max_update and ("max_update" in schedule or "total_num_update" in schedule)
        advice = "; it may need --max-update (unival_polynomial follows --max-epoch)" if needs_length else ""
        raise UserError(f"--lr-scheduler {schedule._name}: {str(error) or 'its options do not go together'}{advice}") from error


def _options(cfg: Any) -> DictConfig | None:
    run = cfg._get_root()
    schedule = run.lr_scheduler if "lr_scheduler" in run else None
    return schedule if isinstance(schedule, DictConfig) else None


def tell_schedule(cfg: Any, batches: EpochBatches) -> None:
    """Write the run's length into the options of its schedule, if that has a place for it.

    Args:
        cfg: the task's options, a part of the run's configuration; the schedule's are another.
        batches: at the start of an epoch, or within one that is resumed.
    """
    schedule = _options(cfg)
    if schedule is None or "planned_updates" not in schedule:
        return
    epochs = schedule.schedule_epochs or cfg.max_epoch
    if not epochs:
        return
    lengths = [batches.length(epoch) for epoch in range(1, epochs + 1)]
    schedule.planned_updates = sum(lengths)
    schedule.updates_left = batches.updates_left + sum(lengths[batches.epoch :])
