"""What a stage reads: which streams, in which shares, how many rows an epoch."""

import dataclasses
from collections.abc import Mapping, Sequence

from unival.data.bounded import Shares
from unival.tasks.pretraining.file import MixtureFile, StageSpec, StreamSpec
from unival.tasks.pretraining.shares import moving, shares
from unival.tasks.pretraining.weights import at


def trained_specs(mixture: MixtureFile, stage: StageSpec) -> list[StreamSpec]:
    """The streams that a stage reads: its own, without those of weight 0, and in a transition those that fade out."""
    own = {spec.number: spec for spec in stage.streams}
    if stage.transition:
        for spec in mixture.stages[stage.number - 1].streams:
            last = ((0, at(spec.loss_weight, spec.loss_weight[-1][0])),)
            own.setdefault(spec.number, dataclasses.replace(spec, loss_weight=last))
    elif stage.balancing.kind == "weights":
        own = {number: spec for number, spec in own.items() if spec.weight}
    return [own[number] for number in sorted(own)]


def counted(spec: StreamSpec, rows: int) -> int:
    """The rows of a stream that count for its share."""
    return rows if spec.cap is None else min(rows, spec.cap)


def shares_of(stage: StageSpec, specs: Sequence[StreamSpec], rows: Mapping[str, int]) -> list[float]:
    """The share of some streams in a stage, of which it may lack some.

    Args:
        stage: the stage.
        specs: the streams.
        rows: rows of all streams, by name.
    """
    own = stage.streams
    found = shares(stage.balancing, [counted(spec, rows[spec.name]) for spec in own], [spec.weight for spec in own])
    named = {spec.name: share for spec, share in zip(own, found, strict=True)}
    return [named.get(spec.name, 0.0) for spec in specs]


def planned_shares(mixture: MixtureFile, stage: StageSpec, specs: Sequence[StreamSpec], rows: Mapping[str, int]) -> Shares:
    """The shares of the streams of :func:`trained_specs`, in a transition as a function of the updates done."""
    found = shares_of(stage, specs, rows)
    if not stage.transition:
        return found
    return moving(shares_of(mixture.stages[stage.number - 1], specs, rows), found, stage.transition)


def rows_per_epoch(stage: StageSpec, rows: Mapping[str, int], rows_per_update: int) -> int:
    """The rows of an epoch on all processes: those of ``updates_per_epoch``, else as many as all streams of the stage have."""
    if stage.updates_per_epoch:
        return stage.updates_per_epoch * rows_per_update
    return sum(counted(spec, rows[spec.name]) for spec in stage.streams)
