"""What a stage reads: which streams, in which shares, how many rows an epoch."""

import dataclasses
from collections.abc import Mapping, Sequence

from unival.data.bounded import Shares, SharesByEpoch
from unival.tasks.pretraining.file import MixtureFile, StageSpec, StreamSpec, at
from unival.tasks.pretraining.shares import moving, shares
from unival.tasks.pretraining.weights import StreamWeights


def trained_specs(mixture: MixtureFile, stage: StageSpec) -> list[StreamSpec]:
    """The streams that a stage reads: its own, without those of weight 0 in all epochs, and in a transition those that fade out."""
    own = {spec.number: spec for spec in stage.streams}
    if stage.transition:
        for spec in mixture.stages[stage.number - 1].streams:
            last = ((0, at(spec.loss_weight, spec.loss_weight[-1][0])),)
            own.setdefault(spec.number, dataclasses.replace(spec, loss_weight=last))
    elif stage.balancing.kind == "weights":
        own = {number: spec for number, spec in own.items() if any(weight for _, weight in spec.weight)}
    return [own[number] for number in sorted(own)]


def counted(spec: StreamSpec, rows: int) -> int:
    """The rows of a stream that count for its share."""
    return rows if spec.cap is None else min(rows, spec.cap)


def shares_of(stage: StageSpec, names: Sequence[str], rows: Mapping[str, int], weights: Mapping[str, float]) -> list[float]:
    """The share of some streams in an epoch of a stage, which may lack some of them.

    Args:
        stage: the stage.
        names: of the streams.
        rows: rows of all streams that are read, by name.
        weights: in this epoch, of the streams of the stage that are read, by name.
    """
    own = [spec for spec in stage.streams if spec.name in rows]
    found = shares(stage.balancing, [counted(spec, rows[spec.name]) for spec in own], [weights[spec.name] for spec in own])
    named = {spec.name: share for spec, share in zip(own, found, strict=True)}
    return [named.get(name, 0.0) for name in names]


def planned_shares(mixture: MixtureFile, stage: StageSpec, rows: Mapping[str, int], weights: StreamWeights) -> Shares | SharesByEpoch:
    """The shares of the streams of :func:`trained_specs`, in a transition as a function of the updates done.

    Args:
        mixture: the file.
        stage: the stage.
        rows: rows of its streams, by name.
        weights: of its streams, in their order; with ``balancing: weights`` they decide the shares of every epoch.
    """
    names = weights.names

    def follow(decided: Sequence[float]) -> Shares:
        found = shares_of(stage, names, rows, dict(zip(names, decided, strict=True)))
        if not stage.transition:
            return found
        before = mixture.stages[stage.number - 1]
        ended = {spec.name: at(spec.weight, spec.weight[-1][0]) for spec in before.streams}
        return moving(shares_of(before, names, rows, ended), found, stage.transition)

    def decide(epoch: int) -> Sequence[float]:
        return weights.decide_mixture(epoch - 1)

    return SharesByEpoch(decide, follow) if stage.balancing.kind == "weights" else follow([1.0] * len(names))


def shares_by_epoch(stage: StageSpec, rows: Mapping[str, int], weights: StreamWeights, epochs: int) -> list[list[float]]:
    """The shares of the streams in each of so many epochs, at the end of a transition; arguments as for :func:`planned_shares`."""
    decided = [dict(zip(weights.names, weights.decide_mixture(epoch), strict=True)) for epoch in range(epochs)]
    return [shares_of(stage, weights.names, rows, each) for each in decided]


def rows_per_epoch(stage: StageSpec, rows: Mapping[str, int], rows_per_update: int) -> int:
    """The rows of an epoch on all processes: those of ``updates_per_epoch``, else those of all streams of the stage that are read."""
    if stage.updates_per_epoch:
        return stage.updates_per_epoch * rows_per_update
    return sum(counted(spec, rows[spec.name]) for spec in stage.streams if spec.name in rows)
