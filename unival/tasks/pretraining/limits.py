"""Candidate answers of several streams in one batch."""

from collections.abc import Sequence
from typing import Any

import torch

from unival.generation.trie import Trie
from unival.tasks.closed_set import limit_loss
from unival.vocab import Vocabulary


def limit_to_candidates(sample: dict[str, Any], tries: Sequence[Trie | None], vocabulary: Vocabulary) -> dict[str, Any]:
    """Restrict the loss of each row of a batch to the candidate answers of its stream, or to the range of its target's tokens.

    Args:
        sample: a batch.
        tries: of each stream in ``stream_names``; None: no candidates.
        vocabulary: the vocabulary.

    Returns:
        The batch with the constraints that the criterion knows, and ``num_candidates`` (b; 0: none) where there are candidates.
    """
    sample = limit_loss(sample, len(vocabulary))
    target, streams = sample["target"], sample["stream"]
    masks: torch.Tensor | None = None
    counts = torch.zeros_like(streams)
    for number, trie in enumerate(tries):
        rows = streams == number
        if trie is None or not bool(rows.any()):
            continue
        if masks is None:
            everything = torch.ones(1, 1, 1, dtype=torch.bool, device=target.device)
            masks = sample.get("constraint_masks", everything).expand(*target.shape, len(vocabulary)).clone()
        trie.to(target.device)
        masks[rows] &= trie.target_masks(target[rows], vocabulary.pad, len(vocabulary))
        counts[rows] = trie.size
    if masks is None:
        return sample
    if "outside" in sample:  # in evaluation: an answer that is no candidate has its loss over the whole vocabulary
        masks[sample["outside"]] = True
    return {**sample, "constraint_masks": masks, "num_candidates": counts}
