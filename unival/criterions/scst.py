"""Criterions ``unival_scst`` and ``unival_grounding_scst``: self-critical sequence training, policy gradients of a reward.

Of every row the model's own hypotheses y are scored. With the reward r(y) and a baseline b, the loss per token of the N tokens of all
hypotheses, to which the cross-entropy of the gold targets (N' tokens) may be added, is

    lambda / N * sum over y of -(r(y) - b) ln p(y)  +  w / N' * sum of the label-smoothed cross-entropy

The task generates the hypotheses with the model in eval mode, without gradients (:mod:`unival.tasks.rollouts`); this criterion scores
them, and the gold targets, in one forward pass in training mode. Sources: "Self-critical sequence training for image captioning"
(arXiv:1612.00563); the mean of the other hypotheses as baseline: "A better variant of self-critical sequence training"
(arXiv:2003.09971); rewards by the area of boxes: "Rewarded soups" (arXiv:2306.04488).
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Optional

import torch
from fairseq.criterions import register_criterion
from fairseq.dataclass import ChoiceEnum
from fairseq.logging import metrics
from torch import Tensor

from unival.criterions.label_smoothed import LabelSmoothedConfig, LabelSmoothedCriterion, Tokens
from unival.criterions.rewards import AREAS, REWARDS
from unival.errors import UserError, flag

REWARD = ChoiceEnum(list(REWARDS))
BASELINE = ChoiceEnum(["mean", "greedy", "none"])
AREA = ChoiceEnum(list(AREAS))


@dataclass
class ScstConfig(LabelSmoothedConfig):
    reward: REWARD = field(  # type: ignore[valid-type]
        default="cider", metadata={"help": "reward of a hypothesis: CIDEr-D of a caption, or whether a box is right"}
    )
    baseline: BASELINE = field(  # type: ignore[valid-type]
        default="mean",
        metadata={"help": "subtracted from a reward: the mean of the row's other hypotheses, the reward of its greedy one, or nothing"},
    )
    scst_args: str = field(
        default='{"sampling": true, "beam": 5, "nbest": 5}',
        metadata={
            "help": "options of generation as JSON by which hypotheses are made: nbest of them per row, by sampling or beam search; length"
            " limits are those of validation where they are not given"
        },
    )
    cider_df: Optional[str] = field(  # noqa: UP045  (fairseq's argument parser does not know `str | None`)
        default=None,
        metadata={"help": "file with the document frequencies of CIDEr-D, as of `unival score` (default: those of the training tables)"},
    )
    lambda_reinforce: float = field(default=1.0, metadata={"help": "weight of the policy gradient's loss"})
    ce_weight: float = field(
        default=0.0, metadata={"help": "weight of the label-smoothed cross-entropy of the gold targets, each after its own prefix"}
    )
    acc_thresh: float = field(default=0.5, metadata={"help": "a box is right from this intersection over union on"})
    reward_area: AREA = field(  # type: ignore[valid-type]
        default="all",
        metadata={
            "help": "only boxes of this size, by their area in pixels of the original image, are rewarded: small (below 32 x 32), medium,"
            " large (from 96 x 96 on)"
        },
    )
    min_area_size: Optional[float] = field(  # noqa: UP045
        default=None, metadata={"help": "least area of rewarded boxes, instead of that of --reward-area"}
    )
    max_area_size: Optional[float] = field(  # noqa: UP045
        default=None, metadata={"help": "area below which boxes are rewarded, instead of that of --reward-area"}
    )
    pos_reward: float = field(default=1.0, metadata={"help": "reward of a box that is right"})
    neg_reward: float = field(default=0.0, metadata={"help": "reward of a box that is not"})


def _other(name: str, default: Any) -> Any:
    """An option of ``ScstConfig`` with another default."""
    return field(default=default, metadata=ScstConfig.__dataclass_fields__[name].metadata)


@dataclass
class GroundingScstConfig(ScstConfig):
    """The published settings of grounding, but the area, which differs from run to run."""

    reward: REWARD = _other("reward", "box")  # type: ignore[valid-type]
    baseline: BASELINE = _other("baseline", "none")  # type: ignore[valid-type]
    scst_args: str = _other("scst_args", '{"beam": 5}')
    lambda_reinforce: float = _other("lambda_reinforce", 5.0)
    ce_weight: float = _other("ce_weight", 1.0)


@dataclass(frozen=True)
class Rollouts:
    """Hypotheses of a batch, scored together with its gold targets: the rows b of all tensors are those of the decoder in one forward.

    Attributes:
        hypotheses: as in a batch: ``target`` (b x t; padding in prompts and in rows of gold targets), ``id``, and constraints.
        gold: likewise, padding in rows of hypotheses; None without a cross-entropy.
        advantages: ``b``, reward minus baseline; 0 in rows of gold targets.
        count: number of hypotheses.
        reward, baseline: sums over hypotheses.
    """

    hypotheses: Mapping[str, Any]
    gold: Mapping[str, Any] | None
    advantages: Tensor
    count: int
    reward: float
    baseline: float


@register_criterion("unival_scst", dataclass=ScstConfig)
class ScstCriterion(LabelSmoothedCriterion):
    """Self-critical training; in validation, and for a batch without ``rollouts``, the loss of ``unival_label_smoothed``.

    Raises:
        UserError: a setting outside its range.
    """

    def __init__(self, task: Any, cfg: ScstConfig) -> None:
        super().__init__(task, cfg)
        self.cfg: ScstConfig = cfg
        for name in ("use_rdrop", "drop_worst_ratio", "loss_normalization", "scale_by_candidates"):
            if getattr(cfg, name) != getattr(ScstConfig, name):
                raise UserError(f"{flag(name)} does not go with self-critical training")
        if cfg.ce_weight < 0 or cfg.lambda_reinforce <= 0:
            raise UserError(f"--ce-weight {cfg.ce_weight} must not be negative, --lambda-reinforce {cfg.lambda_reinforce} must be above 0")
        self.options = parse_options(cfg.scst_args)
        if cfg.baseline == "mean" and self.options["nbest"] < 2:
            raise UserError(f'--baseline mean: needs 2 hypotheses per row or more, e.g. "nbest": 5 in --scst-args {cfg.scst_args}')
        self.reward = REWARDS[str(cfg.reward)](cfg)

    def forward(
        self, model: torch.nn.Module, sample: Mapping[str, Any], reduce: bool = True
    ) -> tuple[Tensor, int, dict]:
        """Loss of one batch; see the base class, whose arguments these are.

        Args:
            sample: with ``rollouts`` (:class:`Rollouts`), the targets of ``net_input``'s decoder rows.
            reduce: must be True with ``rollouts``.
        """
        rollouts: Rollouts | None = sample.get("rollouts")
        if rollouts is None:
            return super().forward(model, sample, reduce)
        assert reduce, "losses of hypotheses are summed"
        if sample.get("stream_loss_weights") is not None:
            raise UserError("loss weights of streams do not go with self-critical training")
        features, _ = model(**sample["net_input"], features_only=True)
        tokens = self.select_tokens(model, features, rollouts.hypotheses)
        nll = negative_log_likelihood(tokens)
        policy = (nll * rollouts.advantages.to(nll.dtype)[tokens.counts.nonzero(as_tuple=True)[0]]).sum()
        count = nll.numel()
        loss, entropy = self.cfg.lambda_reinforce * policy, policy.detach() * 0
        if rollouts.gold is not None:
            losses, _ = self.token_losses(self.select_tokens(model, features, rollouts.gold))
            entropy = losses.sum() * (count / max(losses.numel(), 1))
            loss = loss + self.cfg.ce_weight * entropy
        sample_size = rollouts.count if self.cfg.sentence_avg else count
        logging_output = {
            "loss": loss.detach(),
            "scst_loss": policy.detach(),
            "ce_loss": entropy.detach(),
            "reward": rollouts.reward,
            "baseline": rollouts.baseline,
            "hypotheses": rollouts.count,
            "ntokens": count,
            "nsentences": len(sample["id"]),
            "sample_size": sample_size,
        }
        return loss, sample_size, logging_output

    @classmethod
    def reduce_metrics(cls, logging_outputs: list[dict[str, Any]]) -> None:
        """Log in training the loss and its parts (natural logarithm), and the means of reward and baseline; else as the base class."""
        if not any("hypotheses" in log for log in logging_outputs):
            super().reduce_metrics(logging_outputs)
            return
        total = {key: sum(log.get(key, 0) for log in logging_outputs) for key in logging_outputs[0]}
        for key, count, digits in (
            *((name, "sample_size", 3) for name in ("loss", "scst_loss", "ce_loss")),
            *((name, "hypotheses", 4) for name in ("reward", "baseline")),
        ):
            metrics.log_scalar(key, total[key] / max(total[count], 1), total[count], round=digits)


@register_criterion("unival_grounding_scst", dataclass=GroundingScstConfig)
class GroundingScstCriterion(ScstCriterion):
    """Self-critical training of boxes, with the published defaults; otherwise ``unival_scst``."""


def negative_log_likelihood(tokens: Tokens) -> Tensor:
    """That of each counted token (m), whatever the smoothing and the confidence."""
    return -tokens.lprobs[0].gather(-1, tokens.target.unsqueeze(-1)).squeeze(-1)


def parse_options(text: str) -> dict[str, Any]:
    """The generation options of ``--scst-args``, with ``nbest`` (default: 1).

    Raises:
        UserError: the text is not a JSON object, or has an option that the loss knows nothing of.
    """
    try:
        options = json.loads(text)
    except json.JSONDecodeError as error:
        raise UserError(f"--scst-args {text!r} is not JSON: {error}") from error
    if not isinstance(options, dict):
        raise UserError(f'--scst-args {text!r}: expected an object such as {{"sampling": true, "beam": 5, "nbest": 5}}')
    refused = next((name for name in ("zero_shot", "reject_below") if options.get(name) not in (None, False)), None)
    if refused is not None:
        raise UserError(f"--scst-args {text!r}: {refused} is for evaluation; the loss is of hypotheses as they were generated")
    return {"nbest": 1, **options}
