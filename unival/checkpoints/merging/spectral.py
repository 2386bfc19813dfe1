"""Task vectors of matrices by their singular values: tasks that share no directions do not disturb each other."""

import torch
from torch import Tensor

from unival.checkpoints.merging.tensors import Tensors, total


def _averaged(tensors: Tensors) -> Tensor:
    """What is no matrix of a layer is averaged, as in both papers."""
    return total(tensors.deltas(), [c / len(tensors.models) for c in tensors.coefficients])


def singular_vectors(tensors: Tensors, *, scale: float = 1.0) -> Tensor:
    """Task singular vectors, TSV-M (Gargiulo et al. 2025, arXiv:2412.00081).

    Of every task matrix ``U S V`` the largest 1 / n of the singular values stay; the vectors of all tasks side by side are replaced
    by the nearest orthogonal ones (``P Q`` of the decomposition ``P D Q``, both of U and of V).
    """
    assert tensors.base is not None, "singular vectors need a base"
    if not tensors.is_matrix:
        return tensors.base.add(_averaged(tensors), alpha=scale)
    kept = min(tensors.base.shape) // len(tensors.models)
    parts = [torch.linalg.svd(d * c, full_matrices=False) for d, c in zip(tensors.deltas(), tensors.coefficients, strict=True)]
    u = _nearest_orthogonal(torch.cat([u[:, :kept] for u, _, _ in parts], dim=1))
    s = torch.cat([s[:kept] for _, s, _ in parts])
    v = _nearest_orthogonal(torch.cat([v[:kept] for _, _, v in parts]))
    return tensors.base.add((u * s) @ v, alpha=scale)


def isotropic(tensors: Tensors, *, scale: float = 1.0) -> Tensor:
    """Isotropic merging in the common subspace, Iso-C (Marczak et al. 2025, arXiv:2502.04959).

    The sum of task matrices ``U S V`` with all singular values replaced by their mean.
    """
    assert tensors.base is not None, "isotropic merging needs a base"
    if not tensors.is_matrix:
        return tensors.base.add(_averaged(tensors), alpha=scale)
    u, s, v = torch.linalg.svd(total(tensors.deltas(), tensors.coefficients), full_matrices=False)
    return tensors.base.add(u @ v, alpha=scale * float(s.mean()))


def isotropic_tasks(tensors: Tensors, *, scale: float = 1.0, common: float = 0.8) -> Tensor:
    """Isotropic merging in common and task-specific subspaces, Iso-CTS (Marczak et al. 2025, arXiv:2502.04959).

    Of the sum's singular vectors the first ``common`` share stays; the rest is divided among the tasks, each of which gives the first
    singular vectors of what the common ones leave of its matrix.  All are made orthogonal, with one singular value: their mean.
    """
    assert tensors.base is not None, "isotropic merging needs a base"
    if not tensors.is_matrix:
        return tensors.base.add(_averaged(tensors), alpha=scale)
    size, tasks = min(tensors.base.shape), len(tensors.models)
    each = round((size - int(size * common)) / tasks)
    shared = size - each * tasks
    u, s, v = torch.linalg.svd(total(tensors.deltas(), tensors.coefficients), full_matrices=False)
    u, s, v = u[:, :shared], s[:shared], v[:shared]
    own = []
    for delta, coefficient in zip(tensors.deltas(), tensors.coefficients, strict=True):
        delta = delta * coefficient
        own.append(torch.linalg.svd(delta - u @ (u.T @ delta), full_matrices=False))
    left = _nearest_orthogonal(torch.cat([*(a[:, :each] for a, _, _ in own), u], dim=1))
    right = _nearest_orthogonal(torch.cat([*(b[:each] for _, _, b in own), v]))
    mean = float(torch.cat([*(x[:each] for _, x, _ in own), s]).mean())
    return tensors.base.add(left @ right, alpha=scale * mean)


def _nearest_orthogonal(matrix: Tensor) -> Tensor:
    p, _, q = torch.linalg.svd(matrix, full_matrices=False)
    return p @ q
