"""The closed set's prefix tree: single steps, batched walks and training masks against a plain search in the list."""

import pytest
import torch

from unival.errors import UserError
from unival.generation.trie import ROOT, Trie

BOS, PAD, EOS = 0, 1, 2
ANSWERS = [[15, 27], [15, 64, 9], [88], [88, 6, 41], [30, 12], [71]]


def allowed_after(prefix: list[int]) -> list[int]:
    """What the definition says, by looking through all answers."""
    whole = [[*answer, EOS] for answer in ANSWERS]
    following = {
        answer[len(prefix)] for answer in whole if answer[: len(prefix)] == prefix and len(answer) > len(prefix)
    }
    return sorted(following) or [EOS]


def test_next_is_children_or_eos() -> None:
    trie = Trie(ANSWERS, BOS, EOS)
    assert trie.next([BOS]) == [15, 30, 71, 88]
    assert trie.next([BOS, 88]) == [EOS, 6]
    assert trie.next([BOS, 15, 64]) == [9]
    assert trie.next([BOS, 15, 64, 9]) == [EOS]
    for off in ([BOS, 16], [BOS, 15, 64, 9, EOS], [BOS, 15, 64, 9, EOS, 15], [BOS, 999], [15], []):
        assert trie.next(off) == [EOS], off


def test_batched_walk_agrees_with_the_list() -> None:
    trie = Trie(ANSWERS, BOS, EOS)
    generator = torch.Generator().manual_seed(0)
    symbols = torch.tensor([EOS, 6, 9, 12, 15, 27, 30, 41, 64, 71, 88, 120])
    tokens = symbols[torch.randint(len(symbols), (300, 4), generator=generator)]
    for i, answer in enumerate(ANSWERS):
        tokens[i, : len(answer)] = torch.tensor(answer)
    states = torch.full((300,), ROOT)
    for t in range(5):
        rows, symbols_out = trie.children(states)
        for i in range(300):
            assert symbols_out[rows == i].tolist() == allowed_after(tokens[i, :t].tolist()), tokens[i, :t]
        if t < 4:
            states = trie.advance(states, tokens[:, t])


def test_masked_scores_keep_the_allowed_ones() -> None:
    trie = Trie(ANSWERS, BOS, EOS)
    scores = torch.randn(2, 100, generator=torch.Generator().manual_seed(0))
    states = trie.advance(torch.full((2,), ROOT), torch.tensor([88, 15]))
    masked = trie.mask_scores(scores, states)
    assert masked.isfinite().nonzero().tolist() == [[0, EOS], [0, 6], [1, 27], [1, 64]]
    assert torch.equal(masked[masked.isfinite()], scores[masked.isfinite()])


def test_size_length_and_repetition() -> None:
    trie = Trie([*ANSWERS, [71], (15, 27)], BOS, EOS)
    assert (trie.size, trie.max_length) == (6, 4)
    assert torch.equal(trie.keys, trie.keys.sort().values)


def test_training_masks_equal_the_original() -> None:
    """The masks of the original's VQA run (golden/losses.pt, vqa_constraint_masks): number and symbols per position."""
    target = torch.tensor([[1, 1, 1, 1, 15, 64, 9, 2], [1, 1, 88, 2, 1, 1, 1, 1]])
    masks = Trie(ANSWERS, BOS, EOS).target_masks(target, PAD, 157)
    expected = {
        (0, 4): [15, 30, 71, 88],
        (0, 5): [27, 64],
        (0, 6): [9],
        (0, 7): [2],
        (1, 2): [15, 30, 71, 88],
        (1, 3): [2, 6],
    }
    for row in range(2):
        for t in range(8):
            if (row, t) in expected:
                assert masks[row, t].nonzero().flatten().tolist() == expected[row, t]
            else:
                assert bool(masks[row, t].all()) == (row == 1 and t > 3)
                assert bool(masks[row, t].any()) == (row == 1 and t > 3)


def test_bad_sets_are_named() -> None:
    for answers, message in (([], "is empty"), ([[5], []], r"answer \[\]"), ([[5, EOS]], r"answer \[5, 2\]")):
        with pytest.raises(UserError, match=message):
            Trie(answers, BOS, EOS)
