"""Task vectors, the differences of fine-tuned models to the base they came from: added, negated, scaled."""

from torch import Tensor

from unival.checkpoints.merging.tensors import Tensors, total


def task_arithmetic(tensors: Tensors, *, scale: float = 0.4) -> Tensor:
    """``theta_base + scale sum_i c_i (theta_i - theta_base)`` (Ilharco et al. 2023, arXiv:2212.04089).

    A negative coefficient negates a task. The paper finds scales from 0.3 to 0.5 good for the sum of several tasks.
    """
    assert tensors.base is not None, "task arithmetic needs a base"
    return tensors.base.add(total(tensors.deltas(), tensors.coefficients), alpha=scale)
