"""Rewards of self-critical training: numbers for a hypothesis, given the references of its row.

A reward is one class here and one line in ``REWARDS``: it says which field of a prediction it looks at, and may need statistics of the
whole training table first.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, ClassVar

from unival.boxes import Box, overlap, parse_numbers
from unival.errors import UserError
from unival.metrics.base import MetricOptions
from unival.metrics.cider import CiderD

# Areas of COCO, in pixels of the original image: small below 32 x 32, large from 96 x 96 on, medium between.
AREAS: dict[str, tuple[float, float]] = {
    "all": (0.0, float("inf")),
    "small": (0.0, 32.0**2),
    "medium": (32.0**2, 96.0**2),
    "large": (96.0**2, float("inf")),
}


class Reward:
    """A reward.

    Args:
        cfg: the criterion's options (:class:`unival.criterions.scst.ScstConfig`).

    Attributes:
        output: the field of :class:`unival.generation.outputs.Output` that it looks at: ``text`` or ``box``.
        needs_table: whether :meth:`fit` must be called with the references of the training table first.
    """

    output: ClassVar[str]

    def __init__(self, cfg: Any) -> None:
        self.needs_table = False

    def fit(self, references: Iterable[Sequence[str]]) -> None:
        """Compute statistics of the training table from the references of its rows."""

    def __call__(self, prediction: Any, references: Sequence[str]) -> float:
        """The reward of one hypothesis: its text or its box."""
        raise NotImplementedError


class CiderReward(Reward):
    """CIDEr-D of a caption; document frequencies are those of ``--cider-df``, else of the training tables."""

    output = "text"

    def __init__(self, cfg: Any) -> None:
        super().__init__(cfg)
        self.metric = CiderD(options=MetricOptions(cider_df=cfg.cider_df))
        self.needs_table = cfg.cider_df is None
        if not self.needs_table:
            self.fit([])  # reads the file

    def fit(self, references: Iterable[Sequence[str]]) -> None:
        """Count the n-grams of the training table."""
        self.metric.fit(references)
        self.needs_table = False

    def __call__(self, prediction: str, references: Sequence[str]) -> float:
        """CIDEr-D, 0 to 10."""
        return self.metric.score(prediction, references)


class BoxReward(Reward):
    """Whether a box is right: it overlaps a reference whose area is in the chosen range; ``--pos-reward`` if so, else ``--neg-reward``."""

    output = "box"

    def __init__(self, cfg: Any) -> None:
        super().__init__(cfg)
        if not 0 < cfg.acc_thresh <= 1:
            raise UserError(f"--acc-thresh {cfg.acc_thresh}: must be an intersection over union, above 0 and at most 1")
        self.least, self.hit, self.miss = cfg.acc_thresh, cfg.pos_reward, cfg.neg_reward
        low, high = AREAS[cfg.reward_area]
        self.low = low if cfg.min_area_size is None else cfg.min_area_size
        self.high = high if cfg.max_area_size is None else cfg.max_area_size
        if not 0 <= self.low < self.high:
            raise UserError(f"areas from {self.low:g} to {self.high:g} pixels (--min-area-size, --max-area-size): there are none")

    def __call__(self, prediction: Box, references: Sequence[str]) -> float:
        """``--pos-reward`` or ``--neg-reward``."""
        return self.hit if any(self.is_right(prediction, parse_numbers(reference)) for reference in references) else self.miss

    def is_right(self, box: Box, reference: Box) -> bool:
        """Whether the reference counts, by its area in pixels of the original image, and the box overlaps it enough."""
        x0, y0, x1, y1 = reference
        return self.low <= (x1 - x0) * (y1 - y0) < self.high and overlap(box, reference) >= self.least


REWARDS: Mapping[str, Callable[[Any], Reward]] = {"cider": CiderReward, "box": BoxReward}
