"""Schedule ``unival_timed``: warm up, stay constant, then decay to the end; the decay starts by time, not by a count.

With a number of updates that is fixed at the start, a slower machine takes too long, or the run is stopped while the learning
rate is still high.  Here the decay starts when it just fits into the time that is left, and the run ends with its last update:

    lr(u) = lr * min(1, u / warmup)                                   before the decay
    lr(u) = lr(start) * (end - u) / (end - start)                     from ``start`` to ``end``, where the run ends

One process decides for all.  The decision is part of the checkpoint, so that a run that is stopped and resumed after it has the
same bits.
"""

import logging
import pathlib
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, List, Optional  # noqa: UP035

import torch
from fairseq.dataclass import FairseqDataclass
from fairseq.logging import metrics
from fairseq.optim.lr_scheduler import FairseqLRScheduler, register_lr_scheduler
from omegaconf import II

from unival.errors import UserError, flag

logger = logging.getLogger(__name__)

SPEED_WINDOW = 100  # updates over which the speed is measured: includes validations, and averages out single slow updates
BEFORE_DECAY = 2  # a decay has at most the number of updates before it divided by this: a third of the run


@dataclass
class TimedScheduleConfig(FairseqDataclass):
    """Options of ``--lr-scheduler unival_timed``."""

    warmup_updates: int = field(default=0, metadata={"help": "the learning rate rises linearly over the first N updates"})
    decay_updates: int = field(
        default=200, metadata={"help": "the learning rate falls linearly over the last N updates (at most a third of all)"}
    )
    end_learning_rate: float = field(default=0.0, metadata={"help": "learning rate at the end of the decay"})
    planned_minutes: float = field(
        default=0.0,
        metadata={"help": "minutes of training, the decay included; where --decay-signal is given, the least (0: no such limit)"},
    )
    limit_minutes: float = field(
        default=0.0,
        metadata={"help": "with --decay-signal: minutes at most, should the signal never come (0: wait for it)"},
    )
    decay_signal: Optional[str] = field(
        default=None,
        metadata={"help": "file that lets the decay start once it exists, e.g. by `touch` (and --planned-minutes are nearly over)"},
    )
    max_update: int = II("optimization.max_update")
    lr: List[float] = II("optimization.lr")  # noqa: UP006


