"""Task vectors, the differences of fine-tuned models to the base they came from: added, negated, scaled."""

from torch import Tensor

from unival.checkpoints.merging.tensors import Tensors, total
from unival.errors import UserError

PER = ("task", "layer", "tensor")


def task_arithmetic(tensors: Tensors, *, scale: float = 0.4) -> Tensor:
    """``theta_base + scale sum_i c_i (theta_i - theta_base)`` (Ilharco et al. 2023, arXiv:2212.04089).

    A negative coefficient negates a task. The paper finds scales from 0.3 to 0.5 good for the sum of several tasks.
    """
    assert tensors.base is not None, "task arithmetic needs a base"
    return tensors.base.add(total(tensors.deltas(), tensors.coefficients), alpha=scale)


class Adaptive:
    """AdaMerging (Yang et al. 2024, arXiv:2310.02575): ``theta_base + sum_i c_i (theta_i - theta_base)`` with learnt coefficients.

    The options are those of learning, see :mod:`unival.tasks.statistics.adaptive`; the coefficients of a key are given here.
    """

    def __init__(
        self, *, per: str = "layer", start: float = 0.3, steps: int = 500, rate: float = 1e-3, tokens: int = 8, seed: int = 1
    ):
        self.per, self.start, self.steps, self.rate, self.tokens, self.seed = per, start, steps, rate, tokens, seed
        if per not in PER:
            raise UserError(f"--per {per}: there are {', '.join(PER)}")
        for name, value in (("steps", steps), ("tokens", tokens)):
            if value < 1:
                raise UserError(f"--{name} {value}: must be at least 1")
        if not rate > 0:
            raise UserError(f"--rate {rate:g}: must be above 0")
        if not 0 <= start <= 1:
            raise UserError(f"--start {start:g}: must be in 0 to 1")

    def __call__(self, tensors: Tensors) -> Tensor:
        assert tensors.base is not None, "task vectors need a base"
        return tensors.base + total(tensors.deltas(), tensors.coefficients)
