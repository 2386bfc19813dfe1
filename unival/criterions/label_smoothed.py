"""Criterion ``unival_label_smoothed``: label smoothing with candidate answers, confidences, drop-worst and R-Drop.

The loss of a token with target y, smoothing e and the set A of allowed tokens (k of them; without a constraint, all v):

    (1 - e - e_i) * -ln p(y)  +  e_i * sum over i in A of -ln p(i),    e_i = e / (k - 1)

The model returns features. Those of the counted target tokens (not padding, skipped prefix or skipped eos) are selected and projected to
the vocabulary, or to the part of it that candidate answers or a range allow.

Shapes: ``r`` copies of the batch (2 with R-Drop), ``m`` counted tokens, ``k`` allowed ids; others as in ``unival/models/__init__.py``.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Optional

import torch
import torch.nn.functional as F
from fairseq import utils
from fairseq.criterions import FairseqCriterion, register_criterion
from fairseq.logging import metrics
from omegaconf import II
from torch import Tensor

from unival.criterions.repeating import repeat_groups
from unival.criterions.streams import GroupRuns, by_stream, log_streams
from unival.criterions.weighting import Kept, Weighting, WeightingConfig
from unival.errors import UserError
from unival.vocab import FIRST_TOKEN

RANGE_SLACK = 1e-6  # the published e / (k - 1 + 1e-6): finite if only one token is allowed


@dataclass
class LabelSmoothedConfig(WeightingConfig):
    label_smoothing: float = field(
        default=0.0, metadata={"help": "share of the target's weight spread over the other tokens"}
    )
    report_accuracy: bool = field(default=False, metadata={"help": "log how many target tokens have the highest score"})
    ignore_prefix_size: int = field(default=0, metadata={"help": "leave the first N target tokens out of the loss"})
    ignore_eos: bool = field(default=False, metadata={"help": "leave the end-of-sentence token out of the loss"})
    drop_worst_ratio: float = field(
        default=0.0, metadata={"help": "share of a batch's tokens, those of highest loss, that is left out"}
    )
    drop_worst_after: int = field(default=0, metadata={"help": "number of updates before --drop-worst-ratio applies"})
    use_rdrop: bool = field(
        default=False, metadata={"help": "R-Drop: run each batch twice and pull both outputs together"}
    )
    reg_alpha: float = field(default=1.0, metadata={"help": "weight of R-Drop's divergence"})
    constraint_range: Optional[str] = field(  # noqa: UP045  (fairseq's argument parser does not know ``str | None``)
        default=None,
        metadata={"help": "'start,end': only tokens of this range (and the four special ones) can be predicted"},
    )
    sentence_avg: bool = II("optimization.sentence_avg")


@dataclass
class Tokens:
    """The counted target tokens of a batch and what the model predicts for them; shapes as in the module's docstring."""

    logits: Tensor  # r x m x k, -inf where not allowed
    lprobs: Tensor  # r x m x k, log-probabilities; 0 where not allowed, so that sums and products stay finite
    target: Tensor  # m, indices below k
    allowed: Tensor | None  # m x k, True: allowed; None: all are
    choices: Tensor | None  # m, number of allowed tokens, or one number for all; None: the whole vocabulary
    conf: Tensor | None  # m, confidence, multiplies every log-probability
    counts: Tensor  # b x t, True: a counted token

    def weighted(self, values: Tensor) -> Tensor:
        """Values (r x m) times the confidence of their row."""
        return values if self.conf is None else values * self.conf

    @cached_property
    def rows(self) -> Tensor:
        """The row of each counted token (m)."""
        return self.counts.nonzero()[:, 0]

    @cached_property
    def correct(self) -> Tensor:
        """r x m, True: the target has the highest score."""
        return self.logits.detach().argmax(-1) == self.target


