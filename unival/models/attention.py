"""Multi-head attention with a position bias on the scores and a learned scale per head (NormFormer)."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from unival.backbones.prepared import Linear
from unival.models.bias import padding_mask, split_heads


class MultiheadAttention(nn.Module):
    """Attention with scores ``q . k / sqrt(f d) + bias``, and a learned scale per head before the output projection.

    ``d`` is the width of a head and ``f`` the scale factor: the untied position term has the same variance as the content term, so
    the sum is scaled as in TUPE (f = 2).

    Args:
        dim: width of queries and output.
        num_heads: number of heads; divides ``dim``.
        scale_factor: ``f`` above.
        dropout: probability on the attention weights.
        qk_norm: normalise each head's queries and keys (two layer norms of their own).
        input_norm: normalise the input of the query, key and value projections, with one layer norm over the whole width; the
            published code calls this ``qk_norm``.
    """

    def __init__(
        self,
        dim: int,
        num_heads: int,
        scale_factor: float = 2.0,
        dropout: float = 0.0,
        qk_norm: bool = False,
        input_norm: bool = False,
    ):
        super().__init__()
        assert dim % num_heads == 0, f"{num_heads} heads do not divide the width {dim}"
        self.num_heads = num_heads
        self.scale = (dim // num_heads * scale_factor) ** -0.5
        self.dropout = dropout
        self.k_proj = Linear(dim, dim)
        self.v_proj = Linear(dim, dim)
        self.q_proj = Linear(dim, dim)
        self.out_proj = Linear(dim, dim)
        self.c_attn = nn.Parameter(torch.ones(num_heads))
        self.q_norm = nn.LayerNorm(dim // num_heads) if qk_norm else None
        self.k_norm = nn.LayerNorm(dim // num_heads) if qk_norm else None
        self.input_norm = nn.LayerNorm(dim) if input_norm else None

    def project_memory(self, memory: Tensor) -> tuple[Tensor, Tensor]:
        """Keys and values of a memory ``b x s x c``: two tensors ``b x h x s x d``."""
        if self.input_norm is not None:
            memory = self.input_norm(memory)
        k = split_heads(self.k_proj(memory), self.num_heads)
        if self.k_norm is not None:
            k = self.k_norm(k)
        return k, split_heads(self.v_proj(memory), self.num_heads)

    def forward(self, x: Tensor, k: Tensor, v: Tensor, bias: Tensor, padding: Tensor | None = None) -> Tensor:
        """Attend from ``x`` to keys and values.

        Args:
            x: input of the queries, ``b x t x c``; ``b`` may be a multiple of the keys' batch size ``b'`` (beams of a sentence, next to
                each other), then ``t`` must be 1.
            k, v: ``b' x h x s x d``.
            bias: added to the scores (-inf: masked); ``h x t x s``, or broadcastable to ``b' x h x t x s``.
            padding: ``b' x s``, True: padding, not attended to.  It is separate from the bias, so that this needs no batch axis.

        Returns:
            ``b x t x c``.
        """
        batch, length, _ = x.shape
        if self.input_norm is not None:
            x = self.input_norm(x)
        q = split_heads(self.q_proj(x), self.num_heads)  # b x h x t x d
        if self.q_norm is not None:
            q = self.q_norm(q)
        beams = batch // k.size(0)
        if beams > 1:  # beams of one sentence share its keys: they become the query axis
            assert length == 1, "beams can share keys only while decoding token by token"
            q = q.unflatten(0, (k.size(0), beams)).squeeze(3).transpose(1, 2)  # b' x h x beams x d
        mask = bias.to(q.dtype)
        if padding is not None:
            mask = mask + padding_mask(padding, mask.dtype)
        out = F.scaled_dot_product_attention(
            q,
            k,
            v,
            attn_mask=mask if mask.dim() == 4 else mask[None],  # torch's fast kernels need masks of four dimensions
            dropout_p=self.dropout if self.training else 0.0,
            scale=self.scale,
        )
        if beams > 1:
            out = out.transpose(1, 2).flatten(0, 1).unsqueeze(2)  # b x h x 1 x d
        out = out * self.c_attn.to(out.dtype)[:, None, None]
        return self.out_proj(out.transpose(1, 2).flatten(2))
