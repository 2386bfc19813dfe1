"""Only what has a loss is projected to the vocabulary, and only to what may be predicted."""

import argparse

import pytest
import torch
from fairseq.criterions.cross_entropy import CrossEntropyCriterion
from fairseq.criterions.label_smoothed_cross_entropy import LabelSmoothedCrossEntropyCriterion

from tests import tiny
from unival.criterions.encouraging import EncouragingConfig, EncouragingCriterion
from unival.criterions.label_smoothed import LabelSmoothedConfig, LabelSmoothedCriterion, select_features
from unival.errors import UserError


@pytest.fixture(scope="module")
def vocab(tmp_path_factory):
    return tiny.vocabulary(tmp_path_factory.mktemp("vocab"))


@pytest.fixture
def projected(vocab, monkeypatch):
    """A model that notes what goes into its output projection, and the sizes of the logits."""
    model = tiny.model(vocab, modalities="").double()
    project, sizes = model.output_layer, []

    def note(features, tokens=None):
        logits = project(features, tokens)
        sizes.append((tuple(features.shape), logits.size(-1)))
        return logits

    monkeypatch.setattr(model, "output_layer", note)
    return model, sizes


def batch(vocab, low, high):
    """Two rows with 4 and 2 tokens with loss, prompts and padding without; targets of ids from low to high, and eos."""
    generator = torch.Generator().manual_seed(0)
    target = torch.full((2, 7), vocab.pad)
    target[0, 2:5], target[0, 5] = torch.randint(low, high, (3,), generator=generator), vocab.eos
    target[1, 1], target[1, 2] = high - 1, vocab.eos
    source = torch.randint(4, len(vocab), (2, 5), generator=generator)
    prev = torch.randint(4, len(vocab), (2, 7), generator=generator)
    group = {"src_tokens": source, "src_lengths": None, "prev_output_tokens": prev}
    return {"target": target, "id": torch.tensor([7, 9]), "net_input": {"groups": [group]}}


def criterion_of(vocab, kind="ls", **options):
    task = argparse.Namespace(target_dictionary=vocab.dictionary)
    options = {"sentence_avg": False, "label_smoothing": 0.1, "report_accuracy": True, **options}
    if kind == "ls":
        return LabelSmoothedCriterion(task, LabelSmoothedConfig(**options))
    return EncouragingCriterion(task, EncouragingConfig(**options))


def test_padding_and_prompts_are_not_projected(vocab, projected):
    model, sizes = projected
    loss = criterion_of(vocab)(model, batch(vocab, 4, len(vocab)))[0]
    assert sizes == [((1, 6, 32), len(vocab))]
    loss.backward()
    gradient = model.get_parameter("encoder.embed_tokens.weight").grad
    assert gradient.layout == torch.strided and (gradient != 0).any(1).all()


@pytest.mark.parametrize("kind", ["ls", "el"])
def test_a_range_and_a_closed_set_project_what_they_leave(vocab, projected, kind):
    """As many columns as there are tokens to choose from; loss, accuracy and gradients are those of a mask over all logits."""
    model, sizes = projected
    sample = batch(vocab, 40, 50)
    masks = torch.zeros(2, 7, len(vocab), dtype=torch.bool)
    masks[..., :4] = True
    masks[..., 40:50] = True
    ways = [({"constraint_range": "40,50"}, {}, 14), ({}, {"constraint_masks": masks}, 14)]
    ways += [({"constraint_range": "40,60"}, {"constraint_masks": masks}, 14)]
    found = []
    for options, more, width in ways:
        sizes.clear()
        model.zero_grad()
        loss, _, log = criterion_of(vocab, kind, **options)(model, {**sample, **more})
        assert sizes == [((1, 6, 32), width)]
        loss.backward()
        found.append((loss.detach(), log["n_correct"], model.get_parameter("encoder.embed_tokens.weight").grad.clone()))
    for other in found[1:]:
        torch.testing.assert_close(other, found[0], rtol=1e-12, atol=1e-12)
    weight, target = model.get_parameter("encoder.embed_tokens.weight"), sample["target"]
    with torch.no_grad():  # the nll by hand
        features = model(**sample["net_input"], features_only=True)[0][target != vocab.pad]
        logits = (features @ weight.T).masked_fill(~masks[0, 0], -torch.inf)
        nll = torch.nn.functional.cross_entropy(logits, target[target != vocab.pad], reduction="sum")
    assert float(log["nll_loss"]) == pytest.approx(float(nll), rel=1e-12)


def test_different_sets_per_token_and_a_target_outside(vocab, projected):
    """Each token has its own set; the columns are those of all of them."""
    model, sizes = projected
    sample = batch(vocab, 40, 50)
    masks = torch.nn.functional.one_hot(sample["target"], len(vocab)).bool()
    masks[0, 2, 60] = True
    log = criterion_of(vocab)(model, {**sample, "constraint_masks": masks})[2]
    assert sizes[0][1] == len(set(sample["target"].unique().tolist()) - {vocab.pad}) + 1
    logits = model(**sample["net_input"])[0].detach()[0, 2, [int(sample["target"][0, 2]), 60]]
    assert float(log["nll_loss"]) == pytest.approx(-float(logits.log_softmax(0)[0]))  # the others had no choice
    for outside in (60, 61):  # allowed for another token only, allowed for none
        wrong = sample["target"].clone()
        wrong[1, 1] = outside
        with pytest.raises(UserError, match=r"row 9: target token .* \(position 1\) is outside its candidate answers"):
            criterion_of(vocab)(model, {**sample, "target": wrong, "constraint_masks": masks})


def test_groups_of_a_batch_are_selected_from_one_after_another():
    """Two groups of another length each, two copies of each: as from one tensor of all rows."""
    features = torch.arange(2 * 3 * 4 * 2.0).view(2, 3, 4, 2)  # copies x rows x t x c
    counts = torch.tensor([[True, False, True, False], [False, True, False, False], [True, True, True, True]])
    whole = select_features([features.flatten(0, 1)], counts)
    groups = [features[:, :2, :3].flatten(0, 1), features[:, 2:].flatten(0, 1)]
    assert torch.equal(select_features(groups, counts), whole) and torch.equal(whole, features[:, counts])
    with pytest.raises(AssertionError, match="end before the target"):
        select_features([groups[0][:, :2], groups[1]], counts)
    with pytest.raises(AssertionError, match="other rows than the target"):
        select_features([groups[0]], counts)


def test_fairseqs_own_criterions_take_the_model(vocab):
    """They get all logits; the smoothed loss is ours."""
    model, sample = tiny.model(vocab, modalities="").double(), batch(vocab, 4, len(vocab))
    sample["ntokens"] = 6
    task = argparse.Namespace(target_dictionary=vocab.dictionary)
    nll = CrossEntropyCriterion(task, False)(model, sample)[0]
    loss = LabelSmoothedCrossEntropyCriterion(task, False, 0.1)(model, sample)[0]
    ours, _, log = criterion_of(vocab)(model, sample)
    assert (float(loss.detach()), float(nll.detach())) == (pytest.approx(float(ours.detach())), pytest.approx(float(log["nll_loss"])))
