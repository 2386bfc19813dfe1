"""The decoder: causal transformer layers over target tokens, attending to the encoded source.

Incremental decoding computes only the newest tokens: keys and values of earlier ones are cached per row.  What depends on the source
alone (cross-attention keys and values, position keys) is computed once per sentence and shared by its beams.
"""

from collections.abc import Iterable
from typing import Any

import torch
from fairseq.models import FairseqIncrementalDecoder
from torch import Tensor, nn
from torch.nn import functional as F

from unival.backbones.prepared import PackedWeight, Prepared, QuantizedWeight, kept_matrix
from unival.backbones.recomputing import Mode, run_layer
from unival.models.attention import MultiheadAttention
from unival.models.bias import (
    image_bucket_count,
    kept_code_positions,
    kept_image_buckets,
    kept_token_buckets,
    padding_mask,
    relative_bias,
    relative_tables,
    split_heads,
    token_bucket_count,
)
from unival.models.cache import DecoderState, TargetPositions
from unival.models.config import UnivalConfig, decoder_stack
from unival.models.encoder import EncoderOut
from unival.models.feed_forward import FeedForward, FeedForwardFactory, TokenAttributes, add_auxiliary, token_names
from unival.models.layers import DecoderLayer
from unival.models.token_embeddings import TokenEmbeddings

STATE = "unival_decoder"  # key in fairseq's incremental state


