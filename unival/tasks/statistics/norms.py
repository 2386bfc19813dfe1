"""Statistics of batch norms, computed again on rows of a table.

An average of models computes other features than each of them, so that the average of their norms' statistics does not fit (Izmailov et
al. 2018, arXiv:1803.05407; Jordan et al. 2023, arXiv:2211.08403).
"""

import itertools
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from unival.checkpoints.merging import PASSES
from unival.errors import UserError, counted
from unival.tasks.trial import untouched


@dataclass(frozen=True)
class Recalibrated:
    """What was done to a model's batch norms: checkpoint keys of the norms, without the names of their values.

    Attributes:
        norms: have new statistics.
        kept: kept theirs, as they were told to.
        unreached: kept theirs, since no row has their medium.
        media: number of media that the statistics are of.
    """

    norms: tuple[str, ...]
    kept: tuple[str, ...]
    unreached: tuple[str, ...]
    media: int

    def __str__(self) -> str:
        parts = [f"{counted(len(self.norms), 'batch norm')} of {counted(self.media, 'image, video or audio', 'images, videos or audios')}"]
        parts += [f"{len(self.kept):,} kept (frozen in training)"] if self.kept else []
        return ", ".join([*parts, *([f"{len(self.unreached):,} not reached by any row"] if self.unreached else [])])


class Moments:
    """Mean and variance per channel of values that come in parts; in float64, the same whatever the parts (Chan et al. 1983)."""

    def __init__(self) -> None:
        self.count = 0
        self.mean: Tensor = torch.zeros(())
        self.squares: Tensor = torch.zeros(())  # sum of squared differences from the mean

    def add(self, values: Tensor) -> None:
        """Add values ``n x channels x …``, item by item: a copy of all in float64 could be large."""
        for item in values.detach():
            rows = item.reshape(len(item), -1).double()
            count, mean = rows.size(1), rows.mean(1)
            squares = (rows - mean[:, None]).square().sum(1)
            total = self.count + count
            difference = mean - self.mean.to(mean)
            self.squares = self.squares.to(mean) + squares + difference.square() * (self.count * count / total)
            self.mean = self.mean.to(mean) + difference * (count / total)
            self.count = total

    @property
    def variance(self) -> Tensor:
        """The unbiased variance, as torch's norms keep it."""
        return self.squares / max(self.count - 1, 1)


def recalibrate(
    model: Any, tables: Sequence[Iterable[dict[str, Any]]], keep: Collection[str] = (), passes: int = PASSES
) -> Recalibrated:
    """Replace the statistics of a model's batch norms by those of rows.

    In the first pass a norm normalises by the statistics of the batch, in the others by those of the pass before; the new statistics
    are the cumulative average over all rows, in float64.  So those of the first norm are exact whatever the batch size, after k
    passes those of the first k; the other ones depend on it, with small batches by much until some passes later.  Only the media's
    networks are run; all else is in eval mode, and neither modes nor counters nor random generators change.

    Args:
        model: a :class:`unival.models.unival.UnivalModel`; changed in place.
        tables: for each table its batches, to be iterated over ``passes`` times, see :class:`unival.tasks.statistics.rows.Batches`.
        keep: keys of statistics (``….running_mean``) that stay, since they were frozen in training:
            :func:`unival.checkpoints.merging.inputs.frozen_statistics`.
        passes: over the rows.

    Raises:
        UserError: the rows have no media, or a row cannot be read.
    """
    found = {f"encoder.media.{name}": norm for name, norm in model.encoder.media.named_modules() if isinstance(norm, _BatchNorm)}
    tracked: dict[str, Any] = {name: norm for name, norm in found.items() if norm.running_mean is not None}
    kept = tuple(name for name in tracked if f"{name}.running_mean" in keep)
    moved = {name: norm for name, norm in tracked.items() if name not in kept}
    reached: set[str] = set()
    media = 0
    with untouched(model), torch.no_grad():
        model.eval()
        for number in range(passes if moved else 0):
            moments, media = _one_pass(model, itertools.chain.from_iterable(tables), moved, by_batch=number == 0)
            if not media:
                raise UserError("the rows have no image, video or audio, whose networks have the batch norms")
            for name, found_moments in moments.items():
                moved[name].running_mean.copy_(found_moments.mean)
                moved[name].running_var.copy_(found_moments.variance)
            reached |= set(moments)
    return Recalibrated(
        norms=tuple(name for name in moved if name in reached),
        kept=kept,
        unreached=tuple(name for name in moved if name not in reached),
        media=media,
    )


def _one_pass(
    model: Any, batches: Iterable[dict[str, Any]], norms: dict[str, Any], by_batch: bool
) -> tuple[dict[str, Moments], int]:
    """The moments of the inputs of norms that rows reach, and the number of media."""
    moments = {name: Moments() for name in norms}
    hooks = [norm.register_forward_pre_hook(partial(_observe, moments[name])) for name, norm in norms.items()]
    before = {name: (norm.momentum, norm.num_batches_tracked) for name, norm in norms.items()}
    media = 0
    try:
        for norm in norms.values():
            norm.train(by_batch)
            norm.momentum, norm.num_batches_tracked = 0.0, None  # its statistics stay until all rows were read
        for batch in batches:
            for item in [item for group in batch["net_input"]["groups"] for item in group.get("media", ())]:
                model.encoder.embed_media(item)
                media += len(item["values"])
    finally:
        for hook in hooks:
            hook.remove()
        for name, norm in norms.items():
            norm.momentum, norm.num_batches_tracked = before[name]
            norm.eval()
    return {name: found for name, found in moments.items() if found.count}, media


def _observe(moments: Moments, module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
    moments.add(inputs[0])
