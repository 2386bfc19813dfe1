"""The losses against hand-computed values and their own invariances."""

import argparse
import math
from typing import Any

import pytest
import torch
from fairseq.logging import metrics
from torch import Tensor

from tests.criterions.helpers import EOS, PAD, SYMBOLS, GivenLogits, make, make_dictionary, run
from unival.criterions.encouraging import TotalBonus, bonus
from unival.criterions.label_smoothed import LabelSmoothedCriterion, repeat_groups
from unival.errors import UserError

# Two tokens over the five symbols <s> <pad> </s> <unk> 0; probabilities written by hand.
PROBS = torch.tensor(
    [[[0.1, 0.1, 0.2, 0.1, 0.5], [0.2, 0.2, 0.4, 0.1, 0.1], [0.9, 0.1, 0.0, 0.0, 0.0]]], dtype=torch.float64
)
TARGET = torch.tensor([[4, 2, PAD]])


def test_by_hand_without_smoothing() -> None:
    loss, nll, size = run(make(symbols=5), PROBS.log(), TARGET)
    assert size == 2
    assert loss == nll == pytest.approx(-math.log(0.5) - math.log(0.4))


def test_by_hand_with_smoothing() -> None:
    loss, nll, _ = run(make(symbols=5, label_smoothing=0.2), PROBS.log(), TARGET)
    share = 0.2 / 4
    spread = -sum(math.log(p) for p in (0.1, 0.1, 0.2, 0.1, 0.5, 0.2, 0.2, 0.4, 0.1, 0.1))
    assert nll == pytest.approx(-math.log(0.5) - math.log(0.4))
    assert loss == pytest.approx((1 - 0.2 - share) * nll + share * spread)


def test_by_hand_constraint_masks() -> None:
    masks = torch.zeros(1, 3, 5, dtype=torch.bool)
    masks[0, 0, [3, 4]] = True  # p = 0.1 and 0.5 become 1/6 and 5/6
    masks[0, 1, 2] = True  # the only choice costs nothing
    loss, nll, _ = run(make(symbols=5, label_smoothing=0.2), PROBS.log(), TARGET, constraint_masks=masks)
    share = 0.2 / (2 - 1 + 1e-6)
    assert nll == pytest.approx(-math.log(5 / 6))
    assert loss == pytest.approx((1 - 0.2 - share) * nll - share * (math.log(5 / 6) + math.log(1 / 6)))


def test_by_hand_confidence_scales_a_row() -> None:
    logits, target = PROBS.log().repeat(2, 1, 1), TARGET.repeat(2, 1)
    conf = torch.tensor([0.25, 1.0])
    once, nll, _ = run(make(symbols=5, label_smoothing=0.2), PROBS.log(), TARGET)
    loss, nll2, size = run(make(symbols=5, label_smoothing=0.2), logits, target, conf=conf)
    assert size == 4
    assert (loss, nll2) == (pytest.approx(1.25 * once), pytest.approx(1.25 * nll))


def test_by_hand_bonus() -> None:
    p = torch.tensor([0.0, 0.5, 0.75, 0.9, 1.0], dtype=torch.float64)
    at_end = math.log(0.25)
    expected = [0.0, math.log(0.5), at_end, at_end - 0.15 / 0.25, at_end - 1.0]
    assert bonus(p, 0.75).tolist() == pytest.approx(expected)
    assert bonus(p, 1.0).tolist() == pytest.approx([0.0, math.log(0.5), math.log(0.25), math.log(0.1), math.log(1e-5)])


@pytest.mark.parametrize("log_end", [0.3, 0.75, 1.0])
def test_spread_bonus_is_the_sum_of_the_bonus_and_its_gradient(log_end: float) -> None:
    """The one that saves memory against the plain formula, certain and impossible symbols included."""
    logits = torch.tensor(
        [[0.1, 3.0, -1.0, 0.5], [60.0, 0.0, 0.0, 0.0], [1.0, 1.2, 0.0, -math.inf]], dtype=torch.float64
    )
    allowed = torch.tensor([[True] * 4, [True] * 4, [True, True, True, False]])
    weights = torch.tensor([1.0, -2.0, 0.5], dtype=torch.float64)
    gradients = []
    for total in (
        lambda lprobs: TotalBonus.apply(lprobs.masked_fill(~allowed, 0.0), allowed, log_end),
        lambda lprobs: bonus(lprobs.exp(), log_end).sum(-1),
    ):
        values = logits.clone().requires_grad_()
        sums = total(values.log_softmax(-1))
        (sums * weights).sum().backward()
        gradients.append((sums.detach(), values.grad))
    torch.testing.assert_close(gradients[0], gradients[1])


