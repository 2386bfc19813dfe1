"""The token embeddings: looked up by encoder and decoder, and multiplied as the output projection."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class TokenEmbeddings(nn.Embedding):
    """An embedding table whose look-ups have gradients of rows only.

    The gradient of the projection is dense.  :class:`_Uses` adds the rows to it in place, where autograd would make a copy of it, as large
    as the vocabulary, for every look-up.
    """

    uses: tuple[Tensor, Tensor] | None = None  # what _Uses gave
    made_of: tuple[Any, ...] = ()  # the place of the weight then, and how often it had been changed in place

    def forward(self, tokens: Tensor) -> Tensor:
        """Token ids ``…`` -> ``… x c``; the padding embedding gets no gradient."""
        return self.look_up(tokens, self.padding_idx)

    def look_up(self, tokens: Tensor, padding_idx: int | None = None) -> Tensor:
        """Rows of the table: ids ``…`` -> ``… x c``."""
        weight = self._for_use(0)
        has_own = self.uses is not None and weight is self.uses[0]
        sparse = has_own and (weight.dtype != torch.float16 or weight.device.type != "cpu")  # torch cannot add sparse ones of float16 there
        return F.embedding(tokens, weight, padding_idx, sparse=sparse)

    def projection(self) -> Tensor:
        """The weight ``v x c`` of the output projection."""
        return self._for_use(1)

    def _for_use(self, use: int) -> Tensor:
        """The weight for look-ups (0) or products (1); itself where no gradient of its own is computed."""
        weight = self.weight
        if not (torch.is_grad_enabled() and isinstance(weight, nn.Parameter) and weight.is_leaf and weight.requires_grad):
            return weight
        now = weight.data_ptr(), weight.dtype, weight._version
        if self.uses is None or self.made_of != now:
            self.uses, self.made_of = _Uses.apply(weight), now  # type: ignore[no-untyped-call]
        return self.uses[use]

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name != "uses"}


class _Uses(torch.autograd.Function):
    """A weight for two uses, whose gradients are rows (sparse) and dense; their sum is dense."""

    @staticmethod
    def forward(ctx: Any, weight: Tensor) -> tuple[Tensor, Tensor]:
        ctx.set_materialize_grads(False)
        return weight.view_as(weight), weight.view_as(weight)

    @staticmethod
    def backward(ctx: Any, rows: Tensor | None, dense: Tensor | None) -> Tensor | None:
        if rows is None:
            return dense
        if dense is None:  # the loss does not reach the projection
            return rows.to_dense() if rows.is_sparse else rows
        return dense + rows if torch.is_grad_enabled() else dense.add_(rows)
