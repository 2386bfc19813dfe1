"""A closed set of answers as a prefix tree in flat arrays: a whole batch of beams walks it without Python loops.

A state is a node: the tokens read since bos. The children of state s are entries ``first[s]`` to ``first[s + 1]`` of
``tokens`` (ascending) and ``targets``. Tokens that leave the tree lead to the state ``off``, where eos is the only
continuation.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

import torch
from torch import Tensor

from unival.errors import UserError

ROOT = 0


class Trie:
    """Prefix tree of bos + answer + eos.

    Args:
        answers: token ids of each answer, without bos and eos; repeated answers count once.
        bos, eos: ids of both tokens.

    Raises:
        UserError: no answers, or an answer without tokens or with bos or eos inside.
    """

    def __init__(self, answers: Iterable[Sequence[int]], bos: int, eos: int) -> None:
        unique = {tuple(int(token) for token in answer) for answer in answers}
        if not unique:
            raise UserError("the closed set of answers is empty: give at least one answer")
        for answer in unique:
            if not answer or bos in answer or eos in answer:
                raise UserError(
                    f"answer {list(answer)} of the closed set is empty or holds <s> ({bos}) or </s> ({eos})"
                )
        self.bos, self.eos = bos, eos
        self.size = len(unique)
        self.max_length = 1 + max(len(answer) for answer in unique)  # with eos, without bos
        children = _nodes([*answer, eos] for answer in sorted(unique))
        self.off = len(children)
        children.append({eos: self.off})
        counts = torch.tensor([len(node) for node in children])
        self.first = torch.cat([torch.zeros(1, dtype=torch.long), counts.cumsum(0)])  # states + 1
        edges = [edge for node in children for edge in sorted(node.items())]
        self.tokens = torch.tensor([token for token, _ in edges])
        self.targets = torch.tensor([target for _, target in edges])
        self.stride = int(self.tokens.max()) + 1
        # (state, token) as one ascending number: a child is found by binary search
        self.keys = torch.repeat_interleave(torch.arange(len(children)), counts) * self.stride + self.tokens

    def to(self, device: torch.device) -> Trie:
        """Move the arrays to a device (in place)."""
        for name in ("first", "tokens", "targets", "keys"):
            setattr(self, name, getattr(self, name).to(device))
        return self

    def next(self, prefix: Sequence[int]) -> list[int]:
        """Tokens that may follow bos + ..., ascending; [eos] where the prefix is no beginning of an answer."""
        if not prefix or prefix[0] != self.bos:
            return [self.eos]
        state = torch.tensor([ROOT], device=self.keys.device)
        for token in prefix[1:]:
            state = self.advance(state, torch.tensor([token], device=self.keys.device))
        return self.tokens[int(self.first[state]) : int(self.first[state + 1])].tolist()

    def advance(self, states: Tensor, tokens: Tensor) -> Tensor:
        """The states after reading one token each (both N)."""
        key = states * self.stride + tokens
        index = torch.searchsorted(self.keys, key).clamp_(max=self.keys.numel() - 1)
        # a token beyond the largest one would run into the next state's numbers
        found = (self.keys[index] == key) & (tokens < self.stride)
        return torch.where(found, self.targets[index], self.off)

    def children(self, states: Tensor) -> tuple[Tensor, Tensor]:
        """All allowed continuations of N states as two vectors: index into ``states``, token."""
        start = self.first[states]
        counts = self.first[states + 1] - start
        rows = torch.repeat_interleave(torch.arange(states.numel(), device=states.device), counts)
        # position of each entry within its row's run of children
        within = torch.arange(rows.numel(), device=states.device) - (counts.cumsum(0) - counts)[rows]
        return rows, self.tokens[start[rows] + within]

    def mask_scores(self, scores: Tensor, states: Tensor) -> Tensor:
        """Scores N x V with everything that may not follow set to -inf."""
        rows, tokens = self.children(states)
        masked = torch.full_like(scores, -math.inf)
        masked[rows, tokens] = scores[rows, tokens]
        return masked

    def target_masks(self, targets: Tensor, pad: int, size: int) -> Tensor:
        """What may be predicted at each position of gold answers: the ``constraint_masks`` of the criterion.

        Args:
            targets: B x T: pad, …, pad, answer, eos, pad, …: a prompt without loss may come first.
            pad: id of the padding token.
            size: number of tokens V.

        Returns:
            B x T x V bool; all False at the prompt's positions, all True after eos (neither has a loss).
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
    """Children (token -> state) of every state, the root first."""
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
