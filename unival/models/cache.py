"""What the decoder keeps while it decodes token by token: keys and values of earlier tokens, and what follows from positions alone."""

from dataclasses import dataclass, field
from functools import partial

import torch
from torch import Tensor

from unival.models.layers import Extend

SMALLEST = 32  # tokens that there is room for at first, where nobody says how many will come


@dataclass
class TargetPositions:
    """What the positions of a target bring into the decoder, for ``n`` tokens of one kind (text or image codes).

    ``raw`` n x c position embeddings; ``absolute`` heads x n x n, the self-attention's absolute term with the causal mask;
    ``cross_queries`` heads x n x d; ``buckets`` n x n (or more), rows of the relative tables.
    """

    raw: Tensor
    absolute: Tensor
    cross_queries: Tensor
    buckets: Tensor


@dataclass
class DecoderState:
    """A search's state: room for keys and values of all layers, filled up to ``filled`` tokens, and the positions of as many.

    ``past``: layers x 2 x rows x heads x capacity x d, where a search may go on with fewer rows than there are.
    """

    layers: int
    capacity: int = 0
    filled: int = 0
    past: Tensor | None = None
    positions: dict[str, TargetPositions] = field(default_factory=dict)

    def make_room(self, tokens: int, most: int) -> None:
        """See that there is room for so many tokens, and for twice as many when there was not, but at most for ``most``."""
        if tokens > self.capacity:
            self.capacity = max(tokens, min(most, max(2 * self.capacity, SMALLEST)))
            self.positions.clear()

    def extend(self, layer: int) -> Extend:
        """How a layer's keys and values get behind the earlier ones."""
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
        """Go on with the rows ``order``; only those that are another one now are copied."""
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
