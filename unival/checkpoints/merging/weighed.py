"""Averages that weigh every value by statistics of the data that a model was trained on."""

from typing import Any

import torch
from torch import Tensor

from unival.checkpoints.merging.tensors import Tensors, total


def _average(tensors: Tensors) -> Tensor:
    return total(tensors.models, [c / sum(tensors.coefficients) for c in tensors.coefficients])


def fisher(tensors: Tensors, *, floor: float = 1e-6) -> Tensor:
    """Fisher-weighted average (Matena and Raffel 2022, arXiv:2111.09832): ``sum_i c_i F_i theta_i / sum_i c_i F_i``.

    F is the diagonal of the Fisher information plus ``floor``, as ``unival statistics --kind fisher`` computes it.  Keys without it
    (what was not trained) are averaged.
    """
    if tensors.statistics is None:
        return _average(tensors)
    above, below = torch.zeros_like(tensors.models[0]), torch.zeros_like(tensors.models[0])
    for value, information, coefficient in zip(tensors.models, tensors.statistics, tensors.coefficients, strict=True):
        weight = (information.to(value.dtype) + floor) * coefficient
        above += weight * value
        below += weight
    return above / below


def regmean(tensors: Tensors, *, diagonal: float = 0.1) -> Tensor:
    """RegMean (Jin et al. 2023, arXiv:2212.09849): ``W = (sum_i c_i W_i G_i) (sum_i c_i G_i)^-1`` for a linear layer ``x W^T``.

    G is the Gram matrix ``X^T X`` of the layer's inputs on data of the model's task, as ``unival statistics --kind gram`` computes it;
    what is not on its diagonal is multiplied by ``1 - diagonal``.  Keys without it are averaged.
    """
    if tensors.statistics is None:
        return _average(tensors)
    products, grams = _sums(tensors, diagonal)
    return _solved(grams, products.T, is_regular=diagonal > 0).T.to(tensors.models[0].dtype)


def _sums(tensors: Tensors, diagonal: float) -> tuple[Tensor, Tensor]:
    """``sum_i c_i W_i G_i`` and ``sum_i c_i G_i`` in float64; in memory are two Gram matrices, those of the sum and of a model."""
    assert tensors.statistics is not None, "checked by the caller"
    products: Any = None
    grams: Any = None
    for value, gram, coefficient in zip(tensors.models, tensors.statistics, tensors.coefficients, strict=True):
        own = gram.to(torch.float64, copy=True).mul_(coefficient)
        kept = own.diagonal() * diagonal
        own.mul_(1 - diagonal).diagonal().add_(kept)
        product = value.double() @ own
        products, grams = (product, own) if grams is None else (products.add_(product), grams.add_(own))
    return products, grams


def _solved(matrix: Tensor, values: Tensor, is_regular: bool) -> Tensor:
    """Solve ``matrix x = values`` for a symmetric matrix; of several solutions the smallest.

    Cholesky's factors take less than a tenth of the time of a singular value decomposition, but need a matrix that is well conditioned:
    a Gram matrix is, once its off-diagonal values are smaller, unless an input is always 0.
    """
    if is_regular:
        factor, failed = torch.linalg.cholesky_ex(matrix)
        if not failed and bool(factor.diagonal().all()):
            return torch.cholesky_solve(values, factor)
    return torch.linalg.lstsq(matrix, values, driver="gelsd").solution
