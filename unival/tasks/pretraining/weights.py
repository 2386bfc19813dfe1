"""Weights of a stage's streams in the loss and among its rows, decided anew for every planned epoch.

This is the place for methods that change weights as training goes on (GradNorm, dynamic stop-and-go …): a subclass of
:class:`StreamWeights` decides by what all processes together have logged of each stream so far.  What it has decided and seen is in the
checkpoint, so that a resumed run decides the same.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from unival.tasks.pretraining.file import StreamSpec, at

SEEN = ("loss", "ntokens", "nsentences")  # what is summed of each stream


class StreamWeights:
    """Weights that are 1 for ever.

    Args:
        names: of the streams.
    """

    def __init__(self, names: Sequence[str]):
        self.names = list(names)
        self.epoch = 0  # the last one that was decided
        self.loss = [1.0] * len(self.names)
        self.seen: dict[str, dict[str, float]] = {}  # epoch -> "loss/captions", "ntokens/captions" … -> sum over its updates

    def decide(self, epoch: int) -> Sequence[float]:
        """The weight of each stream in the loss of a planned epoch, which begins; the first one is 0."""
        return [1.0] * len(self.names)

    def decide_mixture(self, epoch: int) -> Sequence[float]:
        """The weight of each stream among the rows of a planned epoch, with ``balancing: weights``; not all are 0.

        It is asked for once, before the epoch begins; the plan of its rows keeps the answer, see
        :class:`unival.data.bounded.SharesByEpoch`.
        """
        return [1.0] * len(self.names)

    def observe(self, logged: Mapping[str, Any]) -> None:
        """Add the sums of an update, over all processes."""
        sums = self.seen.setdefault(str(self.epoch), {})
        for key in (f"{kind}/{name}" for name in self.names for kind in SEEN):
            sums[key] = sums.get(key, 0.0) + float(logged.get(key, 0.0))

    def begin(self, epoch: int) -> list[float]:
        """The weights in a planned epoch; decides them if it was not begun before."""
        if epoch != self.epoch or not self.seen:
            self.epoch, self.loss = epoch, list(self.decide(epoch))
            self.seen.setdefault(str(epoch), {})
        return self.loss

    def state_dict(self) -> dict[str, Any]:
        """What was decided and seen."""
        return {"epoch": self.epoch, "loss": list(self.loss), "seen": {epoch: dict(sums) for epoch, sums in self.seen.items()}}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from a checkpoint."""
        self.epoch, self.loss = state["epoch"], list(state["loss"])
        self.seen = {epoch: dict(sums) for epoch, sums in state["seen"].items()}


class ScheduledWeights(StreamWeights):
    """Weights that the mixture file gives for planned epochs (``loss_weight`` and ``weight``), linear between these."""

    def __init__(self, specs: Sequence[StreamSpec]):
        super().__init__([spec.name for spec in specs])
        self.specs = list(specs)

    def decide(self, epoch: int) -> Sequence[float]:
        """The schedules' values."""
        return [at(spec.loss_weight, epoch) for spec in self.specs]

    def decide_mixture(self, epoch: int) -> Sequence[float]:
        """The schedules' values."""
        return [at(spec.weight, epoch) for spec in self.specs]
