"""Sparse task vectors: most of what fine-tuning changed is left out, by magnitude or at random, before the vectors are added."""

import hashlib
from collections.abc import Iterable

import torch
from torch import Tensor

from unival.checkpoints.merging.magnitudes import Magnitudes, largest
from unival.checkpoints.merging.tensors import SLICE, Tensors, total
from unival.errors import UserError

SCOPES = ("model", "tensor")
BLOCK = 1 << 22  # values whose random numbers come from one generator


def elected(deltas: Iterable[Tensor], coefficients: Iterable[float]) -> Tensor:
    """Merge task vectors by elected signs (Yadav et al. 2023, arXiv:2306.01708, steps 2 and 3).

    The sign of ``sum_i c_i tau_i`` is elected (plus where it is 0); the result is the mean, weighted by ``c``, of the values of this
    sign, and 0 where there are none.
    """
    signed = [(value * coefficient, coefficient) for value, coefficient in zip(deltas, coefficients, strict=True)]
    positive = sum((value for value, _ in signed), start=torch.zeros(())) >= 0
    above = torch.zeros_like(signed[0][0])
    below = torch.zeros_like(above)
    for value, coefficient in signed:
        agrees = torch.where(positive, value > 0, value < 0)
        above += value * agrees
        below += coefficient * agrees
    return above / torch.where(below == 0, 1.0, below)


def share(name: str, value: float) -> float:
    """Check an option that is a share of the values.

    Raises:
        UserError: it is not above 0 and at most 1.
    """
    if not 0 < value <= 1:
        raise UserError(f"--{name} {value:g}: must be above 0 and at most 1")
    return value


class Ties:
    """TIES (Yadav et al. 2023, arXiv:2306.01708): trim, elect signs, merge those that agree.

    Of every task vector the share ``density`` with the largest magnitudes stays, of the whole model (``scope`` model, the paper's) or
    of each tensor; then :func:`elected`, times ``scale``, is added to the base.
    """

    passes = 2

    def __init__(self, *, scale: float = 1.0, density: float = 0.2, scope: str = "model"):
        if scope not in SCOPES:
            raise UserError(f"--scope {scope}: there are {', '.join(SCOPES)}")
        self.scale, self.by_tensor = scale, scope == "tensor"
        self.magnitudes = Magnitudes(largest(share("density", density)))

    def _place(self, number: int, key: str) -> tuple[int, str]:
        return number, key if self.by_tensor else ""

    def observe(self, tensors: Tensors, number: int) -> None:
        """Count magnitudes."""
        for model, delta in zip(tensors.numbers, tensors.deltas(), strict=True):
            self.magnitudes.observe(self._place(model, tensors.key), delta, number)

    def __call__(self, tensors: Tensors) -> Tensor:
        assert tensors.base is not None, "TIES needs a base"
        trimmed = (
            delta * (delta.abs() >= self.magnitudes.thresholds(self._place(number, tensors.key))[0])
            for number, delta in zip(tensors.numbers, tensors.deltas(), strict=True)
        )
        return tensors.base.add(elected(trimmed, tensors.coefficients), alpha=self.scale)


class Breadcrumbs:
    """Model breadcrumbs (Davari and Belilovsky 2023, arXiv:2312.06795), tensor by tensor.

    Of every task vector the share ``outliers`` with the largest magnitudes and all but the next ``density`` are left out; the sum of
    the rest, times ``scale``, is added to the base.
    """

    passes, by_tensor = 2, True

    def __init__(self, *, scale: float = 0.3, density: float = 0.143, outliers: float = 0.007):
        if not 0 <= outliers < 1 or share("density", density) + outliers > 1:
            raise UserError(f"--density {density:g} and --outliers {outliers:g}: must be shares of at most 1 together")
        self.scale, self.density, self.outliers = scale, density, outliers
        self.magnitudes = Magnitudes(self._ranks)

    def _ranks(self, count: int) -> list[int]:
        top = int(self.outliers * count)
        return [top + max(int(self.density * count), 1), *([top] if top else [])]

    def observe(self, tensors: Tensors, number: int) -> None:
        """Count magnitudes."""
        for model, delta in zip(tensors.numbers, tensors.deltas(), strict=True):
            self.magnitudes.observe((model, tensors.key), delta, number)

    def _kept(self, key: str, number: int, delta: Tensor) -> Tensor:
        low, *high = self.magnitudes.thresholds((number, key))
        size = delta.abs()
        return delta * ((size >= low) & (size < high[0]) if high else size >= low)

    def __call__(self, tensors: Tensors) -> Tensor:
        assert tensors.base is not None, "breadcrumbs need a base"
        kept = (self._kept(tensors.key, n, delta) for n, delta in zip(tensors.numbers, tensors.deltas(), strict=True))
        return tensors.base.add(total(kept, tensors.coefficients), alpha=self.scale)


