"""Sampling that works at every temperature: fairseq's draws from probabilities that may all have become zero."""

from __future__ import annotations

import math

import torch
from fairseq import search
from torch import Tensor


class Sampling(search.Sampling):
    """Draw each token from what is allowed, by its probability among that; the scores are those of the whole distribution.

    fairseq draws from ``exp(log-probabilities)``.  Where the likeliest token is forbidden (end of sentence before ``--min-len``)
    the others underflow to zero at low temperatures, and nothing is left to draw from.
    """

    def step(
        self,
        step: int,
        lprobs: Tensor,
        scores: Tensor | None,
        prev_output_tokens: Tensor | None = None,
        original_batch_idxs: Tensor | None = None,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """One token per beam.

        Args:
            lprobs: B x beam x V log-probabilities, -inf where forbidden; at step 0 all beams are the same.
            scores: B x beam x step, cumulative.

        Returns:
            Cumulative scores, tokens and beams, each B x beam.
        """
        sentences, beam, _ = lprobs.shape
        # A beam that is over may have nothing left to say (its end of sentence would be a repetition): what it draws is ignored.
        over = lprobs.eq(-math.inf).all(-1, keepdim=True)
        chances, ranked = self._candidates(lprobs.masked_fill(over, 0.0))
        if step == 0:  # as fairseq draws: the same random numbers give the same tokens
            drawn = torch.multinomial(chances[:, 0], beam, replacement=True)
        else:
            drawn = torch.multinomial(chances.view(sentences * beam, -1), 1, replacement=True)
        drawn = drawn.view(sentences, beam, 1)
        tokens = drawn if ranked is None else ranked.gather(2, drawn)
        total = lprobs.gather(2, tokens).squeeze(2)
        if step > 0:
            assert scores is not None
            total = total + scores[:, :, step - 1]
        beams = torch.arange(beam, device=lprobs.device).repeat(sentences, 1)
        return total, tokens.squeeze(2), beams

    def _candidates(self, lprobs: Tensor) -> tuple[Tensor, Tensor | None]:
        """Probabilities B x beam x K to draw from, and the tokens that they belong to (None: all, in order)."""
        if self.sampling_topk > 0:
            best, tokens = lprobs.topk(self.sampling_topk)
            return best.softmax(-1), tokens
        probabilities = lprobs.softmax(-1)
        if self.sampling_topp <= 0:
            return probabilities, None
        ranked, tokens = probabilities.sort(descending=True)
        before = ranked.cumsum(-1) - ranked  # the mass of the likelier tokens: the set is the smallest that exceeds p
        return ranked.masked_fill(before >= self.sampling_topp, 0.0), tokens
