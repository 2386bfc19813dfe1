"""Masks over the sum of task vectors: what several tasks need, and what one of them does."""

import torch
from torch import Tensor

from unival.checkpoints.merging.tensors import Tensors, total
from unival.errors import UserError


def agreement(delta: Tensor, whole: Tensor, strictness: float) -> Tensor:
    """TALL mask of one task: ``|tau_t| >= strictness |tau_sum - tau_t|`` (Wang et al. 2024, arXiv:2405.07813, eq. 5)."""
    return delta.abs() >= strictness * (whole - delta).abs()


def consensus(tensors: Tensors, *, scale: float = 0.4, strictness: float = 0.4, least: int = 2) -> Tensor:
    """Consensus merging (Wang et al. 2024, arXiv:2405.07813): of the sum of task vectors, what at least ``least`` TALL masks keep.

    Removes values that no task needs and those that one task alone does.
    """
    assert tensors.base is not None, "consensus needs a base"
    whole = total(tensors.deltas(), tensors.coefficients)
    needed = torch.zeros(whole.shape, dtype=torch.int32)
    for delta, coefficient in zip(tensors.deltas(), tensors.coefficients, strict=True):
        needed += agreement(delta * coefficient, whole, strictness)
    return tensors.base.add(whole * (needed >= least), alpha=scale)


def tall(tensors: Tensors, *, task: int = 1, strictness: float = 0.4) -> Tensor:
    """One task's model out of the sum of all task vectors: ``theta_base + m_t tau_sum`` with its TALL mask (:func:`agreement`)."""
    assert tensors.base is not None, "TALL masks need a base"
    whole = total(tensors.deltas(), tensors.coefficients)
    place = place_of(task, tensors)
    return tensors.base + whole * agreement((tensors.models[place] - tensors.base) * tensors.coefficients[place], whole, strictness)


class Emr:
    """EMR merging (Huang et al. 2024, arXiv:2405.17461): elect, mask, rescale; the model of one task.

    The unified vector has the sign of the sum of task vectors and the largest magnitude among those of this sign.  A task's model is
    ``theta_base + l_t M_t tau_uni`` with ``M_t = [tau_t tau_uni > 0]`` and ``l_t = sum |tau_t| / sum |M_t tau_uni|`` over the model.
    """

    passes, by_tensor = 1, False

    def __init__(self, *, task: int = 1):
        self.task = task
        self.sums = [0.0, 0.0]

    def unified(self, tensors: Tensors) -> Tensor:
        """The unified task vector."""
        positive = total(tensors.deltas(), [1.0] * len(tensors.models)) > 0
        sizes = torch.zeros(positive.shape)
        for delta in tensors.deltas():
            sizes = torch.maximum(sizes, torch.where(positive, delta, -delta))
        return torch.where(positive, sizes, -sizes)

    def masked(self, tensors: Tensors) -> tuple[Tensor, Tensor]:
        """The task's vector, and the unified one where it has the same sign."""
        assert tensors.base is not None, "EMR needs a base"
        own, unified = tensors.models[place_of(self.task, tensors)] - tensors.base, self.unified(tensors)
        return own, unified * (own * unified > 0)

    def observe(self, tensors: Tensors, number: int) -> None:
        """Add up the magnitudes of both."""
        for i, value in enumerate(self.masked(tensors)):
            self.sums[i] += float(value.abs().sum(dtype=torch.float64))

    def __call__(self, tensors: Tensors) -> Tensor:
        own, unified = self.sums
        assert tensors.base is not None, "EMR needs a base"
        return tensors.base.add(self.masked(tensors)[1], alpha=own / unified if unified else 0.0)


def place_of(task: int, tensors: Tensors) -> int:
    """Place of a task's model among those of a key; tasks count from 1.

    Raises:
        UserError: there is no such model, or it lacks the key.
    """
    if task - 1 not in tensors.numbers:
        raise UserError(f"--task {task}: must be the number of a model from 1, and one that has {tensors.key}")
    return list(tensors.numbers).index(task - 1)
