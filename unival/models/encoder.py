"""The encoder: embeds every source slot to tokens, concatenates them, and applies transformer layers.

The rows of a group have the same kinds of media, so all have the same segments: one per media slot, and the text last.  Positions
depend on the segment only, and position biases need no batch axis.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from fairseq.models import FairseqEncoder
from torch import Tensor, nn
from torch.nn import functional as F

from unival.backbones.recomputing import Mode, run_layer
from unival.errors import UserError
from unival.modalities import media_of
from unival.modalities.base import MediaEmbedding
from unival.models.bias import (
    grid_positions,
    image_bucket_count,
    image_bucket_rows,
    join_buckets,
    joined_tables,
    kept_image_buckets,
    kept_joined_buckets,
    kept_token_buckets,
    relative_bias,
    relative_tables,
    split_heads,
    token_bucket_count,
)
from unival.models.config import UnivalConfig, cfg_modalities, encoder_stack
from unival.models.feed_forward import FeedForward, FeedForwardFactory, TokenAttributes, add_auxiliary, token_names
from unival.models.layers import EncoderLayer
from unival.models.token_embeddings import TokenEmbeddings

TEXT_TYPE, MEDIA_TYPE = 0, 1  # rows of the type embedding
MEDIA_TYPES = 3  # with a row per modality, the published models always have rows for this many media


@dataclass
class Segment:
    """A span of ``l`` tokens of the source: the media of one slot, or the text.

    Attributes:
        tokens: embedded tokens, ``b x l x c``.
        padding: ``b x l``, True: padding.
        positions: normalised position embeddings, ``l x c``, or ``b x l x c`` if rows have their own.
        buckets: rows of the relative table of text or of media, ``l x l`` or ``b x l x l``.
        modality: name in lower case.
    """

    tokens: Tensor
    padding: Tensor
    positions: Tensor
    buckets: Tensor
    modality: str

    @property
    def is_text(self) -> bool:
        """Whether this is the text segment: its buckets index the token table."""
        return self.modality == "text"


@dataclass
class EncoderOut:
    """The encoded source of ``b`` sentences, shared by all beams.

    Attributes:
        hidden: ``b x s x c``.
        padding: ``b x s``, True: padding.
        positions: normalised position embeddings, ``s x c``, or ``b x s x c`` if rows have their own.
        code_masks: ``b``, True: the target is image codes; None: no target is.
        states: the state before every layer and after the last one, if requested.
        rows: sentence of each decoder row (beam); None: one row per sentence.
        cross: the decoder's cache of what depends on the source alone: per layer (keys, values), and position keys.
        auxiliary: sum of the layers' auxiliary losses; None: there are none.
    """

    hidden: Tensor
    padding: Tensor
    positions: Tensor
    code_masks: Tensor | None = None
    states: list[Tensor] = field(default_factory=list)
    rows: Tensor | None = None
    cross: dict[str, Any] = field(default_factory=dict)
    auxiliary: Tensor | None = None

    def __getitem__(self, index: int) -> Tensor:
        """For backward hooks, such as those of fairseq's NanDetector, which take the first tensor of a module's output."""
        return (self.hidden, self.padding, self.positions)[index]

    def select(self, sentences: Tensor) -> "EncoderOut":
        """Select sentences with their caches, in the given order."""

        def pick(x: Tensor) -> Tensor:
            return x.index_select(0, sentences)

        cross = dict(self.cross)
        if "kv" in cross:
            cross["kv"] = [(pick(k), pick(v)) for k, v in cross["kv"]]
        if "positions" in cross and cross["positions"].dim() == 4:  # has a batch axis only when patches are sampled
            cross["positions"] = pick(cross["positions"])
        return replace(
            self,
            hidden=pick(self.hidden),
            padding=pick(self.padding),
            positions=pick(self.positions) if self.positions.dim() == 3 else self.positions,
            code_masks=None if self.code_masks is None else pick(self.code_masks),
            states=[pick(state) for state in self.states],
            cross=cross,
        )

    def reorder(self, new_order: Tensor) -> "EncoderOut":
        """Select rows ``new_order`` of the current rows.  A sentence is stored once, whatever its number of rows (beams)."""
        rows = new_order if self.rows is None else self.rows[new_order]
        sentences, index, counts = torch.unique_consecutive(rows, return_inverse=True, return_counts=True)
        if (counts != counts[0]).any():  # the decoder needs the same number of rows per sentence
            return replace(self.select(rows), rows=None)
        same = sentences.numel() == self.hidden.size(0) and bool(
            (sentences == torch.arange(len(sentences), device=rows.device)).all()
        )
        return replace(self if same else self.select(sentences), rows=index)


class UnivalEncoder(FairseqEncoder):
    """Embeds text and media and encodes them together.

    Args:
        cfg: the model's configuration.
        dictionary: the vocabulary's dictionary.
        embed_tokens: token embeddings, shared with the decoder.
        feed_forward: makes the feed-forward of every layer.
    """

    def __init__(
        self, cfg: UnivalConfig, dictionary: Any, embed_tokens: TokenEmbeddings, feed_forward: FeedForwardFactory = FeedForward
    ):
        super().__init__(dictionary)
        stack = encoder_stack(cfg)
        dim = stack.embed_dim
        self.cfg = cfg
        self.num_heads = stack.attention_heads
        self.bias_scale = (dim // self.num_heads * stack.attn_scale_factor) ** -0.5
        self.embed_tokens = embed_tokens
        self.padding_idx: int = dictionary.pad()
        self.layernorm_embedding = nn.LayerNorm(dim)
        kinds = {name: media_of(name) for name in cfg_modalities(cfg)}
        self.types = {name: kind.type_row if cfg.add_mm_type_embedding else MEDIA_TYPE for name, kind in kinds.items()}
        rows = [MEDIA_TYPES] if cfg.add_mm_type_embedding else [MEDIA_TYPE]
        self.type_embedding = nn.Embedding(1 + max([*rows, *self.types.values()]), dim)
        self.media = nn.ModuleDict({name: kind.embedding(cfg) for name, kind in kinds.items()})
        self.patch_layernorm_embedding = nn.LayerNorm(dim)
        self.embed_positions = nn.Embedding(cfg.max_source_positions + 2, dim)
        self.pos_ln = nn.LayerNorm(dim)
        self.image_pos_ln = nn.LayerNorm(dim)
        self.pos_q_linear = nn.Linear(dim, dim)
        self.pos_k_linear = nn.Linear(dim, dim)
        self.layers = nn.ModuleList(
            EncoderLayer(stack, stack.drop_path(i), feed_forward(stack, i)) for i in range(stack.layers)
        )
        self.layer_norm = nn.LayerNorm(dim)
        token_rows, image_rows = token_bucket_count(cfg.token_bucket_size), image_bucket_count(cfg.image_bucket_size)
        self.token_rel_pos_table_list = relative_tables(token_rows, self.num_heads, stack.layers)
        self.image_rel_pos_table_list = relative_tables(image_rows, self.num_heads, stack.layers)

    def embed_text(self, src_tokens: Tensor) -> Segment:
        """Token ids ``b x t`` -> the text segment."""
        length = src_tokens.size(1)
        ids = torch.arange(length, device=src_tokens.device)
        positions = self.embed_positions(ids)
        x = self.embed_tokens(src_tokens) + self.type_embedding.weight[TEXT_TYPE]
        if self.cfg.entangle_position_embedding:
            x = x + positions
        x = F.dropout(self.layernorm_embedding(x), self.cfg.dropout, self.training)
        return Segment(
            tokens=x,
            padding=src_tokens.eq(self.padding_idx),
            positions=self.pos_ln(positions),
            buckets=kept_token_buckets(length, self.cfg.token_bucket_size, src_tokens.device),
            modality="text",
        )

    def embed_media(self, item: dict[str, Any]) -> Segment:
        """One entry of ``media`` (see :meth:`forward`) -> its segment; an item that several rows share is embedded once."""
        name: str = item["modality"]
        if name not in self.media:
            has = ", ".join(self.media) or "only text"
            raise UserError(f"this model takes no {name}: it has {has} (train with --modalities to add it)")
        embedding = self.media[name]
        assert isinstance(embedding, MediaEmbedding)
        media = embedding(item["values"])
        tokens, ids = media.tokens, media.position_ids
        table = self.media_positions(embedding, ids)  # l x c
        order = item["order"] if "order" in item else self.sample_patches(name, tokens)
        here = table
        if order is not None:  # n x k: keep these patches of each item, in this order
            tokens = tokens.gather(1, order[..., None].expand(-1, -1, tokens.size(-1)))
            here = table[order]  # n x k x c
        x = tokens + self.type_embedding.weight[self.types[name]]
        if self.cfg.entangle_position_embedding:
            x = x + here
        x = F.dropout(self.patch_layernorm_embedding(x), self.cfg.dropout, self.training)
        rows = item["rows"]
        bucket_size = self.cfg.image_bucket_size
        if order is None:
            buckets = kept_image_buckets(ids, bucket_size)
        else:
            ids, table = ids[order[rows]], here[rows]
            buckets = image_bucket_rows(ids, ids, bucket_size)
        return Segment(
            tokens=x[rows],
            padding=torch.zeros(len(rows), x.size(1), dtype=torch.bool, device=x.device),
            positions=self.image_pos_ln(table),
            buckets=buckets,
            modality=name,
        )

    def media_positions(self, embedding: MediaEmbedding, ids: Tensor) -> Tensor:
        """Position embeddings (``l x c``) of a grid; interpolated from the original grid if this one has more patches."""
        side = self.cfg.orig_patch_image_size // 16
        bucket = self.cfg.image_bucket_size
        if not self.cfg.interpolate_position or not embedding.is_grid:
            return embedding.positions(ids)
        height, width = int((ids.max() - 1) // bucket) + 1, int(((ids - 1) % bucket).max()) + 1
        if height * width <= side * side:
            return embedding.positions(ids)
        original = embedding.positions(grid_positions(side, side, bucket).to(ids.device))
        original = original.T.unflatten(1, (side, side))[None]  # 1 x c x side x side
        resized = F.interpolate(original, size=(height, width), mode="bilinear", align_corners=False)
        return resized[0].flatten(1).T.repeat(ids.numel() // (height * width), 1)  # once per frame of a video

    def sample_patches(self, name: str, tokens: Tensor) -> Tensor | None:
        """In training, random patches of each item (n x k indices, without replacement); None: keep all."""
        option = media_of(name).sampled
        keep = self.cfg[option] if option else 0
        if not self.training or keep <= 0 or keep >= tokens.size(1):
            return None
        return torch.rand(tokens.shape[:2], device=tokens.device).argsort(dim=1)[:, :keep]

    def absolute_bias(self, positions: Tensor) -> Tensor:
        """``(W_q P)(W_k P)^T / sqrt(f d)``, f the scale factor: normalised positions P ``[b x] s x c`` -> ``[b x] h x s x s``."""
        q = split_heads(self.pos_q_linear(positions), self.num_heads)
        k = split_heads(self.pos_k_linear(positions), self.num_heads)
        return q @ k.transpose(-1, -2) * self.bias_scale

    def attributes(self, segments: Sequence[Segment]) -> TokenAttributes:
        """The token attributes for the feed-forwards; the same for all rows."""
        names = token_names(self.cfg)
        device = segments[-1].tokens.device
        kinds = [torch.full((1, s.tokens.size(1)), names.index(s.modality), device=device) for s in segments]
        return TokenAttributes(torch.cat(kinds, dim=1), names, is_target=False)

    def buckets(self, segments: Sequence[Segment]) -> Tensor:
        """Relative buckets of the whole source, ``[b x] s x s``; cached for the same grids and lengths."""
        blocks, are_text = tuple(s.buckets for s in segments), tuple(s.is_text for s in segments)
        join = join_buckets if any(block.dim() == 3 for block in blocks) else kept_joined_buckets
        rows = token_bucket_count(self.cfg.token_bucket_size), image_bucket_count(self.cfg.image_bucket_size)
        return join(*rows, blocks, are_text)

    def layer_bias(self, layer: int, absolute: Tensor, buckets: Tensor, with_media: bool) -> Tensor:
        """The absolute term plus a layer's relative term: ``[b x] h x s x s``."""
        table = joined_tables(self.token_rel_pos_table_list[layer], self.image_rel_pos_table_list[layer], with_media)
        return absolute + relative_bias(table, buckets).to(absolute.dtype)

    def forward(
        self,
        src_tokens: Tensor,
        src_lengths: Tensor | None = None,
        media: list[dict[str, Any]] | None = None,
        code_masks: Tensor | None = None,
        return_all_hiddens: bool = False,
    ) -> EncoderOut:
        """Encode rows with the same kinds of media.

        Args:
            src_tokens: ``b x t``, bos … eos, padded on the right.
            src_lengths: unused; part of fairseq's batches.
            media: one dict per media slot: ``modality`` (lower case); ``values``, the n items (see the legend in
                ``unival/models/__init__.py``); ``rows`` (b), the index of each row's item; optionally ``order`` (n x k), the patches to
                keep of each item.
            code_masks: ``b``, True: the target is image codes; passed on to the decoder.
            return_all_hiddens: keep the state before every layer and after the last one.

        Raises:
            UserError: media that the model does not take.
        """
        batch = src_tokens.size(0)
        segments = [self.embed_media(item) for item in media or []] + [self.embed_text(src_tokens)]
        padding = torch.cat([s.padding for s in segments], dim=1)  # b x s, True: padding
        x = torch.cat([s.tokens.to(segments[-1].tokens.dtype) for s in segments], dim=1)
        x = x.masked_fill(padding[..., None], 0.0)
        positions = [s.positions for s in segments]
        if any(p.dim() == 3 for p in positions):  # patches are sampled: every row has its own positions
            positions = [p if p.dim() == 3 else p.expand(batch, -1, -1) for p in positions]
        p = torch.cat(positions, dim=-2)
        absolute, buckets = self.absolute_bias(p), self.buckets(segments)
        mask = padding if padding.any() else None
        attributes = self.attributes(segments)
        auxiliary: Tensor | None = None
        mode = Mode.of(self.cfg)
        states = [x] if return_all_hiddens else []
        for i, layer in enumerate(self.layers):
            bias = self.layer_bias(i, absolute, buckets, bool(media))
            x, more = run_layer(layer, mode, x, attributes, bias, mask)
            auxiliary = add_auxiliary(auxiliary, more)
            if return_all_hiddens:
                states.append(x)
        return EncoderOut(self.layer_norm(x), padding, p, code_masks, states, auxiliary=auxiliary)

    def reorder_encoder_out(self, encoder_out: EncoderOut, new_order: Tensor) -> EncoderOut:
        """fairseq's hook for beams: see :meth:`EncoderOut.reorder`."""
        return encoder_out.reorder(new_order)

    def max_positions(self) -> int:
        """Longest source text in tokens."""
        return self.cfg.max_source_positions
