"""The decoder's cache in incremental decoding: keys and values of earlier tokens, and all that depends on positions alone."""

from dataclasses import dataclass, field
from functools import partial

import torch
from torch import Tensor

from unival.models.layers import Extend

SMALLEST = 32  # first capacity in tokens, if the number of tokens is not known in advance


@dataclass
class TargetPositions:
    """All that the decoder computes from the positions of ``t`` target tokens of one kind (text or image codes).

    Attributes:
        raw: position embeddings, ``t x c``.
        absolute: absolute term of the self-attention's bias, with the causal mask (-inf), ``h x t x t``.
        cross_queries: position queries of the cross-attention, ``h x t x d``.
        buckets: rows of the relative tables, ``t x t`` or larger.
    """

    raw: Tensor
    absolute: Tensor
    cross_queries: Tensor
    buckets: Tensor


@dataclass
class DecoderState:
    """The state of a search.

    Attributes:
        layers: number of decoder layers.
        capacity: number of tokens that ``past`` and ``positions`` are allocated for.
        filled: number of tokens decoded so far.
        past: keys and values, ``layers x 2 x rows x h x capacity x d``; a search that goes on with fewer rows uses the first ones.
        positions: the positions of the kinds of targets in the batch.
    """

    layers: int
    capacity: int = 0
    filled: int = 0
    past: Tensor | None = None
    positions: dict[str, TargetPositions] = field(default_factory=dict)

    def make_room(self, tokens: int, most: int) -> None:
        """Raise the capacity to at least ``tokens``; where it must grow, it doubles, up to ``most``."""
        if tokens > self.capacity:
            self.capacity = max(tokens, min(most, max(2 * self.capacity, SMALLEST)))
            self.positions.clear()

    def extend(self, layer: int) -> Extend:
        """A function that appends a layer's new keys and values and returns those of all tokens."""
        return partial(self._extend, layer)

    def _extend(self, layer: int, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        rows, heads, new, width = k.shape
        if self.past is None or self.past.size(4) < self.capacity:
            old = self.past
            self.past = k.new_empty(self.layers, 2, rows, heads, self.capacity, width)
            if old is not None:
                self.past[..., : self.filled, :] = old[:, :, :rows, :, : self.filled]
        own, end = self.past[layer], self.filled + new
        own[0, :rows, :, self.filled : end] = k
        own[1, :rows, :, self.filled : end] = v
        return own[0, :rows, :, :end], own[1, :rows, :, :end]

    def reorder(self, order: Tensor) -> None:
        """Select the rows ``order``; only rows that change place are copied."""
        rows = order.numel()
        if self.past is None:
            return
        if rows > self.past.size(2):
            self.past = self.past.index_select(2, order)
            return
        moved = (order != torch.arange(rows, device=order.device)).nonzero().squeeze(-1)
        if moved.numel():
            filled = self.past[..., : self.filled, :]
            filled[:, :, moved] = filled[:, :, order[moved]]
