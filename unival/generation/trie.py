"""Prefix tree (trie) of candidate answers, in flat tensors: all beams of a batch advance without a Python loop.

A state is a node of the tree; it stands for the tokens read since bos. The children of state ``i`` are the entries
``first[i]`` to ``first[i + 1]`` (exclusive) of ``tokens`` (ascending) and ``targets`` (their states). A token that leaves the tree
leads to the state ``off``, which allows eos only.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

import torch
from torch import Tensor

from unival.errors import UserError

ROOT = 0


class Trie:
    """Prefix tree of the sequences bos, answer, eos.

    Args:
        answers: token ids of each candidate answer, without bos and eos; repeated answers are counted once.
        bos: id of the start token.
        eos: id of the end token.

    Attributes:
        answers: the token ids of the different answers.
        size: number of different answers.
        max_length: length of the longest answer, with eos and without bos.
        off: state after a token that leaves the tree.

    Raises:
        UserError: no answers, or an answer that is empty or has bos or eos inside.
    """

    def __init__(self, answers: Iterable[Sequence[int]], bos: int, eos: int) -> None:
        unique = {tuple(int(token) for token in answer) for answer in answers}
        if not unique:
            raise UserError("the set of candidate answers is empty: give at least one")
        for answer in unique:
            if not answer or bos in answer or eos in answer:
                raise UserError(
                    f"candidate answer {list(answer)} is empty or contains <s> ({bos}) or </s> ({eos})"
                )
        self.bos, self.eos = bos, eos
        self.answers = frozenset(unique)
        self.size = len(unique)
        self.max_length = 1 + max(len(answer) for answer in unique)
        children = _nodes([*answer, eos] for answer in sorted(unique))
        self.off = len(children)
        children.append({eos: self.off})
        counts = torch.tensor([len(node) for node in children])
        self.first = torch.cat([torch.zeros(1, dtype=torch.long), counts.cumsum(0)])  # one entry per state, and the end
        edges = [edge for node in children for edge in sorted(node.items())]
        self.tokens = torch.tensor([token for token, _ in edges])
        self.targets = torch.tensor([target for _, target in edges])
        self.stride = int(self.tokens.max()) + 1
        # (state, token) as one ascending number, so that a child can be found by binary search
        self.keys = torch.repeat_interleave(torch.arange(len(children)), counts) * self.stride + self.tokens

    def to(self, device: torch.device) -> Trie:
        """Move the tensors to a device, in place."""
        for name in ("first", "tokens", "targets", "keys"):
            setattr(self, name, getattr(self, name).to(device))
        return self

    def next(self, prefix: Sequence[int]) -> list[int]:
        """Tokens that may follow a sequence.

        Args:
            prefix: token ids, starting with bos.

        Returns:
            Token ids, ascending; ``[eos]`` if the sequence is not a prefix of any answer.
        """
        if not prefix or prefix[0] != self.bos:
            return [self.eos]
        state = torch.tensor([ROOT], device=self.keys.device)
        for token in prefix[1:]:
            state = self.advance(state, torch.tensor([token], device=self.keys.device))
        return self.tokens[int(self.first[state]) : int(self.first[state + 1])].tolist()

    def advance(self, states: Tensor, tokens: Tensor) -> Tensor:
        """The states after one more token each.

        Args:
            states: n, int64.
            tokens: n, int64.

        Returns:
            The next states, n.
        """
        key = states * self.stride + tokens
        index = torch.searchsorted(self.keys, key).clamp_(max=self.keys.numel() - 1)
        # a token id above the largest one would collide with keys of the next state
        found = (self.keys[index] == key) & (tokens < self.stride)
        return torch.where(found, self.targets[index], self.off)

    def children(self, states: Tensor) -> tuple[Tensor, Tensor]:
        """Allowed next tokens of states.

        Args:
            states: n, int64.

        Returns:
            Two vectors of equal length: indices into ``states``, and token ids.
        """
        start = self.first[states]
        counts = self.first[states + 1] - start
        rows = torch.repeat_interleave(torch.arange(states.numel(), device=states.device), counts)
        # index of each entry among the children of its state
        within = torch.arange(rows.numel(), device=states.device) - (counts.cumsum(0) - counts)[rows]
        return rows, self.tokens[start[rows] + within]

    def mask_scores(self, scores: Tensor, states: Tensor) -> Tensor:
        """Set the scores (n x v) of tokens that are not allowed in the states (n) to -inf."""
        rows, tokens = self.children(states)
        masked = torch.full_like(scores, -math.inf)
        masked[rows, tokens] = scores[rows, tokens]
        return masked

    def target_masks(self, targets: Tensor, pad: int, size: int) -> Tensor:
        """Masks of the allowed tokens at each position of target answers: the ``constraint_masks`` of the criterion.

        Args:
            targets: b x t; each row is padding in place of a prompt without loss, then answer, eos and padding.
            pad: id of the padding token.
            size: number of tokens v.

        Returns:
            b x t x v, bool, True: allowed. All False in the prompt and all True after eos: these positions have no loss.
        """
        batch, length = targets.shape
        states = torch.full((batch,), ROOT, device=targets.device)
        started = torch.zeros(batch, dtype=torch.bool, device=targets.device)
        masks = torch.zeros(batch, length, size, dtype=torch.bool, device=targets.device)
        for t in range(length):
            real = targets[:, t].ne(pad)
            rows, tokens = self.children(states)
            live = real[rows]
            masks[rows[live], t, tokens[live]] = True
            masks[started & ~real, t] = True
            states = torch.where(real, self.advance(states, targets[:, t]), states)
            started |= real
        return masks


def _nodes(sequences: Iterable[Sequence[int]]) -> list[dict[int, int]]:
    """Children of every state as a dict token -> state, the root first."""
    nodes: list[dict[int, int]] = [{}]
    for sequence in sequences:
        state = ROOT
        for token in sequence[:-1]:
            if token not in nodes[state]:
                nodes[state][token] = len(nodes)
                nodes.append({})
            state = nodes[state][token]
        nodes[state][sequence[-1]] = -1  # eos ends the answer
    off = len(nodes)
    return [{token: off if target < 0 else target for token, target in node.items()} for node in nodes]
