"""How much the loss of each token counts in training: normalisation, loss weights of streams, the number of candidates.

fairseq sums loss and sample size over the batches of an update (those of all ranks and of ``--update-freq``) and divides the gradient by
the summed sample size.  With l a token's loss, ``--loss-normalization`` makes of this:

    ===========  ===========================================  ======================  ====================================================
    value        loss of a batch                              its sample size         an update descends along the gradient of
    ===========  ===========================================  ======================  ====================================================
    ``token``    sum over tokens of l                         tokens                  the mean of l over all tokens of all batches
    ``group``    sum over groups of the group's mean of l     1                       the mean over batches of that sum: published for two
                                                                                      groups, loss1 / ntok1 + loss2 / ntok2
    ``example``  sum over examples of the example's mean      examples                the mean over all examples of their mean of l
    ``stream``   sum over streams of the stream's mean        streams in the batch    the mean over all pairs of a batch and a stream in
                                                                                      it: over streams, if each batch has the same ones
    ===========  ===========================================  ======================  ====================================================

What has no counted token (a group, an example, a stream, a batch) counts nowhere.  A group is the rows with the same kinds of media, see
:mod:`unival.data.collate`.  The loss of a token may further be multiplied by the weight of its stream and, by ``--scale-by-candidates``, by
1 / ln n (n: number of possible predictions), which makes a model that guesses pay the same whatever it chooses from; sample sizes stay.

Source of the latter: "Muppet: Massive Multi-task Representations with Pre-Finetuning" (arXiv:2101.11038), equation 1.
All of this is for training only: validation losses stay comparable, and do not depend on how rows are batched.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from fairseq.dataclass import ChoiceEnum, FairseqDataclass
from torch import Tensor

from unival.errors import UserError

NORMALIZATION = ChoiceEnum(["token", "group", "example", "stream"])


@dataclass
class WeightingConfig(FairseqDataclass):
    loss_normalization: NORMALIZATION = field(  # type: ignore[valid-type]
        default="token",
        metadata={
            "help": "in training, an update's loss is the mean over its tokens, over its examples (each the mean of its tokens), over the"
            " streams of its batches, or over its batches, each the sum of the means of its groups of rows with the same media (published)"
        },
    )
    scale_by_candidates: bool = field(
        default=False,
        metadata={"help": "in training, divide an example's loss by the logarithm of the number of its candidate answers, else of tokens"},
    )


@dataclass(frozen=True)
class Kept:
    """The tokens of a batch that are in the loss.

    Attributes:
        rows: m, the row of each.
        choices: m, the number of tokens that each could have been.
        copies: r, how often the batch is in the loss.
    """

    rows: Tensor
    choices: Tensor
    copies: int


class Weighting:
    """The weights of a batch's tokens, by the options of training.

    Raises:
        UserError: the options contradict each other.
    """

    def __init__(self, cfg: WeightingConfig, sentence_avg: bool) -> None:
        self.cfg = cfg
        if sentence_avg and cfg.loss_normalization != "token":
            raise UserError(f"--sentence-avg divides by sentences: leave it out with --loss-normalization {cfg.loss_normalization}")

    def applies(self, sample: Mapping[str, Any]) -> bool:
        """Whether the tokens of a batch have weights."""
        return self.cfg.loss_normalization != "token" or self.cfg.scale_by_candidates or sample.get("stream_loss_weights") is not None

    def __call__(self, sample: Mapping[str, Any], kept: Kept, dtype: torch.dtype) -> tuple[Tensor, int | None]:
        """Weigh the tokens of a batch.

        Args:
            sample: a batch.  ``stream_loss_weights``: a float64 for every stream; ``num_candidates`` (b): of each row, 0 if it has none.
            kept: its tokens.
            dtype: of the result.

        Returns:
            The weight of each token (m), and the sample size; None: the number of tokens, as without weights.
        """
        rows, device = kept.rows, kept.rows.device
        weights, size = torch.ones(len(rows), dtype=dtype, device=device), None
        if self.cfg.loss_normalization != "token":
            parts = self.parts(sample)[rows]
            tokens = parts.new_zeros(sample["target"].size(0)).index_add_(0, parts, torch.ones_like(parts))
            weights = weights / (tokens[parts] * kept.copies)
            size = min(1, len(rows)) if self.cfg.loss_normalization == "group" else int(tokens.count_nonzero())
        loss_weights = sample.get("stream_loss_weights")
        if loss_weights is not None:
            weights = weights * loss_weights.to(device, dtype)[sample["stream"][rows]]
        if self.cfg.scale_by_candidates:
            weights = weights / possibilities(sample, kept).clamp(min=2).to(dtype).log()
        return weights, size

    def parts(self, sample: Mapping[str, Any]) -> Tensor:
        """For each row (b), the number of the part of the batch that it is in: its group, its stream, or itself."""
        target = sample["target"]
        if self.cfg.loss_normalization == "example":
            return torch.arange(len(target), device=target.device)
        if self.cfg.loss_normalization == "stream":
            return sample["stream"].unique(return_inverse=True)[1]
        return torch.cat([torch.full((size,), number, device=target.device) for number, size in enumerate(group_sizes(sample))])


def possibilities(sample: Mapping[str, Any], kept: Kept) -> Tensor:
    """For each token (m), how many predictions its example has: its candidate answers, else the tokens that may be predicted."""
    if "num_candidates" not in sample:
        return kept.choices
    candidates = sample["num_candidates"][kept.rows]
    return candidates.where(candidates > 0, kept.choices)


def group_sizes(sample: Mapping[str, Any]) -> list[int]:
    """Number of rows in each group of a batch."""
    return [len(group["prev_output_tokens"]) for group in sample["net_input"]["groups"]]