@register_criterion("unival_label_smoothed", dataclass=LabelSmoothedConfig)
class LabelSmoothedCriterion(FairseqCriterion):
    """Label-smoothed cross-entropy over a batch of the package's format.

    Drop-worst (it needs ``set_num_updates`` before each step, and compares losses without weights), R-Drop and weights of tokens apply in
    training only: validation losses stay comparable.

    Raises:
        UserError: a setting outside its range.
    """

    def __init__(self, task: Any, cfg: LabelSmoothedConfig) -> None:
        super().__init__(task)
        self.cfg = cfg
        self.eos = task.target_dictionary.eos()
        self.num_updates: int | None = None
        self.range = parse_range(cfg.constraint_range, len(task.target_dictionary))
        self.weighting = Weighting(cfg, cfg.sentence_avg)
        _check_share("label-smoothing", cfg.label_smoothing)
        _check_share("drop-worst-ratio", cfg.drop_worst_ratio)
        if cfg.reg_alpha < 0 or cfg.ignore_prefix_size < 0:
            raise UserError(
                f"--reg-alpha {cfg.reg_alpha} and --ignore-prefix-size {cfg.ignore_prefix_size} must not be negative"
            )

    def set_num_updates(self, num_updates: int) -> None:
        """Set the number of updates made so far, which ``--drop-worst-after`` is compared with."""
        self.num_updates = num_updates

    def forward(
        self, model: torch.nn.Module, sample: Mapping[str, Any], reduce: bool = True
    ) -> tuple[Tensor, int, dict]:
        """Loss of one batch.

        Args:
            model: called as ``model(**net_input, features_only=True)``; returns features ``b x t x c`` (or a list of these, one per group
                of the batch) and a dict.  Its ``output_layer(features, tokens)`` makes logits of features.  ``auxiliary_loss`` in the dict
                is per unit of the sample size and is added to the loss.  For several streams, ``contexts`` says what to run groups in.
            sample: a batch with ``net_input`` and ``target`` (b x t).  Optional: ``conf`` (b), ``constraint_masks`` (b x t x v, True:
                allowed), ``constraint_range`` (start, end), ``num_candidates`` (b; 0: none), ``stream`` (b) with ``stream_names`` (values
                are logged per stream, too) and ``stream_loss_weights`` (one for each name, in training; 0: nothing is learned of it).
            reduce: return the sum over tokens; else a vector of the kept tokens' losses.

        Returns:
            The loss (natural logarithm), the sample size (kept tokens, or sentences with ``--sentence-avg``, or by
            ``--loss-normalization``: see :mod:`unival.criterions.weighting`) and the values to log.

        Raises:
            UserError: a target token is not allowed by the candidate answers or the range.
        """
        rdrop = self.cfg.use_rdrop and self.training
        net_input = repeat_groups(sample["net_input"]) if rdrop else sample["net_input"]
        runs = GroupRuns(model, sample) if self.training and GroupRuns.are_needed(sample) else None
        features, extra = model(**net_input, features_only=True, **({"contexts": runs.contexts} if runs else {}))
        tokens = self.select_tokens(model, features, sample)
        losses, nll = self.token_losses(tokens)
        lprobs = tokens.lprobs
        kept = self.kept_tokens(losses[0].detach())
        if kept is not None:
            losses, nll = losses[:, kept], nll[:, kept]
        if rdrop:
            losses = losses + self.cfg.reg_alpha / 2 * self.divergence(lprobs, tokens.conf, kept)
        of_streams = self.stream_values(sample, tokens, kept, losses, nll, runs)
        losses, sample_size = self.weighted_losses(losses, sample, tokens, kept)
        auxiliary = extra.get("auxiliary_loss")
        if auxiliary is not None and losses.numel():
            losses = losses + auxiliary * sample_size / losses.numel()
        logging_output = {
            "loss": losses.detach().sum(),
            "nll_loss": nll.detach().sum(),
            "ntokens": losses.numel(),
            "nsentences": sample["target"].size(0) * losses.size(0),
            "sample_size": sample_size,
        }
        if auxiliary is not None:
            logging_output["auxiliary_loss"] = auxiliary.detach() * sample_size
        if self.cfg.report_accuracy:
            logging_output["n_correct"] = tokens.correct.sum()
            logging_output["total"] = tokens.correct.numel()
        logging_output |= of_streams
        loss = losses.sum() if reduce else losses.flatten()
        if runs and runs.is_silent:
            loss = loss.detach().requires_grad_(torch.is_grad_enabled())  # a backward pass that reaches nothing
        return loss, sample_size, logging_output

    def weighted_losses(
        self, losses: Tensor, sample: Mapping[str, Any], tokens: Tokens, kept: Tensor | None
    ) -> tuple[Tensor, int]:
        """Losses of the kept tokens (r x m) by their weights in training, and the sample size of the batch."""
        size = sample["target"].size(0) * losses.size(0) if self.cfg.sentence_avg else losses.numel()
        if not (self.training and self.weighting.applies(sample)):
            return losses, size
        choices = torch.as_tensor(tokens.lprobs.size(-1) if tokens.choices is None else tokens.choices, device=losses.device)
        rows, choices = tokens.rows, choices.expand(len(tokens.rows))
        if kept is not None:
            rows, choices = rows[kept], choices[kept]
        weights, own_size = self.weighting(sample, Kept(rows, choices, len(losses)), losses.dtype)
        return losses * weights, size if own_size is None else own_size

    def stream_values(
        self, sample: Mapping[str, Any], tokens: Tokens, kept: Tensor | None, losses: Tensor, nll: Tensor, runs: GroupRuns | None
    ) -> dict[str, Tensor]:
        """Values to log of every stream; empty if the batch is of a single one."""
        if "stream_names" not in sample:
            return {}
        rows = tokens.rows if kept is None else tokens.rows[kept]
        sums = {key: (value.detach().sum(0), rows) for key, value in (("loss", losses), ("nll_loss", nll))}
        sums["ntokens"] = torch.full_like(rows, len(losses)), rows
        if self.cfg.report_accuracy:
            sums["n_correct"] = tokens.correct.sum(0), tokens.rows
            sums["total"] = torch.full_like(tokens.rows, len(losses)), tokens.rows
        return by_stream(sample, sums, len(losses), runs.seconds() if runs else None)

    def select_tokens(self, model: Any, features: Tensor | Sequence[Tensor], sample: Mapping[str, Any]) -> Tokens:
        """Select the features of the counted tokens, project them to the allowed part of the vocabulary, and normalise."""
        target = sample["target"]
        counts = target.ne(self.padding_idx)
        counts[:, : self.cfg.ignore_prefix_size] = False
        if self.cfg.ignore_eos:
            counts &= target.ne(self.eos)
        selected = select_features([features] if isinstance(features, Tensor) else features, counts)  # r x m x c
        kept_target = target[counts]
        masks = sample.get("constraint_masks")
        allowed = None if masks is None else masks[counts]  # m x v, True: allowed
        tokens = self.predictable(allowed, self.range_of(sample), target.device)
        choices: Tensor | None = None
        if tokens is not None:
            if allowed is not None:
                allowed = allowed[:, tokens]
                choices = allowed.sum(-1)
            else:
                choices = torch.tensor(tokens.numel(), device=target.device)
            kept_target = self._places(kept_target, tokens, allowed, counts, sample)
        logits = model.output_layer(selected, tokens)
        dtype = torch.promote_types(logits.dtype, torch.float32)  # normalise half precision in float32
        if allowed is not None:
            logits = logits.masked_fill(~allowed, -math.inf)
        lprobs = F.log_softmax(logits, dim=-1, dtype=dtype)
        if allowed is not None:
            lprobs = lprobs.masked_fill(~allowed, 0.0)
        conf = sample.get("conf")
        if conf is not None:
            conf = conf.to(dtype).unsqueeze(1).expand_as(target)[counts]
        return Tokens(logits, lprobs, kept_target, allowed, choices, conf, counts)

    def range_of(self, sample: Mapping[str, Any]) -> tuple[int, int] | None:
        """The range (start, end) of allowed ids: where the batch's own and ``--constraint-range`` overlap; None without either."""
        own = sample.get("constraint_range")
        if self.range is None or own is None:
            return own or self.range
        start, end = max(self.range[0], own[0]), min(self.range[1], own[1])
        if start >= end:
            raise UserError(f"--constraint-range {self.cfg.constraint_range} has no token that targets may have ({own[0]},{own[1]})")
        return start, end

    @staticmethod
    def predictable(allowed: Tensor | None, span: tuple[int, int] | None, device: torch.device) -> Tensor | None:
        """Ids (k, ascending) that any target may have, by the masks (m x v, True: allowed) and the range; None without either."""
        if span is None:
            return None if allowed is None else allowed.any(0).nonzero().squeeze(-1)
        tokens = torch.cat([torch.arange(*ids, device=device) for ids in ((0, FIRST_TOKEN), span)])  # special tokens stay allowed
        return tokens if allowed is None else tokens[allowed[:, tokens].any(0)]

    def _places(
        self, target: Tensor, tokens: Tensor, allowed: Tensor | None, counts: Tensor, sample: Mapping[str, Any]
    ) -> Tensor:
        """Indices of the targets (m) within ``tokens`` (k).  A target that is not allowed would make the loss infinite: refuse it."""
        if tokens.numel() == 0:  # no counted target, or none that is allowed
            places, fits = torch.zeros_like(target), torch.zeros_like(target, dtype=torch.bool)
        else:
            places = torch.searchsorted(tokens, target).clamp(max=tokens.numel() - 1)
            fits = tokens[places] == target
            if allowed is not None:
                fits &= allowed.gather(1, places.unsqueeze(1)).squeeze(1)
        if bool(fits.all()):
            return places
        first = int((~fits).nonzero()[0])
        row, position = counts.nonzero()[first].tolist()
        row_id = int(sample["id"][row]) if "id" in sample else row
        token = self.task.target_dictionary[int(target[first])]
        within = f"--constraint-range {','.join(map(str, self.range_of(sample) or ()))}"
        if sample.get("constraint_masks") is not None:
            within = "its candidate answers" if self.range is None else f"its candidate answers or {within}"
        raise UserError(f"row {row_id}: target token {token!r} (position {position}) is outside {within}")

    def token_losses(self, tokens: Tokens) -> tuple[Tensor, Tensor]:
        """Loss and negative log-likelihood, both r x m, weighted by confidence."""
        index = tokens.target.expand(tokens.lprobs.shape[:2]).unsqueeze(-1)
        nll = -tokens.weighted(tokens.lprobs.gather(-1, index).squeeze(-1))
        epsilon = self.cfg.label_smoothing
        if epsilon == 0:
            return nll, nll
        if tokens.choices is None:
            share: Any = epsilon / (tokens.lprobs.size(-1) - 1)
        else:
            share = epsilon / (tokens.choices.to(nll.dtype) - 1 + RANGE_SLACK)
        smooth = -tokens.weighted(tokens.lprobs.sum(-1))
        return (1 - epsilon - share) * nll + share * smooth, nll

    def kept_ranks(self, size: int) -> tuple[int, int]:
        """First and last rank (exclusive, by rising loss) of the tokens that stay; at least one stays."""
        stop = size
        if self.active_after(self.cfg.drop_worst_ratio, self.cfg.drop_worst_after):
            stop = max(min(size, 1), int(size * (1 - self.cfg.drop_worst_ratio)))
        return 0, stop

    def active_after(self, ratio: float, after: int) -> bool:
        """Whether tokens are dropped in this step."""
        if ratio == 0 or not self.training:
            return False
        assert self.num_updates is not None, "dropping tokens counts updates: call set_num_updates before each step"
        return self.num_updates > after

    def kept_tokens(self, losses: Tensor) -> Tensor | None:
        """Indices of the tokens that stay, by the first copy's losses (m), so that both copies keep the same tokens.  None: all."""
        start, stop = self.kept_ranks(losses.numel())
        if (start, stop) == (0, losses.numel()):
            return None
        return losses.argsort()[start:stop]

    @staticmethod
    def divergence(lprobs: Tensor, conf: Tensor | None, kept: Tensor | None) -> Tensor:
        """(KL(p|q) + KL(q|p)) / 2 of each token (m) between both copies (R-Drop, arXiv:2106.14448).  ``lprobs`` 2 x m x k."""
        if kept is not None:
            lprobs = lprobs[:, kept]
            conf = None if conf is None else conf[kept]
        if conf is not None:
            lprobs = lprobs * conf.unsqueeze(-1)
        first, second = lprobs
        return ((first.exp() - second.exp()) * (first - second)).sum(-1) / 2

    def logged_scores(self) -> dict[str, bool]:
        """Logged values that checkpoints can be compared by: name in :meth:`reduce_metrics` -> whether higher is better."""
        accuracy = {"accuracy": True} if self.cfg.report_accuracy else {}
        return {"loss": False, "nll_loss": False, "ppl": False, **accuracy}

    @classmethod
    def reduce_metrics(cls, logging_outputs: list[dict[str, Any]]) -> None:
        """Log ``loss`` and ``nll_loss`` (base 2, per kept token; also per stream), ``ppl``, and ``accuracy`` in percent if reported."""

        def total(key: str) -> Any:
            return sum(log.get(key, 0) for log in logging_outputs)

        sample_size, ntokens = total("sample_size"), total("ntokens")
        # both are 0 in an update whose rows were all skipped: its weight in every mean is 0, and its value must not be NaN
        metrics.log_scalar("loss", total("loss") / max(sample_size, 1) / math.log(2), sample_size, round=3)
        metrics.log_scalar("nll_loss", total("nll_loss") / max(ntokens, 1) / math.log(2), ntokens, round=3)
        if any("auxiliary_loss" in log for log in logging_outputs):
            metrics.log_scalar("auxiliary_loss", total("auxiliary_loss") / max(sample_size, 1), sample_size, round=3)
        metrics.log_derived("ppl", lambda meters: utils.get_perplexity(meters["nll_loss"].avg))
        log_streams(logging_outputs)
        predicted = utils.item(total("total"))
        if predicted > 0:
            metrics.log_scalar("total", predicted)
            metrics.log_scalar("n_correct", utils.item(total("n_correct")))
            metrics.log_derived(
                "accuracy", lambda meters: round(100.0 * meters["n_correct"].sum / meters["total"].sum, 3)
            )

    @staticmethod
    def logging_outputs_can_be_summed() -> bool:
        """True: all logged values are sums, so those of several workers may be added."""
        return True


