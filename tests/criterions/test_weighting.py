"""Weights of tokens in training: normalisation by hand, and the number of candidates; those of streams are in ``test_streams.py``."""

import math

import pytest
import torch

from tests.criterions import updates
from tests.criterions.helpers import PAD, GivenLogits, make
from unival.criterions.weighting import NORMALIZATION
from unival.errors import UserError


@pytest.mark.parametrize("normalization", list(map(str, NORMALIZATION)))
def test_weights_of_tokens_in_an_update_of_two_batches_by_hand(normalization):
    assert updates.weights(normalization) == pytest.approx(updates.expected(updates.ONE_RANK, normalization))


def test_losses_and_sample_sizes_by_hand():
    """Losses 1 to 6 of six tokens in three rows, without which training would have nothing to log."""
    nats = torch.tensor([[1.0, 2, 0], [3, 0, 0], [4, 5, 6]], dtype=torch.float64)
    target = torch.tensor([[4, 4, PAD], [4, PAD, PAD], [4, 4, 4]])
    probabilities = torch.zeros(3, 3, 5, dtype=torch.float64)
    probabilities[..., 4] = torch.exp(-nats)
    probabilities[..., 0] = 1 - probabilities[..., 4]
    sizes = [{"src_tokens": part, "prev_output_tokens": part} for part in target.split([2, 1])]
    batch = {"target": target, "stream": torch.tensor([0, 1, 0]), "net_input": {"groups": sizes}}
    found = {}
    for normalization in map(str, NORMALIZATION):
        criterion = make(symbols=5, loss_normalization=normalization)
        loss, size, log = criterion(GivenLogits(probabilities.log()), batch)
        found[normalization] = round(loss.item(), 6), size
        assert float(log["loss"]) == float(loss) and float(log["nll_loss"]) == pytest.approx(21) and log["ntokens"] == 6
        each = criterion(GivenLogits(probabilities.log()), batch, reduce=False)[0]
        assert each.shape == (6,) and float(each.sum()) == pytest.approx(float(loss))
        assert criterion.eval()(GivenLogits(probabilities.log()), batch)[1] == 6, "validation counts tokens"
    assert found == {"token": (21, 6), "group": (2 + 5, 1), "example": (1.5 + 3 + 5, 3), "stream": (18 / 5 + 3, 2)}
    nothing = {**batch, "target": torch.full_like(target, PAD)}
    for normalization in map(str, NORMALIZATION):
        loss, size, _ = make(symbols=5, loss_normalization=normalization)(GivenLogits(probabilities.log()), nothing)
        assert (float(loss), size) == (0, 0), normalization


def test_a_guessing_model_pays_the_same_whatever_it_chooses_from():
    """One nat per token, for the whole vocabulary, a range, and candidate answers; the row's number counts, not that of next tokens."""
    batch = {"target": torch.tensor([[5, 6], [6, PAD]]), "net_input": {"groups": [{}]}}
    guessing = GivenLogits(torch.zeros(2, 2, 16, dtype=torch.float64))
    criterion = make(symbols=16, scale_by_candidates=True)
    assert float(criterion(guessing, batch)[0]) == pytest.approx(3)
    assert float(criterion(guessing, {**batch, "constraint_range": (4, 8)})[0]) == pytest.approx(3)
    candidates = {**batch, "num_candidates": torch.tensor([100, 0])}
    assert float(criterion(guessing, candidates)[0]) == pytest.approx(2 * math.log(16) / math.log(100) + 1)
    assert float(criterion.eval()(guessing, candidates)[0]) == pytest.approx(3 * math.log(16))
    masks = torch.zeros(2, 2, 16, dtype=torch.bool)
    masks[:, :, 5:7] = masks[0, 1, 7:9] = True
    found = criterion.train()(guessing, {**batch, "constraint_masks": masks})
    assert float(found[0]) == pytest.approx(3)
    masks[0, 0, 6] = False  # a single choice costs nothing, and is not divided by ln 1
    assert float(criterion(guessing, {**batch, "constraint_masks": masks})[0]) == pytest.approx(2)


def test_sentences_are_counted_once():
    with pytest.raises(UserError, match="--sentence-avg divides by sentences: leave it out with --loss-normalization group"):
        make(sentence_avg=True, loss_normalization="group")