@register_lr_scheduler("unival_timed", dataclass=TimedScheduleConfig)
class TimedSchedule(FairseqLRScheduler):
    """See the module; ``clock`` returns seconds, ``share`` distributes the deciding process's number to all processes."""

    def __init__(
        self,
        cfg: Any,
        optimizer: Any,
        clock: Callable[[], float] = time.monotonic,
        share: Callable[[int, torch.device], int] | None = None,
    ):
        super().__init__(cfg, optimizer)
        check(cfg)
        self.clock = clock
        self.share = share or from_first_process
        self.decay: tuple[int, int] | None = None  # its first and its last update
        self._updates = 0  # the number of updates at the last decision
        self._started = clock()
        self._before = 0.0  # seconds of earlier runs
        self._times: deque[float] = deque([self._started], maxlen=SPEED_WINDOW + 1)  # when the last updates ended
        self._seconds_per_update = 0.0  # of an earlier run, until this one has measured it

    # --- fairseq's hooks --------------------------------------------------------------------------------------------

    def step_update(self, num_updates: int) -> float:
        """The learning rate after ``num_updates`` updates; fairseq calls this more than once for a number."""
        if num_updates > self._updates:
            self._updates = num_updates
            self._times.append(self.clock())
            if self.decay is None:
                length = self.share(self.decay_length(num_updates), self._device())
                if length:
                    self.begin_decay(num_updates, num_updates + length)
        if self.decay is not None:
            metrics.log_scalar("last_update", self.decay[1], weight=0, priority=310, round=0)
        self.optimizer.set_lr(self.rate(num_updates))
        return self.optimizer.get_lr()

    def state_dict(self) -> dict[str, Any]:
        """The decision, and the time and speed so far."""
        return {
            **super().state_dict(),
            "updates": self._updates,
            "decay": self.decay,
            "seconds": self.seconds(),
            "seconds_per_update": self.seconds_per_update(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from a checkpoint; the time of training until it was saved is included, the time in between is not."""
        if "seconds_per_update" not in state:
            raise UserError("the checkpoint's learning-rate schedule is not unival_timed; start it again: --reset-lr-scheduler")
        super().load_state_dict(state)
        self._updates = state["updates"]
        self._before = state["seconds"]
        self._seconds_per_update = state["seconds_per_update"]
        self._started = self.clock()
        self._times = deque([self._started], maxlen=SPEED_WINDOW + 1)
        if state["decay"] is not None:
            self.begin_decay(*state["decay"])

    # --- the schedule -----------------------------------------------------------------------------------------------

    def rate(self, updates: int) -> float:
        """The learning rate after ``updates`` updates."""
        peak, end_rate = self.cfg.lr[0], self.cfg.end_learning_rate
        warm = updates if self.decay is None else min(updates, self.decay[0])
        rate = peak * min(1.0, warm / self.cfg.warmup_updates) if self.cfg.warmup_updates else peak
        if self.decay is None:
            return rate
        start, end = self.decay
        left = max(0, end - max(updates, start)) / (end - start)
        return end_rate + (rate - end_rate) * left

    def seconds(self) -> float:
        """Seconds of training so far, those before a resumption included."""
        return self._before + self.clock() - self._started

    def seconds_per_update(self) -> float:
        """Mean seconds per update, measured over the last updates with pauses for validation; 0 if unknown."""
        known = len(self._times) - 1
        if known < SPEED_WINDOW // 10 and self._seconds_per_update:
            return self._seconds_per_update
        return (self._times[-1] - self._times[0]) / known if known else 0.0

    def decay_length(self, updates: int) -> int:
        """Number of updates of a decay that starts after ``updates``; 0 if it should not start yet."""
        cfg = self.cfg
        length = max(1, min(cfg.decay_updates, updates // BEFORE_DECAY))
        if cfg.max_update and updates + length >= cfg.max_update:
            return max(1, cfg.max_update - updates)
        ends = self.seconds() + length * self.seconds_per_update()
        if cfg.limit_minutes and ends >= cfg.limit_minutes * 60:
            return length
        if cfg.planned_minutes and ends < cfg.planned_minutes * 60:
            return 0
        if cfg.decay_signal:
            return length if pathlib.Path(cfg.decay_signal).exists() else 0
        return length if cfg.planned_minutes else 0

    def begin_decay(self, start: int, end: int) -> None:
        """Decay from update ``start`` to ``end``, and end the run there.

        fairseq ends a run at ``optimization.max_update`` of the run's configuration, which it reads after every update: the
        number is known from now on.  A finished run that is started again stops at ``stop_min_lr``, before its first update.
        """
        self.decay = (start, end)
        run = self.cfg._get_root()
        if "optimization" in run:  # absent if the schedule is used alone
            run.optimization.max_update = end
            run.optimization.stop_min_lr = max(run.optimization.stop_min_lr, self.cfg.end_learning_rate)
        logger.info("the learning rate falls from update %d to %d, where the run ends (%.1f min so far)", start, end, self.seconds() / 60)

    def _device(self) -> torch.device:
        return next(iter(self.optimizer.params)).device


def check(cfg: Any) -> None:
    """Check the options.

    Raises:
        UserError: an option is wrong.
    """
    if len(cfg.lr) != 1:
        raise UserError(f"--lr {','.join(map(str, cfg.lr))}: --lr-scheduler unival_timed takes one learning rate")
    for name in ("warmup_updates", "end_learning_rate", "planned_minutes", "limit_minutes"):
        if getattr(cfg, name) < 0:
            raise UserError(f"{flag(name)} {getattr(cfg, name)}: must not be negative")
    if cfg.decay_updates < 1:
        raise UserError(f"--decay-updates {cfg.decay_updates}: must be at least 1")
    if not (cfg.planned_minutes or cfg.decay_signal or cfg.max_update):
        raise UserError("--lr-scheduler unival_timed: say when the run ends: --planned-minutes, --decay-signal FILE or --max-update")
    if cfg.limit_minutes and not cfg.decay_signal:
        raise UserError("--limit-minutes: is the limit of waiting for --decay-signal FILE; without one, give --planned-minutes")
    if cfg.limit_minutes and cfg.limit_minutes < cfg.planned_minutes:
        raise UserError(f"--limit-minutes {cfg.limit_minutes:g}: is less than --planned-minutes {cfg.planned_minutes:g}")


def from_first_process(number: int, device: torch.device) -> int:
    """Broadcast ``number`` from rank 0 to all processes."""
    if not (torch.distributed.is_available() and torch.distributed.is_initialized()):
        return number
    shared = torch.tensor([number], dtype=torch.long, device=device)
    torch.distributed.broadcast(shared, src=0)
    return int(shared.item())
