"""Many targets of the same source in one pass: the decoder over a prefix tree, so that a common prefix is computed once.

The nodes of the tree are tokens, given in preorder and block by block. A node attends to the target's given prefix, to the nodes on its
path and to itself; its position is that of its depth. Keys and values of the source are those that :class:`UnivalDecoder` keeps per
sentence. A block needs only the path of its first node from earlier blocks, so memory is bounded by the size of a block.

Legend: b sentences, n nodes of a block, p tokens of the given prefix (bos included, padded on the right), a nodes on a block's path.
"""

from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor

from unival.models.bias import padding_mask, relative_bias
from unival.models.decoder import UnivalDecoder
from unival.models.encoder import EncoderOut


@dataclass(frozen=True)
class Block:
    """Consecutive nodes of a prefix tree in preorder.

    Attributes:
        tokens: n, their token ids.
        depths: a + n, depths of the nodes on the path of the first node, root excluded, then of the nodes (a child of the root: 1).
        visible: n x (a + n), bool, True where a node attends: its ancestors and itself.
        kept: indices into the a + n of the nodes on the path of the next block's first node.
    """

    tokens: Tensor
    depths: Tensor
    visible: Tensor
    kept: Tensor


class TreeDecoder:
    """One walk through a prefix tree below the given prefixes of a batch's targets.

    Args:
        decoder: the model's decoder.
        encoder_out: the encoded source of b sentences.
        prefixes: b x p token ids, bos first; the last real token of each is the root of the tree.
        lengths: b, real tokens of each, without bos.
        deepest: depth of the deepest node.

    Attributes:
        root: features of the root, b x 1 x c.
    """

    def __init__(self, decoder: UnivalDecoder, encoder_out: EncoderOut, prefixes: Tensor, lengths: Tensor, deepest: int) -> None:
        self.decoder = decoder
        state: dict[str, Any] = {}
        decoder.reserve(state, prefixes.size(1))
        features, _ = decoder(prefixes, encoder_out, incremental_state=state, features_only=True)
        rows = torch.arange(len(lengths), device=lengths.device)
        self.root = features[rows, lengths].unsqueeze(1)
        past = decoder.state(state).past
        assert past is not None
        self.prefix = past  # layers x 2 x b x heads x p x d
        self.path = past[..., :0, :]  # likewise, of the nodes on the path
        self.kv: list[tuple[Tensor, Tensor]] = encoder_out.cross["kv"]
        self._prepare_biases(encoder_out, lengths, deepest)

    def _prepare_biases(self, encoder_out: EncoderOut, lengths: Tensor, deepest: int) -> None:
        """Biases by depth: those of nodes follow by their depths. A batch axis is there where the prefixes' lengths differ."""
        decoder, p = self.decoder, self.prefix.size(4)
        offsets = lengths[:1] if bool((lengths == lengths[0]).all()) else lengths  # o: 1 or b
        depths = torch.arange(1, deepest + 1, device=lengths.device)
        columns = torch.arange(p, device=lengths.device)
        nodes = offsets[:, None] + depths  # o x depths, positions
        keys = torch.cat([columns.expand(len(offsets), p), nodes], 1)  # o x (p + depths)
        known = decoder.target_positions("text", p + deepest)
        absolute = known.absolute[:, nodes[:, :, None], keys[:, None, :]].transpose(0, 1)  # o x heads x depths x (p + depths)
        beyond = torch.cat([columns > offsets[:, None], torch.zeros_like(nodes, dtype=torch.bool)], 1)  # the prefix's padding
        absolute = absolute.masked_fill(beyond[:, None, None, :], float("-inf"))
        buckets = known.buckets[nodes[:, :, None], keys[:, None, :]]
        tables = [table.get_parameter("weight") for table in decoder.token_rel_pos_table_list]
        self.self_biases = [absolute + relative_bias(table, buckets).to(absolute.dtype) for table in tables]
        queries = known.cross_queries[:, nodes].transpose(0, 1)  # o x heads x depths x d
        cross = queries @ encoder_out.cross["positions"].transpose(-1, -2) * decoder.bias_scale
        if encoder_out.padding.any():
            cross = cross + padding_mask(encoder_out.padding, cross.dtype)
        self.cross_bias = cross  # [b or 1] x heads x depths x s
        self.raw = known.raw[nodes]  # o x depths x c

    def features(self, block: Block) -> Tensor:
        """Features of the nodes of the next block, b x n x c, which :meth:`UnivalDecoder.output_layer` projects to logits."""
        decoder, (b, p) = self.decoder, (self.root.size(0), self.prefix.size(4))
        own = block.depths[-len(block.tokens) :] - 1
        x = decoder.embed(block.tokens.unsqueeze(0), None, {"text": self.raw[:, own]}).expand(b, -1, -1)
        columns = torch.cat([torch.arange(p, device=own.device), p - 1 + block.depths])
        hidden = torch.cat([block.visible.new_zeros(len(own), p), ~block.visible], 1)
        cross_bias = self.cross_bias[:, :, own]
        attributes = decoder.attributes(None, x.device)
        paths: list[Tensor] = []
        for i, layer in enumerate(decoder.layers):
            bias = self.self_biases[i][:, :, own[:, None], columns].masked_fill(hidden, float("-inf"))
            extend = partial(self._extend, i, block.kept, paths)
            x, _ = layer(x, attributes, bias, self.kv[i], cross_bias, None, extend)
        self.path = torch.stack(paths)
        return decoder.layer_norm(x)

    def _extend(self, layer: int, kept: Tensor, paths: list[Tensor], k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """Keys and values b x heads x n x d of a block, behind those of prefix and path; those on the next path are noted."""
        nodes = torch.cat([self.path[layer], torch.stack([k, v])], 3)
        paths.append(nodes.index_select(3, kept))
        k, v = torch.cat([self.prefix[layer], nodes], 3)
        return k, v
