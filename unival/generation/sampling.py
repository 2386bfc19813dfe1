"""Sampling that works at every temperature; in fairseq's, all probabilities may underflow to zero."""

from __future__ import annotations

import math

import torch
from fairseq import search
from torch import Tensor


class Sampling(search.Sampling):
    """Sample from the allowed tokens, renormalised; scores are log-probabilities under the whole distribution.

    fairseq samples from ``exp(lprobs)`` without renormalising. If the most likely token is forbidden (eos before ``--min-len``),
    the probabilities of all others underflow to zero at low temperatures and sampling fails.
    """

    random: torch.Generator | None = None  # where random numbers come from, on the device of the scores; None: torch's own

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
            step: number of the step, from 0.
            lprobs: log-probabilities, b x beam x v, -inf where forbidden; at step 0 all beams are equal.
            scores: cumulative scores of the steps so far, b x beam x step; not needed at step 0.

        Returns:
            Cumulative scores, token ids, and the beam that each token continues; each b x beam.
        """
        sentences, beam, _ = lprobs.shape
        # A finished beam may have no allowed token (a second eos is forbidden); what it samples is ignored, but must be finite.
        finished = lprobs.eq(-math.inf).all(-1, keepdim=True)
        chances, ranked = self._candidates(lprobs.masked_fill(finished, 0.0))
        if step == 0:  # one draw per sentence as in fairseq, so that the same random numbers give the same tokens
            drawn = torch.multinomial(chances[:, 0], beam, replacement=True, generator=self.random)
        else:
            drawn = torch.multinomial(chances.view(sentences * beam, -1), 1, replacement=True, generator=self.random)
        drawn = drawn.view(sentences, beam, 1)
        tokens = drawn if ranked is None else ranked.gather(2, drawn)
        total = lprobs.gather(2, tokens).squeeze(2)
        if step > 0:
            assert scores is not None
            total = total + scores[:, :, step - 1]
        beams = torch.arange(beam, device=lprobs.device).repeat(sentences, 1)
        return total, tokens.squeeze(2), beams

    def _candidates(self, lprobs: Tensor) -> tuple[Tensor, Tensor | None]:
        """Probabilities b x beam x k to sample from, and their tokens (b x beam x k; None: all tokens in order)."""
        if self.sampling_topk > 0:
            best, tokens = lprobs.topk(self.sampling_topk)
            return best.softmax(-1), tokens
        probabilities = lprobs.softmax(-1)
        if self.sampling_topp <= 0:
            return probabilities, None
        ranked, tokens = probabilities.sort(descending=True)
        before = ranked.cumsum(-1) - ranked  # mass of the more likely tokens; kept is the smallest set with a mass of at least p
        return ranked.masked_fill(before >= self.sampling_topp, 0.0), tokens
