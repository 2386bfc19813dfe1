"""Criterion ``unival_encouraging``: label smoothing plus a bonus for what is already predicted well (encouraging loss).

With p = exp(conf * ln p) the bonus b is negative and falls with p:

    b(p) = ln max(1 - p, 1e-5)                               for p <= log_end
         = ln(1 - log_end) - (p - log_end) / (1 - log_end)    above (its tangent: the gradient stays finite)

and (1 - e) b(p(y)) + (e / v) sum over tokens i of b(p(i)) is added to a token's loss: y is the target, e the smoothing and v the size of
the whole vocabulary, even if a constraint allows fewer tokens.

Source: "Well-classified examples are underestimated in classification with deep neural networks" (arXiv:2110.06537).
Shapes follow the docstring of ``unival/criterions/label_smoothed.py``.
"""

import math
from dataclasses import dataclass, field
from typing import Any

import torch
from fairseq.criterions import register_criterion
from torch import Tensor

from unival.criterions.label_smoothed import LabelSmoothedConfig, LabelSmoothedCriterion, Tokens, _check_share
from unival.errors import UserError

SMALLEST = 1e-5  # floor of 1 - p inside the logarithm


@dataclass
class EncouragingConfig(LabelSmoothedConfig):
    log_end: float = field(
        default=0.75, metadata={"help": "probability above which the bonus goes on as a straight line; 1: never"}
    )
    drop_best_ratio: float = field(
        default=0.0, metadata={"help": "share of a batch's tokens, those of lowest loss, that is left out"}
    )
    drop_best_after: int = field(default=0, metadata={"help": "number of updates before --drop-best-ratio applies"})


@register_criterion("unival_encouraging", dataclass=EncouragingConfig)
class EncouragingCriterion(LabelSmoothedCriterion):
    """Encouraging loss; everything else as in ``unival_label_smoothed``.

    ``--drop-best-ratio`` does drop tokens here. In the original it had no effect: leave it at 0 to reproduce a published recipe that
    sets it.

    Raises:
        UserError: a setting outside its range.
    """

    def __init__(self, task: Any, cfg: EncouragingConfig) -> None:
        super().__init__(task, cfg)
        self.cfg: EncouragingConfig = cfg
        if not 0 < cfg.log_end <= 1:
            raise UserError(f"--log-end {cfg.log_end}: must be above 0 and at most 1")
        _check_share("drop-best-ratio", cfg.drop_best_ratio)

    def token_losses(self, tokens: Tokens) -> tuple[Tensor, Tensor]:
        """Loss and negative log-likelihood, both r x m, weighted by confidence."""
        loss, nll = super().token_losses(tokens)
        epsilon = self.cfg.label_smoothing
        loss = loss + (1 - epsilon) * bonus(torch.exp(-nll), self.cfg.log_end)
        if epsilon > 0:
            lprobs = tokens.lprobs if tokens.conf is None else tokens.lprobs * tokens.conf.unsqueeze(-1)
            spread = TotalBonus.apply(lprobs, tokens.allowed, self.cfg.log_end)
            loss = loss + epsilon / len(self.task.target_dictionary) * spread
        return loss, nll

    def kept_ranks(self, size: int) -> tuple[int, int]:
        """First and last rank (exclusive, by rising loss) of the tokens that stay; at least one stays."""
        _, stop = super().kept_ranks(size)
        if not self.active_after(self.cfg.drop_best_ratio, self.cfg.drop_best_after):
            return 0, stop
        return max(0, min(int(size * self.cfg.drop_best_ratio), stop - 1)), stop


def bonus(probability: Tensor, log_end: float) -> Tensor:
    """b(p) of each probability, same shape."""
    curve = torch.log(torch.clamp(1 - probability, min=SMALLEST))
    if log_end == 1:
        return curve
    line = math.log(1 - log_end) - (probability - log_end) / (1 - log_end)
    return torch.where(probability > log_end, line, curve)


class TotalBonus(torch.autograd.Function):
    """Sum of b over the tokens of each row; of that size it keeps only its input for the backward pass."""

    @staticmethod
    def forward(ctx: Any, lprobs: Tensor, allowed: Tensor | None, log_end: float) -> Tensor:
        """Log-probabilities ``… x k`` -> ``…``.  ``allowed`` ``… x k``, True: allowed (None: all); other tokens add 0."""
        ctx.save_for_backward(lprobs, allowed)
        ctx.log_end = log_end
        p = probabilities(lprobs, allowed)
        values = (1 - p).clamp_(min=SMALLEST).log_()
        if log_end < 1:
            above = p > log_end
            values[above] = bonus(p[above], log_end)
        return values.sum(-1)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:  # type: ignore[override]
        """d b(p) / d ln p = p b'(p)."""
        lprobs, allowed = ctx.saved_tensors
        p = probabilities(lprobs, allowed)
        rest = 1 - p
        slope = -p / rest.clamp(min=SMALLEST)
        slope[rest < SMALLEST] = 0.0
        if ctx.log_end < 1:
            above = p > ctx.log_end
            slope[above] = -p[above] / (1 - ctx.log_end)
        return slope.mul_(gradients[0].unsqueeze(-1)), None, None


def probabilities(lprobs: Tensor, allowed: Tensor | None) -> Tensor:
    """exp of log-probabilities ``… x k``; 0 where ``allowed`` (``… x k``) is False."""
    p = lprobs.exp()
    return p if allowed is None else p.masked_fill_(~allowed, 0.0)