class UnivalDecoder(Prepared, FairseqIncrementalDecoder):
    """Predicts the next token of text, boxes or image codes.

    Args:
        cfg: the model's configuration.
        dictionary: the vocabulary's dictionary.
        embed_tokens: token embeddings, shared with the encoder and with the output projection.
        feed_forward: makes the feed-forward of every layer.
    """

    dictionary: Any

    def __init__(
        self, cfg: UnivalConfig, dictionary: Any, embed_tokens: TokenEmbeddings, feed_forward: FeedForwardFactory = FeedForward
    ):
        super().__init__(dictionary)
        stack = decoder_stack(cfg)
        dim = stack.embed_dim
        self.cfg = cfg
        self.num_heads = stack.attention_heads
        self.bias_scale = (dim // self.num_heads * stack.attn_scale_factor) ** -0.5
        self.embed_tokens = embed_tokens
        self.layernorm_embedding = nn.LayerNorm(dim)
        self.code_layernorm_embedding = nn.LayerNorm(dim)
        self.embed_positions = nn.Embedding(cfg.max_target_positions + 2, dim)
        self.embed_image_positions = nn.Embedding(cfg.image_bucket_size**2 + 1, dim)
        self.pos_ln = nn.LayerNorm(dim)
        self.image_pos_ln = nn.LayerNorm(dim)
        self.self_pos_q_linear = nn.Linear(dim, dim)
        self.self_pos_k_linear = nn.Linear(dim, dim)
        self.cross_pos_q_linear = nn.Linear(dim, dim)
        self.cross_pos_k_linear = nn.Linear(dim, dim)
        self.layers = nn.ModuleList(
            DecoderLayer(stack, stack.drop_path(i), feed_forward(stack, i)) for i in range(stack.layers)
        )
        self.layer_norm = nn.LayerNorm(dim)
        token_rows, image_rows = token_bucket_count(cfg.token_bucket_size), image_bucket_count(cfg.image_bucket_size)
        self.token_rel_pos_table_list = relative_tables(token_rows, self.num_heads, stack.layers)
        self.image_rel_pos_table_list = relative_tables(image_rows, self.num_heads, stack.layers)

    def forward(
        self,
        prev_output_tokens: Tensor,
        encoder_out: EncoderOut,
        code_masks: Tensor | None = None,
        incremental_state: dict[str, Any] | None = None,
        features_only: bool = False,
        return_all_hiddens: bool = False,
        **unused: Any,
    ) -> tuple[Tensor, dict[str, Any]]:
        """Logits of the next token at every position; with ``incremental_state``, at the new positions only.

        Args:
            prev_output_tokens: ``b x t``, starting with bos.
            encoder_out: the encoded source.
            code_masks: ``b``, True: the target is image codes; by default those of ``encoder_out``.
            incremental_state: fairseq's dict of cached states.

        Returns:
            Logits ``b x t x v`` (with ``features_only``: features ``b x t x c``) and a dict: ``attn`` is None, ``inner_states`` a list,
            ``auxiliary_loss`` is there if feed-forwards of encoder or decoder have one.
        """
        if code_masks is None:
            code_masks = encoder_out.code_masks
        state = None if incremental_state is None else self.state(incremental_state)
        if state is None:
            encoder_out = self.one_row_per_sentence(encoder_out, prev_output_tokens.size(0))
        total = prev_output_tokens.size(1)
        step = 0 if state is None else state.filled  # the first call, with an empty state, computes the whole prefix
        assert step < total, f"{step} target tokens were decoded before; give them and the newest one, not {total}"
        positions = self.positions(self.position_kinds(code_masks), total, state)
        rows = self.decoder_rows(code_masks, encoder_out)
        x = self.embed(prev_output_tokens[:, step:], rows, {kind: p.raw[step:total] for kind, p in positions.items()})
        cross_kv, cross_bias = self.cross_attention(encoder_out, positions, step, total, code_masks)
        states = [x] if return_all_hiddens else []
        padding = prev_output_tokens.eq(self.dictionary.pad())
        mask = padding if padding.any() else None
        attributes, auxiliary = self.attributes(rows, x.device), encoder_out.auxiliary
        mode = Mode.of(self.cfg)
        for i, layer in enumerate(self.layers):
            bias = self.choose({kind: self.layer_bias(i, kind, p, step, total) for kind, p in positions.items()}, rows)
            extend = None if state is None else state.extend(i)
            given = (x, attributes, bias, cross_kv[i], cross_bias, mask, extend)
            x, more = run_layer(layer, mode, *given)
            auxiliary = add_auxiliary(auxiliary, more)
            if return_all_hiddens:
                states.append(x)
        if state is not None:
            state.filled = total
        x = self.layer_norm(x)
        if not features_only:
            x = self.output_layer(x)
        return x, {"attn": None, "inner_states": states, **({} if auxiliary is None else {"auxiliary_loss": auxiliary})}

    def attributes(self, code_rows: Tensor | None, device: torch.device) -> TokenAttributes:
        """The token attributes for the feed-forwards: each token is text or an image code."""
        names = token_names(self.cfg)
        text, code = names.index("text"), names.index("code")
        modality = torch.full((1, 1), text, device=device) if code_rows is None else torch.where(code_rows, code, text)[:, None]
        return TokenAttributes(modality, names, is_target=True)

    def state(self, incremental_state: dict[str, Any]) -> DecoderState:
        """The cached state of a search; made at its first step."""
        assert not torch.is_grad_enabled(), "decoding token by token overwrites what it keeps: use torch.no_grad()"
        return incremental_state.setdefault(STATE, DecoderState(len(self.layers)))

    def reserve(self, incremental_state: dict[str, Any], tokens: int) -> None:
        """At the start of a search, allocate the cache for ``tokens`` target tokens, bos included."""
        self.state(incremental_state).make_room(tokens, tokens)

    def sources(self) -> Iterable[Tensor]:
        """The weight of the output projection."""
        return (self.embed_tokens.weight,)

    def prepared_form(self, int8: bool) -> PackedWeight | QuantizedWeight | None:
        """The packed or quantised output projection."""
        return kept_matrix(self.embed_tokens.weight, int8)

    def output_layer(self, features: Tensor, tokens: Tensor | slice | None = None) -> Tensor:
        """Project features to logits by the shared token embeddings.

        Args:
            features: ``… x c``.
            tokens: the tokens to compute logits of: ids (``k``) or a slice of the vocabulary; None: all.

        Returns:
            ``… x v``, or ``… x k`` in the order of ``tokens``.
        """
        kept = self.ready(features) if tokens is None else None
        if kept is not None and kept.fits(features):
            return kept.multiply(features)
        return self.embed_tokens.project(features, tokens)

    def embed(self, tokens: Tensor, code_rows: Tensor | None, positions: dict[str, Tensor]) -> Tensor:
        """Token ids ``b x t`` -> ``b x t x c``; rows of image codes have their own layer norm.

        ``code_rows`` (b): True: image codes.  ``positions``: position embeddings ([b x] t x c) per kind in the batch, added
        with ``--entangle-target-positions``.
        """
        x = self.embed_tokens(tokens)
        if self.cfg.entangle_target_positions:
            tables = {kind: table.view(-1, 1, *table.shape[-2:]) for kind, table in positions.items()}
            x = x + self.choose(tables, code_rows).squeeze(1)
        normed = self.layernorm_embedding(x)
        if code_rows is not None and "code" in positions:
            normed = torch.where(code_rows[:, None, None], self.code_layernorm_embedding(x), normed)
        return F.dropout(normed, self.cfg.dropout, self.training)

    @staticmethod
    def decoder_rows(code_masks: Tensor | None, encoder_out: EncoderOut) -> Tensor | None:
        """``code_masks`` per decoder row; they are given per sentence when beams share their source."""
        if code_masks is None or encoder_out.rows is None or code_masks.size(0) == encoder_out.rows.size(0):
            return code_masks
        return code_masks[encoder_out.rows]

    @staticmethod
    def one_row_per_sentence(encoder_out: EncoderOut, rows: int) -> EncoderOut:
        """Repeat the source per row of the target: without a cache, beams cannot share it."""
        if encoder_out.hidden.size(0) == rows:
            return encoder_out
        assert encoder_out.rows is not None, "the target has another number of rows than the source"
        return encoder_out.select(encoder_out.rows)

    @staticmethod
    def position_kinds(code_masks: Tensor | None) -> tuple[str, ...]:
        """The kinds of positions that a batch needs: text, image codes, or both."""
        if code_masks is None or not code_masks.any():
            return ("text",)
        return ("code",) if code_masks.all() else ("text", "code")

    @staticmethod
    def choose(by_kind: dict[str, Tensor], code_rows: Tensor | None) -> Tensor:
        """Select the values of each row's kind; without a batch axis if all rows are of one kind."""
        if len(by_kind) == 1:
            return next(iter(by_kind.values()))
        assert code_rows is not None
        return torch.where(code_rows[:, None, None, None], by_kind["code"], by_kind["text"])

    def positions(self, kinds: tuple[str, ...], length: int, state: DecoderState | None) -> dict[str, TargetPositions]:
        """The positions of at least the first ``length`` tokens, per kind; cached in the state of a search, if there is one."""
        if state is None:
            return {kind: self.target_positions(kind, length) for kind in kinds}
        state.make_room(length, self.embed_positions.num_embeddings)
        for kind in kinds:
            if kind not in state.positions:
                known = self.embed_positions.num_embeddings if kind == "text" else state.capacity  # a grid of codes may be longer
                state.positions[kind] = self.target_positions(kind, max(length, min(state.capacity, known)))
        return {kind: state.positions[kind] for kind in kinds}

    def target_positions(self, kind: str, length: int) -> TargetPositions:
        """The positions of a target of ``length`` tokens."""
        device, size = self.embed_positions.weight.device, self.cfg.image_bucket_size
        if kind == "text":
            ids = torch.arange(length, device=device)
            raw = self.embed_positions(ids)
            normed = self.pos_ln(raw)
            buckets = kept_token_buckets(length, self.cfg.token_bucket_size, device)
        else:
            ids = kept_code_positions(length, self.cfg.code_image_size, size, device)
            raw = self.embed_image_positions(ids)
            normed = self.image_pos_ln(raw)
            buckets = kept_image_buckets(ids, size)
        q = split_heads(self.self_pos_q_linear(normed), self.num_heads)
        k = split_heads(self.self_pos_k_linear(normed), self.num_heads)
        future = torch.ones(length, length, dtype=torch.bool, device=device).triu(1)
        absolute = (q @ k.transpose(-1, -2) * self.bias_scale).masked_fill(future, float("-inf"))
        return TargetPositions(raw, absolute, split_heads(self.cross_pos_q_linear(normed), self.num_heads), buckets)

    def layer_bias(self, layer: int, kind: str, positions: TargetPositions, step: int, total: int) -> Tensor:
        """Absolute term, causal mask and a layer's relative term for queries from ``step`` on: ``h x (total - step) x total``."""
        tables = self.token_rel_pos_table_list if kind == "text" else self.image_rel_pos_table_list
        relative = relative_bias(tables[layer].get_parameter("weight"), positions.buckets[step:total, :total])
        absolute = positions.absolute[:, step:total, :total]
        return absolute + relative.to(absolute.dtype)

    def cross_attention(
        self,
        encoder_out: EncoderOut,
        positions: dict[str, TargetPositions],
        step: int,
        total: int,
        code_masks: Tensor | None,
    ) -> tuple[list[tuple[Tensor, Tensor]], Tensor]:
        """Keys and values of the source per layer, and the bias ``[b x] h x t x s`` with the source's padding mask (-inf at padding)."""
        cross = encoder_out.cross if not torch.is_grad_enabled() else {}
        if "kv" not in cross:
            attentions = [layer.get_submodule("encoder_attn") for layer in self.layers]
            cross["kv"] = [
                a.project_memory(encoder_out.hidden) for a in attentions if isinstance(a, MultiheadAttention)
            ]
            cross["positions"] = split_heads(self.cross_pos_k_linear(encoder_out.positions), self.num_heads)
        k = cross["positions"].transpose(-1, -2)
        by_kind = {kind: p.cross_queries[:, step:total] @ k * self.bias_scale for kind, p in positions.items()}
        bias = self.choose(by_kind, code_masks)
        if encoder_out.padding.any():  # added once: all layers share this bias
            bias = bias + padding_mask(encoder_out.padding, bias.dtype)
        return cross["kv"], bias

    def reorder_incremental_state_scripting(self, incremental_state: dict[str, Any], new_order: Tensor) -> None:
        """fairseq's hook for beams: select rows ``new_order`` of the cached target keys and values."""
        if STATE in incremental_state:
            incremental_state[STATE].reorder(new_order)

    def max_positions(self) -> int:
        """Longest target in tokens."""
        return self.cfg.max_target_positions
