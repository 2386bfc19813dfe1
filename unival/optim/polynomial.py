"""Schedule ``unival_polynomial``: fairseq's ``polynomial_decay`` with a length that follows from the run's batches.

The published recipes give a ratio of warm-up and a number of epochs, not numbers of updates.  The updates of an epoch are known when
its batches are planned; the task then writes two counts into the run's configuration (:mod:`unival.tasks.schedule`), and the schedule reads
them before the first update of an epoch:

    warm-up = int(warmup_ratio * total)          total = the updates of all epochs, at most --max-update
    lr(u) = lr * u / warm-up                                                     up to the warm-up's end
    lr(u) = (lr - end) * ((total - u) / (total - warm-up)) ** power + end        from there; end at update ``total``, the run's last

With ``--schedule-epochs`` the total is that of so many epochs, whatever ends the run: a stage of pretraining may be a part of a schedule.
A resumed run continues with the total in its checkpoint.  If the counts have changed since (another number of epochs, processes or
rows), the total becomes the updates made plus those that are left, and the learning rates are those of a run of that length.
"""

import logging
import math
from dataclasses import dataclass, field
from typing import Any, List, Optional  # noqa: UP035

from fairseq.dataclass import FairseqDataclass
from fairseq.optim.lr_scheduler import register_lr_scheduler
from fairseq.optim.lr_scheduler.polynomial_decay_schedule import (
    PolynomialDecayLRSchedule,
    PolynomialDecayLRScheduleConfig,
)
from omegaconf import II, OmegaConf

from unival.errors import UserError, counted, flag

logger = logging.getLogger(__name__)


@dataclass
class PolynomialScheduleConfig(FairseqDataclass):
    """Options of ``--lr-scheduler unival_polynomial``."""

    warmup_ratio: float = field(
        default=0.0, metadata={"help": "the learning rate rises linearly over this part of all updates, rounded down, e.g. 0.06"}
    )
    warmup_updates: Optional[int] = field(
        default=None, metadata={"help": "it rises over the first N updates instead, whatever --warmup-ratio says"}
    )
    total_num_update: Optional[int] = field(
        default=None,
        metadata={"help": "the update at which the decay ends (default: the run's last one, by --max-epoch and --max-update)"},
    )
    schedule_epochs: Optional[int] = field(
        default=None,
        metadata={"help": "plan the decay over N epochs instead of --max-epoch: a run that is shorter stops before its end"},
    )
    end_learning_rate: float = field(default=0.0, metadata={"help": "learning rate at the end of the decay"})
    power: float = field(default=1.0, metadata={"help": "exponent of the decay (1: a straight line)"})
    planned_updates: int = II("optimization.max_update")  # of the whole run; the task writes both once the batches are planned
    updates_left: int = II("optimization.max_update")
    max_epoch: int = II("optimization.max_epoch")
    max_update: int = II("optimization.max_update")
    lr: List[float] = II("optimization.lr")  # noqa: UP006


@register_lr_scheduler("unival_polynomial", dataclass=PolynomialScheduleConfig)
class PolynomialSchedule(PolynomialDecayLRSchedule):
    """See the module.  ``planned`` is the length of a run with the present options from its start, ``total`` the actual length."""

    def __init__(self, cfg: Any, optimizer: Any):
        check(cfg)
        self.options = cfg
        self.planned: int | None = None
        self._updates = 0
        plain = PolynomialDecayLRScheduleConfig(
            end_learning_rate=cfg.end_learning_rate, power=cfg.power, total_num_update=float("inf"), lr=list(cfg.lr)
        )
        super().__init__(plain, optimizer)

    # --- fairseq's hooks --------------------------------------------------------------------------------------------

    def step_begin_epoch(self, epoch: int) -> float:
        """Update the length of the run before an epoch's first update, when its batches are planned."""
        planned, left = self.counts()
        if planned != self.planned:
            total = self._updates + left
            if self.planned is not None:
                logger.warning(
                    "the run has another length than before it was stopped: its learning rate falls until update %d now, not until %d",
                    *(total, self.total_num_update),
                )
            self.planned = planned
            self.set_total(total)
            rise = counted(self.cfg.warmup_updates, "update")
            logger.info("the learning rate rises over %s and falls until update %d", rise, self.total_num_update)
        return super().step_begin_epoch(epoch)

    def step_update(self, num_updates: int) -> float:
        """The learning rate after ``num_updates`` updates."""
        self._updates = num_updates
        return super().step_update(num_updates)

    def state_dict(self) -> dict[str, Any]:
        """fairseq's state, and the run's length."""
        return {**super().state_dict(), "planned": self.planned, "total": int(self.total_num_update) if self.planned else None}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Continue with the run's length; after another schedule, plan it from the updates made."""
        super().load_state_dict(state_dict)
        self.planned = state_dict.get("planned")
        if self.planned:
            self.set_total(state_dict["total"])

    # --- the schedule -----------------------------------------------------------------------------------------------

    def counts(self) -> tuple[int, int]:
        """The number of updates of a run with these options from its start, and the number that is left of this one."""
        options = self.options
        if options.total_num_update:
            return options.total_num_update, options.total_num_update - self._updates
        run = options._get_root()
        told = run.lr_scheduler if "lr_scheduler" in run else options
        # unknown: a run without --max-epoch, or of another task
        is_told = bool(told.planned_updates) and not OmegaConf.is_interpolation(told, "updates_left")
        most = math.inf if is_told and options.schedule_epochs else options.max_update or (math.inf if is_told else 0)
        if not most:
            raise UserError("--lr-scheduler unival_polynomial: the task does not tell how many updates an epoch has; give --max-update")
        planned, left = (told.planned_updates, told.updates_left) if is_told else (most, most)
        return int(min(planned, most)), int(min(left, most - self._updates))

    def set_total(self, total: int) -> None:
        """Let the decay end at update ``total``; the warm-up is a part of it, or as long as given."""
        given = self.options.warmup_updates
        self.cfg.warmup_updates = int(self.options.warmup_ratio * total) if given is None else given
        self.cfg.total_num_update = self.total_num_update = float(total)
        if self.cfg.warmup_updates >= total:
            logger.warning("--warmup-updates %d: the learning rate rises until the run's end, update %d", given, total)


def check(cfg: Any) -> None:
    """Check the options.

    Raises:
        UserError: an option is wrong.
    """
    if not 0 <= cfg.warmup_ratio < 1:
        raise UserError(f"--warmup-ratio {cfg.warmup_ratio:g}: must be at least 0 and less than 1; it is a part of all updates")
    for name in ("warmup_updates", "end_learning_rate", "power"):
        if cfg[name] is not None and cfg[name] < 0:
            raise UserError(f"{flag(name)} {cfg[name]}: must not be negative")
    if cfg.total_num_update is not None and cfg.total_num_update < 1:
        raise UserError(f"--total-num-update {cfg.total_num_update}: must be at least 1")
    if cfg.schedule_epochs is not None and cfg.schedule_epochs < max(cfg.max_epoch, 1):
        raise UserError(f"--schedule-epochs {cfg.schedule_epochs}: must be at least {max(cfg.max_epoch, 1)}, the epochs of the run")
    if cfg.schedule_epochs and cfg.total_num_update:
        raise UserError("give --schedule-epochs or --total-num-update, not both")
    if not (cfg.max_epoch or cfg.max_update or cfg.total_num_update):
        raise UserError("--lr-scheduler unival_polynomial: say when the run ends: --max-epoch, --max-update or --total-num-update")
