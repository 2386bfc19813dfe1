"""Self-critical losses worked out by hand, and rewards."""

import argparse
import json
import math

import pytest
import torch

from tests.criterions.helpers import EOS, PAD, GivenLogits, make_dictionary
from unival.criterions.rewards import REWARDS, BoxReward, CiderReward
from unival.criterions.scst import GroundingScstConfig, GroundingScstCriterion, Rollouts, ScstConfig, ScstCriterion
from unival.errors import UserError
from unival.metrics.cider import CiderD
from unival.tasks.rollouts import baseline_of

SIZE = 12
HYPOTHESES = torch.tensor([[5, 6, EOS], [PAD, 7, EOS], [PAD, PAD, PAD]])  # the second has a prompt of one token
GOLD = torch.tensor([[PAD, PAD, PAD], [PAD, PAD, PAD], [8, EOS, PAD]])


def criterion(cls=ScstCriterion, config=ScstConfig, **options):
    task = argparse.Namespace(target_dictionary=make_dictionary(SIZE))
    return cls(task, config(**{"sentence_avg": False, **options}))


def rollouts(with_gold=True, advantages=(0.5, -2.0, 0.0), **limits):
    return Rollouts(
        hypotheses={"target": HYPOTHESES, "id": torch.tensor([0, 0, 0]), **limits},
        gold={"target": GOLD, "id": torch.tensor([0, 0, 0])} if with_gold else None,
        advantages=torch.tensor(advantages, dtype=torch.float64),
        count=2,
        reward=1.5,
        baseline=3.0,
    )


def losses(made, given, logits):
    batch = {"id": torch.tensor([0]), "net_input": {"groups": []}, "target": GOLD[2:], "rollouts": given}
    return made(GivenLogits(logits), batch)


def test_the_loss_and_its_gradient_are_those_of_the_formula():
    """Per token of the five of the hypotheses: -(advantage) ln p, and 3 times the smoothed cross-entropy, a mean of two tokens."""
    torch.manual_seed(0)
    logits = torch.randn(3, 3, SIZE, dtype=torch.float64, requires_grad=True) * 1
    made = criterion(lambda_reinforce=2.0, ce_weight=3.0, label_smoothing=0.1)
    loss, size, log = losses(made, rollouts(), logits)
    lp = logits.log_softmax(-1)
    policy = -0.5 * (lp[0, 0, 5] + lp[0, 1, 6] + lp[0, 2, EOS]) + 2.0 * (lp[1, 1, 7] + lp[1, 2, EOS])
    share = 0.1 / (SIZE - 1)
    entropy = -sum((0.9 - share) * lp[2, i, token] + share * lp[2, i].sum() for i, token in enumerate((8, EOS)))
    expected = 2.0 * policy + 3.0 * entropy * 5 / 2
    assert size == 5 and log["hypotheses"] == 2 and (log["reward"], log["baseline"]) == (1.5, 3.0)
    torch.testing.assert_close(loss, expected)
    torch.testing.assert_close(log["scst_loss"], policy.detach())
    (own,), (worked_out,) = torch.autograd.grad(loss, logits, retain_graph=True), torch.autograd.grad(expected, logits)
    torch.testing.assert_close(own, worked_out)
    onehot = torch.nn.functional.one_hot(torch.tensor(7), SIZE)
    torch.testing.assert_close(own[1, 1], 2.0 * -2.0 * (lp[1, 1].exp() - onehot).detach())  # lambda (r - b) (p - y)
    assert bool((own[1, 0] == 0).all()) and bool((own[2, 2] == 0).all())  # a prompt, and what follows the end


def test_log_probabilities_are_of_what_generation_may_say():
    logits = torch.randn(3, 3, SIZE, dtype=torch.float64)
    loss, _, _ = losses(criterion(), rollouts(with_gold=False, constraint_range=(5, 8)), logits)
    lp = logits[..., [0, 1, 2, 3, 5, 6, 7]].log_softmax(-1)
    expected = -0.5 * (lp[0, 0, 4] + lp[0, 1, 5] + lp[0, 2, EOS]) + 2.0 * (lp[1, 1, 6] + lp[1, 2, EOS])
    torch.testing.assert_close(loss, expected)