def test_by_hand_rdrop() -> None:
    """Both copies' losses plus alpha times the mean of both divergences, per kept token."""
    p, q = PROBS[0, :2], PROBS[0, :2].flip(-1)
    logits = torch.stack([PROBS[0].log(), torch.cat([q.log(), torch.zeros(1, 5, dtype=q.dtype)])])
    loss, _, size = run(make(symbols=5, use_rdrop=True, reg_alpha=3.0), logits, TARGET)
    nll = -(p[0, 4] * p[1, 2] * q[0, 4] * q[1, 2]).log()
    kl = (p * (p / q).log()).sum() + (q * (q / p).log()).sum()
    assert size == 4
    assert loss == pytest.approx(float(nll + 3.0 * kl / 2))


def random_batch(rows: int = 3, length: int = 6, seed: int = 0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(rows, length, SYMBOLS, generator=generator, dtype=torch.float64) * 2
    target = torch.randint(4, SYMBOLS, (rows, length), generator=generator)
    for row in range(rows):
        target[row, length - 1 - row :] = PAD
        target[row, length - 1 - row] = EOS
    return logits, target


def every_option() -> list[dict[str, Any]]:
    return [
        {},
        {"label_smoothing": 0.1},
        {"kind": "el", "label_smoothing": 0.1},
        {"label_smoothing": 0.1, "drop_worst_ratio": 0.4, "updates": 1},
        {"label_smoothing": 0.1, "constraint_range": "4,157"},
        {"label_smoothing": 0.1, "ignore_eos": True},
    ]


@pytest.mark.parametrize("options", every_option(), ids=str)
def test_padding_does_not_matter(options: dict[str, Any]) -> None:
    logits, target = random_batch()
    wider = torch.cat([target, torch.full((3, 4), PAD)], dim=1)
    filler = torch.full((3, 4, SYMBOLS), float("nan"), dtype=logits.dtype)  # nothing of it may be looked at
    assert run(make(**options), torch.cat([logits, filler], dim=1), wider) == pytest.approx(
        run(make(**options), logits, target)
    )


@pytest.mark.parametrize("kind", ["ls", "el"])
def test_batch_is_the_sum_of_its_rows(kind: str) -> None:
    logits, target = random_batch()
    conf = torch.tensor([0.5, 1.0, 0.2])
    criterion = make(kind, label_smoothing=0.1)
    whole = run(criterion, logits, target, conf=conf)
    rows = [run(criterion, logits[i : i + 1], target[i : i + 1], conf=conf[i : i + 1]) for i in range(3)]
    assert whole == pytest.approx(tuple(map(sum, zip(*rows, strict=True))))


@pytest.mark.parametrize("kind", ["ls", "el"])
def test_range_equals_the_same_set_given_as_masks(kind: str) -> None:
    logits, target = random_batch()
    target = torch.where(target > 3, 105 + target % 32, target)
    allowed = torch.zeros(SYMBOLS, dtype=torch.bool)
    allowed[:4] = True
    allowed[105:137] = True
    options: dict[str, Any] = {"label_smoothing": 0.1}
    by_range = run(make(kind, constraint_range="105,137", **options), logits, target)
    by_masks = run(make(kind, **options), logits, target, constraint_masks=allowed.expand(3, 6, -1))
    assert by_range == pytest.approx(by_masks)


@pytest.mark.parametrize("kind", ["ls", "el"])
def test_gradient_is_the_derivative(kind: str) -> None:
    """Numerically, with everything switched on at once."""
    logits, target = random_batch(rows=2, length=3)
    logits, target = logits[..., :8].repeat(2, 1, 1), torch.where(target > 3, 4 + target % 4, target)
    logits[2:] += 0.3 * torch.randn(2, 3, 8, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    masks = torch.ones(2, 3, 8, dtype=torch.bool)
    masks[0, :, 0] = False
    criterion = make(kind, symbols=8, label_smoothing=0.1, use_rdrop=True, drop_worst_ratio=0.3, updates=1)
    sample = {"target": target, "conf": torch.tensor([0.6, 1.0]), "constraint_masks": masks}
    sample["net_input"] = {"groups": [{"src_tokens": target}]}

    def loss_of(values: Tensor) -> Tensor:
        return criterion(GivenLogits(values * 1), sample)[0]

    assert torch.autograd.gradcheck(loss_of, (logits.requires_grad_(),))


def test_rdrop_with_drop_worst_keeps_pairs_together() -> None:
    """Equal copies diverge by nothing, whatever is dropped; the loss is twice that of one copy."""
    logits, target = random_batch()
    for kind, extra in (("ls", {}), ("el", {"drop_best_ratio": 0.2})):
        options: dict[str, Any] = {"label_smoothing": 0.1, "drop_worst_ratio": 0.3, "updates": 1, **extra}
        loss, nll, size = run(make(kind, use_rdrop=True, reg_alpha=5.0, **options), logits.repeat(2, 1, 1), target)
        assert (loss, nll, size) == pytest.approx(tuple(2 * x for x in run(make(kind, **options), logits, target)))


def test_drop_worst_and_best_drop_the_right_tokens() -> None:
    logits, target = random_batch(rows=2, length=6)  # 6 + 5 tokens
    rows = logits.log_softmax(-1)[target != PAD]
    losses = sorted((-rows.gather(1, target[target != PAD][:, None])).flatten().tolist())
    loss, _, size = run(make("ls", drop_worst_ratio=0.2, updates=1), logits, target)
    assert (loss, size) == (pytest.approx(sum(losses[:8])), 8)
    _, nll, size = run(make("el", drop_worst_ratio=0.2, drop_best_ratio=0.3, updates=1), logits, target)
    assert (nll, size) == (pytest.approx(sum(losses[3:8])), 5)


def test_dropping_waits_for_its_update_and_stops_in_validation() -> None:
    logits, target = random_batch()
    criterion = make("ls", drop_worst_ratio=0.5, drop_worst_after=7, use_rdrop=False)
    with pytest.raises(AssertionError, match="set_num_updates"):
        run(criterion, logits, target)
    sizes = []
    for updates in (0, 7, 8):
        criterion.set_num_updates(updates)
        sizes.append(run(criterion, logits, target)[2])
    assert sizes == [15, 15, 7]
    criterion.eval()
    assert run(criterion, logits, target)[2] == 15


def test_one_token_is_never_dropped() -> None:
    assert run(make(symbols=5, drop_worst_ratio=0.9, updates=1), PROBS[:, :1].log(), TARGET[:, :1])[2] == 1


def test_ignored_prefix_and_eos_leave_the_rest() -> None:
    logits, target = random_batch()
    without_eos = torch.where(target == EOS, PAD, target)
    assert run(make(ignore_eos=True), logits, target) == pytest.approx(run(make(), logits, without_eos))
    tail = run(make(), logits[:, 2:], target[:, 2:])
    assert run(make(ignore_prefix_size=2), logits, target) == pytest.approx(tail)


def test_accuracy_ppl_and_base_two_are_logged() -> None:
    logits, target = random_batch()
    logits[0, 0, target[0, 0]] = logits[1, 1, target[1, 1]] = 99.0
    criterion = make("ls", report_accuracy=True)
    batch = {"target": target, "net_input": {}, "conf": None, "constraint_masks": None}
    _, _, log = criterion(GivenLogits(logits), batch)
    hits = int((logits.argmax(-1) == target)[target != PAD].sum())
    assert (int(log["n_correct"]), log["total"]) == (hits, 15) and hits >= 2
    with metrics.aggregate() as logged:
        type(criterion).reduce_metrics([log, {**log, "_cider": 3.0}])
        values = logged.get_smoothed_values()
    nll = float(log["nll_loss"]) / 15 / math.log(2)
    assert values["nll_loss"] == pytest.approx(nll, abs=1e-3)
    assert values["loss"] == pytest.approx(nll, abs=1e-3)
    assert values["ppl"] == pytest.approx(2**nll, rel=1e-2)
    assert values["accuracy"] == pytest.approx(100 * hits / 15, abs=1e-3)
    assert criterion.logging_outputs_can_be_summed()


def test_sentence_average_counts_sentences() -> None:
    logits, target = random_batch()
    batch = {"target": target, "net_input": {"groups": [{"src_tokens": target}]}}
    assert criterion_sizes(make(sentence_avg=True), logits, batch) == (3, 15)
    assert criterion_sizes(make(sentence_avg=True, use_rdrop=True), logits.repeat(2, 1, 1), batch) == (6, 30)


def criterion_sizes(criterion: LabelSmoothedCriterion, logits: Tensor, batch: dict[str, Any]) -> tuple[int, int]:
    _, size, log = criterion(GivenLogits(logits), batch)
    return size, log["ntokens"]


def test_unreduced_losses_add_up() -> None:
    logits, target = random_batch()
    batch = {"target": target, "net_input": {"groups": [{"src_tokens": target}]}}
    for options in ({}, {"use_rdrop": True}):
        given = GivenLogits(logits.repeat(2, 1, 1) * torch.tensor([1.0, 0.9]).repeat_interleave(3)[:, None, None])
        model = given if options else GivenLogits(logits)
        criterion = make("ls", label_smoothing=0.1, **options)
        each = criterion(model, batch, reduce=False)[0]
        total = criterion(model, batch)[0].detach()
        assert each.shape == (30 if options else 15,)
        assert float(each.detach().sum()) == pytest.approx(float(total))


def test_half_precision_is_normalised_in_float32() -> None:
    logits, target = random_batch()
    batch = {"target": target, "net_input": {}}
    loss, _, _ = make("el", label_smoothing=0.1)(GivenLogits(logits.bfloat16()), batch)
    assert loss.dtype == torch.float32
    expected = run(make("el", label_smoothing=0.1), logits, target)[0]
    assert float(loss.detach()) == pytest.approx(expected, rel=1e-2)


def test_batch_of_padding_only_is_zero_with_gradient() -> None:
    model = GivenLogits(torch.zeros(1, 2, 5))
    loss, size, _ = make("el", symbols=5, label_smoothing=0.1)(
        model, {"target": torch.full((1, 2), PAD), "net_input": {}}
    )
    loss.backward()
    assert (float(loss.detach()), size) == (0.0, 0)
    assert model.logits.grad is not None and not model.logits.grad.any()


def test_every_row_twice() -> None:
    first = {
        "src_tokens": torch.arange(6).view(2, 3),
        "src_lengths": torch.tensor([3, 2]),
        "prev_output_tokens": torch.arange(4).view(2, 2),
        "code_masks": None,
        "media": [
            {"modality": "image", "values": torch.arange(1.0), "rows": torch.tensor([0, 0])},
            {"modality": "audio", "values": torch.tensor([9.0, 8.0]), "rows": torch.tensor([1, 0])},
        ],
    }
    net_input = {"groups": [first, {"src_tokens": torch.tensor([[7, 8]])}]}
    twice, text = repeat_groups(net_input)["groups"]
    assert twice["src_tokens"].tolist() == [[0, 1, 2], [3, 4, 5]] * 2
    assert twice["src_lengths"].tolist() == [3, 2, 3, 2]
    assert twice["code_masks"] is None
    assert [item["modality"] for item in twice["media"]] == ["image", "audio"]
    assert twice["media"][0]["values"].tolist() == [0.0, 0.0] and twice["media"][1]["values"].tolist() == [9.0, 8.0] * 2
    assert twice["media"][0]["rows"].tolist() == [0, 0, 1, 1]
    assert twice["media"][1]["rows"].tolist() == [1, 0, 3, 2]
    assert text["src_tokens"].tolist() == [[7, 8]] * 2
    assert first["media"][0]["rows"].tolist() == [0, 0], "the batch itself stays as it is"
    with pytest.raises(AssertionError, match="weights"):
        repeat_groups({"groups": [{**first, "weights": torch.zeros(5)}]})


def test_wrong_settings_are_named() -> None:
    for options, message in (
        ({"constraint_range": "105-137"}, "105-137"),
        ({"constraint_range": "105,158"}, "157"),
        ({"constraint_range": "2,9"}, "start"),
        ({"label_smoothing": 1.5}, "--label-smoothing 1.5"),
        ({"drop_worst_ratio": -0.1}, "--drop-worst-ratio -0.1"),
        ({"reg_alpha": -1.0}, "--reg-alpha -1.0"),
        ({"kind": "el", "log_end": 0.0}, "--log-end 0.0"),
        ({"kind": "el", "drop_best_ratio": 2.0}, "--drop-best-ratio 2.0"),
    ):
        with pytest.raises(UserError, match=message):
            make(**options)


def test_target_outside_its_set_is_named() -> None:
    masks = torch.ones(1, 3, 5, dtype=torch.bool)
    masks[0, 1, 2] = False
    with pytest.raises(UserError, match=r"row 42: target token '</s>' \(position 1\) is outside its candidate answers"):
        run(make(symbols=5), PROBS.log(), TARGET, constraint_masks=masks, id=torch.tensor([42]))
    logits, target = random_batch()
    with pytest.raises(UserError, match=r"row 0: target token .* is outside --constraint-range 105,137"):
        run(make(constraint_range="105,137"), logits, target)


def test_fairseq_reads_the_options() -> None:
    """Registered under both names, options parsed by fairseq's own parser."""
    from fairseq.criterions import CRITERION_REGISTRY

    for name, extra in (("unival_label_smoothed", []), ("unival_encouraging", ["--log-end", "0.5"])):
        parser = argparse.ArgumentParser()
        CRITERION_REGISTRY[name].add_args(parser)
        args = parser.parse_args(["--label-smoothing", "0.1", "--use-rdrop", "--constraint-range", "4,9", *extra])
        assert (args.label_smoothing, args.use_rdrop, args.constraint_range) == (0.1, True, "4,9")
        args.sentence_avg = False
        task = argparse.Namespace(target_dictionary=make_dictionary())
        assert CRITERION_REGISTRY[name].build_criterion(args, task).range == (4, 9)
