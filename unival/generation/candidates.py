"""All candidate answers scored in batched passes over their prefix tree, instead of a search.

The score of an answer is the sum of the log-probabilities of its tokens and of the end of the sentence, given the source and the
target's given prefix. A common prefix of answers is computed once; the source's keys and values once per sentence, whatever the number
of answers; rows of a batch share the tree. Only the logits of tokens that may follow are computed, since all others are masked before
the softmax (zero-shot: after it, which takes them all).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from unival.errors import UserError, counted
from unival.generation.trie import ROOT, Trie
from unival.models.decoder import UnivalDecoder
from unival.models.tree import Block, TreeDecoder

LOGITS_AT_A_TIME = 1 << 25  # zero-shot: logits of the whole vocabulary that are held at once


class PrefixTree:
    """The nodes of a trie in preorder, which is the order of its states, and its edges.

    Args:
        trie: the candidate answers.

    Attributes:
        size: number of nodes, the root included.
        parents, depths, tokens, ends: of every node (tensors of ``size``; of the root: 0, 0, bos, ``size``); ``ends`` is the first node
            after those of its subtree.
        sources, labels: of every edge the node that it leaves and its token; the edges of a node are contiguous, the nodes' in order.
        entries: of every node but the root, the edge that leads to it.
        finals: of every answer the edge of its eos, in the order of the answers' tokens.
    """

    def __init__(self, trie: Trie) -> None:
        self.size = trie.off
        counts = (trie.first[1:] - trie.first[:-1])[: self.size]
        self.first: list[int] = trie.first.tolist()  # the first edge of every node
        nodes = torch.arange(self.size, device=counts.device)
        self.sources = torch.repeat_interleave(nodes, counts)
        self.labels, targets = (part[: len(self.sources)] for part in (trie.tokens, trie.targets))
        inner = targets != trie.off
        (self.finals,) = (~inner).nonzero(as_tuple=True)
        # states are numbered in preorder: sorting by the state that an edge leads to gives the entries of nodes 1, 2, …
        edges = inner.nonzero().squeeze(1)
        self.entries = edges[targets[edges].argsort()]
        self.parents = torch.cat([nodes[:1], self.sources[self.entries]])
        self.tokens = torch.cat([nodes.new_tensor([trie.bos]), self.labels[self.entries]])
        parents, depths, ends = self.parents.tolist(), [0] * self.size, list(range(1, self.size + 1))
        for node in range(1, self.size):
            depths[node] = depths[parents[node]] + 1
        for node in reversed(range(1, self.size)):
            ends[parents[node]] = max(ends[parents[node]], ends[node])
        self.depths, self.ends = nodes.new_tensor(depths), nodes.new_tensor(ends)
        self.deepest = max(depths)

    def blocks(self, most: int) -> Iterator[tuple[slice, Block]]:
        """The nodes below the root in blocks of at most ``most``, each with the slice of its nodes."""
        path = self.tokens.new_zeros(0)
        for start in range(1, self.size, most):
            end = min(start + most, self.size)
            known = torch.cat([path, torch.arange(start, end, device=path.device)])
            nodes = known[len(path) :, None]
            visible = (known <= nodes) & (nodes < self.ends[known])
            is_kept = (known < end) & (end < self.ends[known])  # ancestors of the next block's first node
            kept = is_kept.nonzero().squeeze(1)
            yield slice(start, end), Block(self.tokens[start:end], self.depths[known], visible, kept)
            path = known[kept]

    def edges(self, nodes: slice) -> slice:
        """The edges that leave consecutive nodes."""
        return slice(self.first[nodes.start], self.first[nodes.stop])

    def answer_scores(self, edge_scores: Tensor) -> Tensor:
        """Scores of edges ``b x edges`` -> sums on the paths of the answers, ``b x answers``."""
        sums = torch.zeros_like(edge_scores[:, :1]).repeat(1, self.size)
        entered = edge_scores[:, self.entries]  # of node i + 1
        for depth in range(1, self.deepest + 1):
            nodes = (self.depths == depth).nonzero().squeeze(1)
            sums[:, nodes] = sums[:, self.parents[nodes]] + entered[:, nodes - 1]
        return sums[:, self.sources[self.finals]] + edge_scores[:, self.finals]

    def path(self, answer: int) -> list[int]:
        """The edges of an answer, that of its eos last."""
        final = int(self.finals[answer])
        edges, node = [final], int(self.sources[final])
        while node != ROOT:
            edges.append(int(self.entries[node - 1]))
            node = int(self.parents[node])
        return edges[::-1]


class CandidateScorer:
    """Scores of all candidate answers.

    Args:
        trie: the candidate answers.
        pad: id of the padding token.
        zero_shot: mask what is no candidate after the softmax, not before it: scores stay those of the whole vocabulary.
        temperature: logits are divided by it.
        tokens_at_a_time: tokens of answers that are computed in one pass, over all rows.
    """

    def __init__(self, trie: Trie, pad: int, zero_shot: bool, temperature: float, tokens_at_a_time: int) -> None:
        self.trie = trie
        self.pad = pad
        self.zero_shot = zero_shot
        self.temperature = temperature
        self.tokens_at_a_time = tokens_at_a_time
        self.tree: PrefixTree | None = None

    def edge_scores(
        self, decoders: Sequence[Any], encoder_outs: Sequence[Any], prompts: Tensor, lengths: Tensor
    ) -> tuple[PrefixTree, Tensor]:
        """Log-probabilities of every edge of the tree, ``b x edges``, for an ensemble the logarithm of the mean probability.

        Args:
            decoders, encoder_outs: of every model.
            prompts: b x p token ids of the targets' given prefixes, without bos, padded on the right.
            lengths: b, their real tokens.
        """
        if self.tree is None or self.tree.tokens.device != prompts.device:
            self.tree = PrefixTree(self.trie.to(prompts.device))
        prefixes = torch.cat([prompts.new_full((len(prompts), 1), self.trie.bos), prompts], 1)
        found = []
        for decoder, encoder_out in zip(decoders, encoder_outs, strict=True):
            assert isinstance(decoder, UnivalDecoder), "candidate answers are scored by UnivalDecoder's attention over a tree"
            walk = TreeDecoder(decoder, encoder_out, prefixes, lengths, self.tree.deepest)
            parts = [self._edges(decoder, walk.root, slice(0, 1))]
            for nodes, block in self.tree.blocks(max(1, self.tokens_at_a_time // len(prompts))):
                parts.append(self._edges(decoder, walk.features(block), nodes))
            found.append(torch.cat(parts, 1))
        if len(found) == 1:
            return self.tree, found[0]
        return self.tree, torch.logsumexp(torch.stack(found), 0) - math.log(len(found))

    def _edges(self, decoder: UnivalDecoder, features: Tensor, nodes: slice) -> Tensor:
        """Features b x n x c of consecutive nodes -> log-probabilities of the edges that leave them, b x edges."""
        assert self.tree is not None
        edges = self.tree.edges(nodes)
        sources = self.tree.sources[edges] - nodes.start
        tokens, columns = torch.unique(self.tree.labels[edges], return_inverse=True)
        logits = self._scaled(decoder.output_layer(features, tokens))
        chosen = logits[:, sources, columns]
        if self.zero_shot:
            return chosen - self._normaliser(decoder, features)[:, sources]
        forbidden = torch.ones(logits.shape[1:], dtype=torch.bool, device=logits.device)
        forbidden[sources, columns] = False
        return chosen - logits.masked_fill(forbidden, -math.inf).logsumexp(2)[:, sources]

    def _normaliser(self, decoder: UnivalDecoder, features: Tensor) -> Tensor:
        """Logarithm of the sum of exponentials of all logits: b x n x c -> b x n."""
        size = max(1, LOGITS_AT_A_TIME // (len(features) * len(decoder.dictionary)))
        return torch.cat([self._scaled(decoder.output_layer(part)).logsumexp(2) for part in features.split(size, 1)], 1)

    def _scaled(self, logits: Tensor) -> Tensor:
        """Logits by the temperature, in float32 at least."""
        logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
        return logits if self.temperature == 1 else logits / self.temperature

    def hypotheses(
        self, models: Sequence[Any], encoder_outs: Sequence[Any], prompts: Tensor | None, lengths: Tensor, nbest: int
    ) -> list[list[dict[str, Any]]]:
        """The best answers of every row, best first, as fairseq's generators give hypotheses.

        Tokens and positional scores begin with the prompt's, whose scores are 0: they are not part of the answer.
        """
        if prompts is None:
            prompts = lengths.new_zeros(len(lengths), 0)
        tree, edge_scores = self.edge_scores([model.decoder for model in models], encoder_outs, prompts, lengths)
        scores, answers = tree.answer_scores(edge_scores).sort(descending=True, stable=True)
        rows = []
        for row, length in enumerate(lengths.tolist()):
            prompt = prompts[row, :length]
            beams = []
            for score, answer in zip(scores[row, :nbest], answers[row, :nbest].tolist(), strict=True):
                edges = tree.path(answer)
                own = edge_scores[row, edges]
                beams.append(
                    {
                        "tokens": torch.cat([prompt, tree.labels[edges]]),
                        "score": score,
                        "attention": None,
                        "alignment": torch.empty(0),
                        "positional_scores": torch.cat([own.new_zeros(length), own]),
                    }
                )
            rows.append(beams)
        return rows

    def check_room(self, longest_prompt: int, positions: int) -> None:
        """Raise a UserError where the longest prompt and the longest answer behind it have no room in the model's positions."""
        longest = self.trie.max_length - 1
        if longest_prompt + longest > positions:
            raise UserError(
                f"the longest prompt has {counted(longest_prompt, 'token')}, the longest candidate answer {longest}: together they exceed"
                f" the {positions} positions of the model"
            )