def test_without_rollouts_it_is_the_cross_entropy_and_sentences_can_be_counted():
    logits = torch.randn(1, 3, SIZE)
    made = criterion().eval()
    batch = {"id": torch.tensor([0]), "net_input": {"groups": []}, "target": GOLD[2:]}
    lp = logits.log_softmax(-1)
    loss, size, log = made(GivenLogits(logits), batch)
    assert size == 2 and float(loss.detach()) == pytest.approx(-float(lp[0, 0, 8] + lp[0, 1, EOS]), rel=1e-6) and "reward" not in log
    assert losses(criterion(sentence_avg=True), rollouts(), torch.randn(3, 3, SIZE))[1] == 2


def test_the_baseline_of_a_hypothesis_is_the_mean_of_the_others():
    assert baseline_of([1.0, 2.0, 6.0], "mean") == [4.0, 3.5, 1.5]
    assert baseline_of([3.0], "mean") == [3.0] and baseline_of([3.0, 1.0], "none") == [0.0, 0.0]


def test_boxes_are_rewarded_by_overlap_and_area_of_the_reference():
    small, large = "0,0,20,20", "0,0,200,200"
    near = (0.0, 0.0, 20.0, 11.0)  # 0.55 of the small one
    for area, expected in (("all", [1, 1]), ("small", [1, 0]), ("medium", [0, 0]), ("large", [0, 1])):
        reward = BoxReward(GroundingScstConfig(reward_area=area, sentence_avg=False))
        assert [reward(near, [small]), reward((0.0, 0.0, 200.0, 150.0), [large])] == expected, area
    assert BoxReward(GroundingScstConfig(acc_thresh=0.6, neg_reward=-1.0))(near, [small]) == -1.0
    published = BoxReward(GroundingScstConfig(min_area_size=100000.0, pos_reward=2.0))
    assert published((0.0, 0.0, 400.0, 300.0), ["0,0,400,300"]) == 2.0 and published(near, [small]) == 0.0
    both = BoxReward(GroundingScstConfig(min_area_size=300.0, max_area_size=500.0))  # the published medium area
    assert both(near, [small]) == 1.0 and both((0.0, 0.0, 200.0, 200.0), [large]) == 0.0
    assert both((20.0, 0.0, 0.0, 11.0), [small]) == 0.0  # swapped edges


def test_captions_are_rewarded_by_cider_d_of_the_training_table_or_a_file(tmp_path):
    table = [["a red square", "the square"], ["a blue circle"], ["a green square above"]]
    reward, metric = CiderReward(ScstConfig()), CiderD()
    assert reward.needs_table
    reward.fit(table)
    metric.fit(table)
    assert not reward.needs_table and reward("a red square", table[0]) == metric.score("a red square", table[0]) > 1
    file = tmp_path / "df.json"
    file.write_text(json.dumps({"documents": 9, "document_frequency": {"a": 9, "red": 1, "a red": 1}}))
    stored = CiderReward(ScstConfig(cider_df=str(file)))
    assert not stored.needs_table and stored("a red square", table[0]) != reward("a red square", table[0])
    with pytest.raises(UserError, match="no such file of document frequencies"):
        CiderReward(ScstConfig(cider_df="absent.json"))
    assert set(REWARDS) == {"cider", "box"}


@pytest.mark.parametrize(
    "options, message",
    [
        ({"use_rdrop": True}, "--use-rdrop does not go with"),
        ({"drop_worst_ratio": 0.1}, "--drop-worst-ratio does not go with"),
        ({"ce_weight": -1.0}, "--ce-weight -1.0 must not be negative"),
        ({"scst_args": "["}, "is not JSON"),
        ({"scst_args": "[1]"}, "expected an object"),
        ({"scst_args": '{"nbest": 2, "zero_shot": true}'}, "zero_shot is for evaluation"),
        ({"scst_args": '{"nbest": 2, "reject_below": -1}'}, "reject_below is for evaluation"),
        ({"scst_args": '{"beam": 5}'}, "needs 2 hypotheses per row or more"),
        ({"reward": "box", "acc_thresh": 0.0}, "--acc-thresh 0.0: must be"),
        ({"reward": "box", "min_area_size": 9.0, "max_area_size": 4.0}, "areas from 9 to 4 pixels"),
    ],
)
def test_settings_out_of_range_are_named(options, message):
    with pytest.raises(UserError, match=message.replace("[", r"\[")):
        criterion(**options)


def test_grounding_has_the_published_defaults():
    made = criterion(GroundingScstCriterion, GroundingScstConfig)
    assert (made.cfg.lambda_reinforce, made.cfg.ce_weight, made.cfg.baseline, made.options) == (5.0, 1.0, "none", {"beam": 5, "nbest": 1})
    assert isinstance(made.reward, BoxReward) and made.reward.high == math.inf