def select_features(features: Sequence[Tensor], counts: Tensor) -> Tensor:
    """Select the features of the counted tokens.

    Args:
        features: ``(r * b) x t x c`` for each group of the batch (``b``, ``t`` of the group), copy after copy.
        counts: ``b x t`` of the whole batch, group after group; True: a counted token.

    Returns:
        ``r x m x c``.
    """
    copies, left = divmod(sum(group.size(0) for group in features), counts.size(0))
    assert left == 0, f"features of other rows than the target {tuple(counts.shape)}: {[tuple(group.shape) for group in features]}"
    picked, start = [], 0
    for group in features:
        apart = group.unflatten(0, (copies, -1))
        end = start + apart.size(1)
        assert not bool(counts[start:end, group.size(1) :].any()), f"features {tuple(group.shape)} end before the target"
        part = counts[start:end, : group.size(1)]
        picked.append(apart.flatten(1, 2) if bool(part.all()) else apart[:, part])
        start = end
    return picked[0] if len(picked) == 1 else torch.cat(picked, dim=1)


def parse_range(text: str | None, vocabulary: int) -> tuple[int, int] | None:
    """Token ids from ``start,end`` (end exclusive); ``vocabulary`` is the number of tokens."""
    if text is None:
        return None
    parts = text.strip("()[] ").split(",")
    try:
        start, end = (int(part) for part in parts)
    except ValueError:
        raise UserError(f"--constraint-range {text!r}: expected two token ids as 'start,end'") from None
    if not FIRST_TOKEN <= start < end <= vocabulary:
        raise UserError(
            f"--constraint-range {text!r}: needs {FIRST_TOKEN} <= start < end <= {vocabulary}, the size of the dictionary"
        )
    return start, end


def _check_share(name: str, value: float) -> None:
    if not 0 <= value < 1:
        raise UserError(f"--{name} {value}: must be at least 0 and below 1")