def chances(tensors: Tensors, number: int, seed: int, shape: torch.Size) -> Tensor:
    """Uniform random numbers of a slice, which follow from the seed, key, model and row alone: every block of rows has a generator."""
    found, per_row = torch.empty(shape), max(shape[1:].numel(), 1)
    block = max(BLOCK // per_row, 1)
    row, stop = tensors.start, tensors.start + shape[0]
    while row < stop:
        first = row - row % block
        last = min(first + block, stop)
        text = f"{seed}/{tensors.key}/{number}/{first}"
        generator = torch.Generator().manual_seed(int.from_bytes(hashlib.blake2b(text.encode(), digest_size=7).digest(), "big"))
        for skipped in range(0, (row - first) * per_row, SLICE):
            torch.rand(min(SLICE, (row - first) * per_row - skipped), generator=generator)
        found[row - tensors.start : last - tensors.start].uniform_(generator=generator)
        row = last
    return found


def dare(tensors: Tensors, *, scale: float = 0.4, density: float = 0.1, elect: bool = False, seed: int = 1) -> Tensor:
    """DARE (Yu et al. 2024, arXiv:2311.03099): drop values of task vectors at random, and rescale the rest.

    ``m tau / density`` with ``m ~ Bernoulli(density)`` has the expectation tau; ``density`` is 1 - p of the paper.  The sum, or with
    ``elect`` the mean of those with the elected sign (DARE with TIES), times ``scale``, is added to the base.
    """
    assert tensors.base is not None, "DARE needs a base"
    share("density", density)
    kept = (
        delta * (chances(tensors, number, seed, delta.shape) < density) / density
        for number, delta in zip(tensors.numbers, tensors.deltas(), strict=True)
    )
    merged = elected(kept, tensors.coefficients) if elect else total(kept, tensors.coefficients)
    return tensors.base.add(merged, alpha=scale)


def della(tensors: Tensors, *, scale: float = 1.0, density: float = 0.3, window: float = 0.2, seed: int = 1) -> Tensor:
    """DELLA (Deep et al. 2024, arXiv:2406.11617): drop by magnitude at random, elect signs, fuse.

    In a row of n values (all of a vector) the one with the r-th largest magnitude, r from 0, is dropped with the probability
    ``p_r = 1 - density - window / 2 + window r / n`` and rescaled by ``1 / (1 - p_r)``; then :func:`elected`.
    """
    assert tensors.base is not None, "DELLA needs a base"
    if not (window >= 0 and density - window / 2 > 0 and density + window / 2 <= 1):
        raise UserError(f"--density {density:g} and --window {window:g}: density - window / 2 and density + window / 2 must be in 0 to 1")
    kept = []
    for number, delta in zip(tensors.numbers, tensors.deltas(), strict=True):
        rows = delta.reshape(len(delta), -1) if delta.dim() > 1 else delta.reshape(1, -1)
        ranks = rows.abs().argsort(dim=1, descending=True, stable=True).argsort(dim=1)
        stays = density + window / 2 - window * ranks / rows.size(1)
        kept.append((rows * (chances(tensors, number, seed, delta.shape).view_as(rows) < stays) / stays).view_as(delta))
    return tensors.base.add(elected(kept, tensors.coefficients), alpha=scale)


class LayerPruned:
    """Task vectors that are pruned within each layer by magnitude; the idea is that of LwPTV (Zhang et al. 2025, arXiv:2506.09093).

    ``theta_base + scale sum_i c_i m_i tau_i`` with ``m_i = [|tau_i| >= t_(i, l)]``, where ``t_(i, l)`` is the smallest of the largest
    ``density`` of the magnitudes that task vector i has in layer l (all tensors of ``encoder.layers.0``, or of one other part).

    This is not the paper's method, of which only the abstract was at hand.  That one has a mask for each task, too, but makes it of a
    saliency score, whose equation the abstract does not give, and as the abstract puts it keeps the pretrained parameters "at the
    corresponding layer": its mask seems to decide about whole layers, this one does about values within them.  Results differ.
    """

    passes, by_tensor = 2, False

    def __init__(self, *, scale: float = 0.4, density: float = 0.3):
        self.scale = scale
        self.magnitudes = Magnitudes(largest(share("density", density)))

    def observe(self, tensors: Tensors, number: int) -> None:
        """Count magnitudes."""
        for model, delta in zip(tensors.numbers, tensors.deltas(), strict=True):
            self.magnitudes.observe((model, layer_of(tensors.key)), delta, number)

    def __call__(self, tensors: Tensors) -> Tensor:
        assert tensors.base is not None, "pruned task vectors need a base"
        layer = layer_of(tensors.key)
        kept = (
            delta * (delta.abs() >= self.magnitudes.thresholds((number, layer))[0])
            for number, delta in zip(tensors.numbers, tensors.deltas(), strict=True)
        )
        return tensors.base.add(total(kept, tensors.coefficients), alpha=self.scale)


def layer_of(key: str) -> str:
    """The layer that a key belongs to: up to its first number, or its tensor's module."""
    names = key.split(".")
    place = next((i for i, name in enumerate(names) if name.isdigit()), len(names) - 2)
    return ".".join(names[: place + 1])
