"""The token embeddings: looked up by encoder and decoder, and multiplied as the output projection."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from unival.backbones.prepared import version


class TokenEmbeddings(nn.Embedding):
    """An embedding table whose look-ups have gradients of rows only.

    The gradient of the projection is dense.  :class:`_Uses` adds the rows to it in place, where autograd would make a copy of it, as large
    as the vocabulary, for every look-up.
    """

    _uses: tuple[Tensor, Tensor] | None = None  # what _Uses gave
    _made_of: tuple[int, int] | None = None  # the version of the weight then

    def forward(self, tokens: Tensor) -> Tensor:
        """Token ids ``…`` -> ``… x c``; the padding embedding gets no gradient."""
        return self.look_up(tokens, self.padding_idx)

    def look_up(self, tokens: Tensor, padding_idx: int | None = None) -> Tensor:
        """Rows of the table: ids ``…`` -> ``… x c``."""
        weight = self._for_use(0)
        has_own = self._uses is not None and weight is self._uses[0]
        sparse = has_own and (weight.dtype != torch.float16 or weight.device.type != "cpu")  # torch cannot add sparse ones of float16 there
        return F.embedding(tokens, weight, padding_idx, sparse=sparse)

    def project(self, features: Tensor, tokens: Tensor | slice | None = None) -> Tensor:
        """Features ``… x c`` -> logits ``… x v``, or ``… x k`` of some tokens: ids (``k``) or a slice of the vocabulary."""
        if isinstance(tokens, Tensor):
            return F.linear(features, self.look_up(tokens))
        weight = self._for_use(1)
        return F.linear(features, weight if tokens is None else weight[tokens])

    def _for_use(self, use: int) -> Tensor:
        """The weight for look-ups (0) or products (1), which must give it gradients of its own; itself where none are computed."""
        weight = self.weight
        if not (torch.is_grad_enabled() and isinstance(weight, nn.Parameter) and weight.is_leaf and weight.requires_grad):
            return weight
        if self._uses is None or not self._is_of(self._uses[0], weight):
            self._uses, self._made_of = _Uses.apply(weight), version(weight)  # type: ignore[no-untyped-call]
        return self._uses[use]

    def _is_of(self, kept: Tensor, weight: Tensor) -> bool:
        """Whether the gradient of what was kept goes to this weight, which is as it was then."""
        if self._made_of != version(weight):
            return False  # torch gives no graph of a view whose weight was changed in place
        assert kept.grad_fn is not None
        return kept.grad_fn.next_functions[0][0].variable is weight  # type: ignore[union-attr, no-any-return]

    def _apply(self, *args: Any, **kwargs: Any) -> "TokenEmbeddings":
        self._uses = None  # which would keep the memory of the weight
        return super()._apply(*args, **kwargs)

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name != "_uses"}


class _Uses(torch.autograd.Function):
    """A weight for two uses, whose gradients are rows (sparse) and dense; their sum is dense."""

    @staticmethod
    def forward(ctx: Any, weight: Tensor) -> tuple[Tensor, Tensor]:
        ctx.set_materialize_grads(False)
        return weight.view_as(weight), weight.view_as(weight)

    @staticmethod
    def backward(ctx: Any, rows: Tensor | None, dense: Tensor | None) -> Tensor | None:  # dense: of a product, nobody else has it
        if rows is None:
            return dense
        if dense is None:  # the loss does not reach the projection
            return rows.to_dense() if rows.is_sparse else rows
        return dense + rows if torch.is_grad_enabled() else dense.add_(rows)
