"""Pre-norm transformer layers with NormFormer's extra norms and scales, and stochastic depth."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from unival.models.attention import MultiheadAttention
from unival.models.config import StackConfig
from unival.models.feed_forward import Layer, TokenAttributes

# keys and values (b x h x t x d) of the newest tokens -> those of all tokens so far
Extend = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]


class DropPath(nn.Module):
    """Stochastic depth: drops the residual branch of random rows, and divides the others by the probability of keeping."""

    def __init__(self, rate: float):
        super().__init__()
        self.rate = rate
        self.keep = torch.tensor(1.0 - rate, dtype=torch.float64)  # compiled: the same for all rates, see unival.backbones.compiling

    def forward(self, x: Tensor) -> Tensor:
        """``b x t x c``, any shape after b -> the same shape."""
        if torch.compiler.is_compiling() and self.training:
            mask = torch.rand(x.size(0), 1, 1, device=x.device) < self.keep
            return x * mask / self.keep
        if not self.training or self.rate == 0.0:
            return x
        keep = 1.0 - self.rate
        mask = torch.empty(x.size(0), 1, 1, device=x.device, dtype=x.dtype).bernoulli_(keep)
        return x * mask / keep


def attention(cfg: StackConfig) -> MultiheadAttention:
    """The attention of a stack's layers."""
    sizes = (cfg.embed_dim, cfg.attention_heads, cfg.attn_scale_factor, cfg.attention_dropout)
    return MultiheadAttention(*sizes, cfg.qk_norm, cfg.attention_input_norm)


class TransformerLayer(Layer):
    """Base of both kinds of layers: feed-forward with its residual, dropout and stochastic depth."""

    def __init__(self, cfg: StackConfig, drop_path: float, feed_forward: nn.Module):
        super().__init__(feed_forward)
        self.w_resid = nn.Parameter(torch.ones(cfg.embed_dim)) if cfg.scale_resids else None
        self.self_attn = attention(cfg)
        self.self_attn_layer_norm = nn.LayerNorm(cfg.embed_dim)
        self.dropout = nn.Dropout(cfg.dropout)
        self.drop_path = DropPath(drop_path)

    def add_feed_forward(self, x: Tensor, attributes: TokenAttributes) -> tuple[Tensor, Tensor | None]:
        """``x`` (b x t x c; scaled per channel with ``--scale-resids``) plus its feed-forward, and the auxiliary loss or None."""
        y, auxiliary = self.feed_forward(x, attributes)
        return (x if self.w_resid is None else x * self.w_resid) + self.drop_path(self.dropout(y)), auxiliary


class EncoderLayer(TransformerLayer):
    """Self-attention and feed-forward, both pre-norm, with a norm after attention and inside the feed-forward."""

    OWN = ("w_resid", "self_attn", "self_attn_layer_norm", "attn_ln", "dropout", "drop_path")

    def __init__(self, cfg: StackConfig, drop_path: float, feed_forward: nn.Module):
        super().__init__(cfg, drop_path, feed_forward)
        self.attn_ln = nn.LayerNorm(cfg.embed_dim)

    def forward(
        self, x: Tensor, attributes: TokenAttributes, bias: Tensor, padding: Tensor | None = None
    ) -> tuple[Tensor, Tensor | None]:
        """One layer over the whole source.

        Args:
            x: ``b x t x c``.
            attributes: attributes of these tokens, for the feed-forward.
            bias: ``[b x] h x t x t``, added to the scores.
            padding: ``b x t``, True: padding, not attended to.

        Returns:
            ``b x t x c``, and the feed-forward's auxiliary loss.
        """
        y = self.self_attn_layer_norm(x)
        y = self.self_attn(y, *self.self_attn.project_memory(y), bias, padding)
        x = x + self.drop_path(self.dropout(self.attn_ln(y)))
        return self.add_feed_forward(x, attributes)


class DecoderLayer(TransformerLayer):
    """Causal self-attention, cross-attention and feed-forward, all pre-norm."""

    OWN = (
        *("w_resid", "self_attn", "self_attn_layer_norm", "self_attn_ln"),
        *("encoder_attn", "encoder_attn_layer_norm", "cross_attn_ln", "dropout", "drop_path"),
    )

    def __init__(self, cfg: StackConfig, drop_path: float, feed_forward: nn.Module):
        super().__init__(cfg, drop_path, feed_forward)
        self.self_attn_ln = nn.LayerNorm(cfg.embed_dim)
        self.encoder_attn = attention(cfg)
        self.encoder_attn_layer_norm = nn.LayerNorm(cfg.embed_dim)
        self.cross_attn_ln = nn.LayerNorm(cfg.embed_dim)

    def forward(
        self,
        x: Tensor,
        attributes: TokenAttributes,
        self_bias: Tensor,
        cross_kv: tuple[Tensor, Tensor],
        cross_bias: Tensor,
        padding: Tensor | None = None,
        extend: Extend | None = None,
    ) -> tuple[Tensor, Tensor | None]:
        """One layer over the whole target, or over its newest tokens.

        Args:
            x: ``b x t x c``.
            attributes: attributes of these tokens, for the feed-forward.
            self_bias: bias with the causal mask (-inf), ``h x t x (past + t)``, or with a batch axis.
            cross_kv: keys and values of the source (see :meth:`MultiheadAttention.project_memory`).
            cross_bias: broadcastable to ``b' x h x t x s``, b' as in :class:`MultiheadAttention`.
            padding: ``b x (past + t)``, True: padding, not attended to.
            extend: appends the newest keys and values to the earlier ones and returns all; None: there are no earlier ones.

        Returns:
            ``b x t x c``, and the feed-forward's auxiliary loss.
        """
        y = self.self_attn_layer_norm(x)
        k, v = self.self_attn.project_memory(y)
        if extend is not None:
            k, v = extend(k, v)
        y = self.self_attn(y, k, v, self_bias, padding)
        x = x + self.drop_path(self.dropout(self.self_attn_ln(y)))
        y = self.encoder_attn(self.encoder_attn_layer_norm(x), *cross_kv, cross_bias)
        x = x + self.drop_path(self.dropout(self.cross_attn_ln(y)))
        return self.add_feed_forward(x, attributes)
