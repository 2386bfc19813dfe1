"""No n-gram twice in a row, whatever fairseq is built with."""

import math
from typing import Any

from torch import Tensor


class NoRepeat:
    """Forbids tokens that would repeat an n-gram of the row, bos included; prompts may repeat.

    Replaces fairseq's NGramRepeatBlock: without its CUDA extension that compares with the buffer's padding instead of the newest tokens,
    and so forbids nothing.
    """

    def __init__(self, size: int, ensemble: Any) -> None:
        self.size, self.ensemble = size, ensemble

    def __call__(self, tokens: Tensor, lprobs: Tensor, bsz: int, beam_size: int, step: int) -> Tensor:
        """Set the log-probabilities (r x v) of forbidden tokens to -inf, in place; ``tokens`` is a buffer with step + 1 tokens per row."""
        known = tokens[:, : step + 1]
        context = self.size - 1
        if step < context:
            return lprobs
        following = known[:, context:]  # the token that ended each n-gram of a row
        repeats = (self.ensemble.prompt_lengths <= step).unsqueeze(1).expand_as(following)
        for i in range(context):  # the i-th token of each n-gram's context against that of the newest one
            repeats = repeats & (known[:, i : i + following.size(1)] == known[:, step + 1 - context + i].unsqueeze(1))
        rows, places = repeats.nonzero(as_tuple=True)
        lprobs[rows, following[rows, places]] = -math.inf
        return lprobs
