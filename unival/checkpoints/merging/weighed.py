"""Averages that weigh every value by statistics of the data that a model was trained on."""

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
    products = _solved(*_sums(tensors, diagonal)) if diagonal > 0 else None
    if products is None:  # singular, or it may be: of several solutions the smallest
        products, grams = _sums(tensors, diagonal)
        products = torch.linalg.lstsq(grams, products.T, driver="gelsd").solution.T
    return products.to(tensors.models[0].dtype)


BLOCK = 128  # rows of a Gram matrix that are read at a time


def _sums(tensors: Tensors, diagonal: float) -> tuple[Tensor, Tensor]:
    """``sum_i c_i W_i G_i`` and ``sum_i c_i G_i`` in float64; the models' Gram matrices are read block by block."""
    assert tensors.statistics is not None, "checked by the caller"
    size = tensors.statistics[0].size(0)
    products = torch.zeros(tensors.models[0].size(0), size, dtype=torch.float64)
    grams = torch.zeros(size, size, dtype=torch.float64).T  # column by column, as LAPACK needs it to factorise in place
    block = torch.empty(min(BLOCK, size), size, dtype=torch.float64)  # one for all: freed ones leave holes in the heap
    for value, gram, coefficient in zip(tensors.models, tensors.statistics, tensors.coefficients, strict=True):
        for start in range(0, size, BLOCK):
            rows = slice(start, min(start + BLOCK, size))
            own = block[: rows.stop - start].copy_(gram[rows]).mul_(coefficient)
            kept = own.diagonal(start) * diagonal
            own.mul_(1 - diagonal).diagonal(start).add_(kept)
            products.addmm_(value[:, rows].double(), own)
            grams[rows] += own
    return products, grams


def _solved(products: Tensor, grams: Tensor) -> Tensor | None:
    """``W`` of ``W grams = products``, written over these two; None where the symmetric matrix has no Cholesky factor.

    Cholesky's factors take less than a tenth of the time of a singular value decomposition, but need a matrix that is well conditioned:
    a Gram matrix is, once its off-diagonal values are smaller, but for inputs that are always 0, as those of dead ReLUs: their weights
    are free, so that 0 is the smallest solution.  In place, a layer with many inputs takes a third of the memory.
    """
    diagonal = grams.diagonal()
    diagonal[diagonal == 0] = 1.0  # these rows and columns, and their values, are 0 elsewhere
    factor, failed = torch.linalg.cholesky_ex(grams, out=(grams, torch.empty((), dtype=torch.int32)))
    if failed or not bool(factor.diagonal().all()):
        return None
    torch.linalg.solve_triangular(factor, products.T, upper=False, out=products.T)
    torch.linalg.solve_triangular(factor.T, products.T, upper=True, out=products.T)
    return products
