"""Averages of weights: interpolation, soups, spherical interpolation, model stock, moving averages of a trajectory."""

import math

from torch import Tensor

from unival.checkpoints.merging.tensors import Tensors, total

STRAIGHT = 0.9995  # cosine from which SLERP is linear: the angle is too small to divide by its sine


def linear(tensors: Tensors) -> Tensor:
    """Weighted average ``sum_i c_i theta_i``; uniform soups have ``c_i = 1 / n``.

    With two models and ``c = (1 - lambda, lambda)`` it is the interpolation of Shukor et al. 2023 (UnIVAL), section 5; with equal
    coefficients the uniform soup of Wortsman et al. 2022 (Model soups, arXiv:2203.05482).
    """
    return total(tensors.models, tensors.coefficients)


def trajectory_coefficients(count: int, decay: float) -> list[float]:
    """Coefficients of the moving average ``m_t = decay m_(t-1) + (1 - decay) theta_t`` with ``m_1 = theta_1`` over ``count`` checkpoints.

    Polyak and Juditsky 1992; as a merge of checkpoints: Li et al. 2025 (arXiv:2505.12082).
    """
    later = [(1 - decay) * decay ** (count - 1 - t) for t in range(1, count)]
    return [decay ** (count - 1), *later]


def moving_average(tensors: Tensors, *, decay: float = 0.9) -> Tensor:
    """Exponential moving average of the checkpoints of one run, from the oldest to the newest: see :func:`trajectory_coefficients`."""
    return total(tensors.models, trajectory_coefficients(len(tensors.models), decay))


class Slerp:
    """Spherical interpolation of two models, tensor by tensor (Shoemake 1985).

    ``sin((1 - t) w) / sin w theta_1 + sin(t w) / sin w theta_2`` with the angle w between the two as vectors and ``t`` the second
    coefficient; linear where they are nearly parallel or one is zero.
    """

    passes, by_tensor = 1, True

    def __init__(self) -> None:
        self.sums: dict[str, list[float]] = {}

    def observe(self, tensors: Tensors, number: int) -> None:
        """Add up ``|a|^2``, ``|b|^2`` and ``a b``."""
        a, b = tensors.models
        sums = self.sums.setdefault(tensors.key, [0.0, 0.0, 0.0])
        for i, (x, y) in enumerate(((a, a), (b, b), (a, b))):
            sums[i] += product(x, y)

    def __call__(self, tensors: Tensors) -> Tensor:
        a2, b2, ab = self.sums[tensors.key]
        low, high = tensors.coefficients
        t = high / (low + high)
        length = math.sqrt(a2 * b2)
        cosine = max(-1.0, min(1.0, ab / length)) if length else 1.0
        if abs(cosine) > STRAIGHT:
            return total(tensors.models, (1 - t, t))
        angle = math.acos(cosine)
        return total(tensors.models, (math.sin((1 - t) * angle) / math.sin(angle), math.sin(t * angle) / math.sin(angle)))


class Stock:
    """Model stock (Jang et al. 2024, arXiv:2403.19522), tensor by tensor.

    ``t w_avg + (1 - t) w_0`` with ``t = n cos w / (1 + (n - 1) cos w)``, where w is the angle between two task vectors: the mean of
    the cosines of all pairs of the n models.
    """

    passes, by_tensor = 1, True

    def __init__(self) -> None:
        self.products: dict[str, list[list[float]]] = {}

    def observe(self, tensors: Tensors, number: int) -> None:
        """Add up the products of all pairs of task vectors."""
        deltas = list(tensors.deltas())
        sums = self.products.setdefault(tensors.key, [[0.0] * len(deltas) for _ in deltas])
        for i, x in enumerate(deltas):
            for j in range(i + 1):
                sums[i][j] += product(x, deltas[j])

    def ratio(self, key: str) -> float:
        """The share t of the average."""
        sums = self.products[key]
        n = len(sums)
        pairs = [(i, j) for i in range(n) for j in range(i)]
        lengths = [math.sqrt(sums[i][i] * sums[j][j]) for i, j in pairs]
        cosines = [sums[i][j] / length if length else 0.0 for (i, j), length in zip(pairs, lengths, strict=True)]
        cosine = sum(cosines) / len(cosines)
        below = 1 + (n - 1) * cosine
        return n * cosine / below if below else 0.0

    def __call__(self, tensors: Tensors) -> Tensor:
        assert tensors.base is not None, "stock needs a base"
        t = self.ratio(tensors.key)
        return total(tensors.models, [t / len(tensors.models)] * len(tensors.models)).add_(tensors.base, alpha=1 - t)


def product(x: Tensor, y: Tensor) -> float:
    """The scalar product of two tensors, summed in float64."""
    return float(x.reshape(-1).double() @ y.reshape(-1).double())
