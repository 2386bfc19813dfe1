"""A batch of several groups and streams: losses, values per stream and generation are those of its rows alone."""

import math
from argparse import Namespace

import pytest
import torch
from fairseq import optim
from fairseq.criterions.label_smoothed_cross_entropy import LabelSmoothedCrossEntropyCriterion
from fairseq.logging import metrics

from tests import tiny
from tests.tasks.test_task import config
from unival.criterions.label_smoothed import LabelSmoothedConfig, LabelSmoothedCriterion
from unival.criterions.scst import ScstConfig, ScstCriterion
from unival.data.mixture import Mixture
from unival.data.rows import RowTable
from unival.errors import UserError
from unival.instructions import parse
from unival.modalities import MODALITIES
from unival.tasks.base import UnivalTask

IMAGE, TEXT = "[IMAGE:image] what is it? -> [TEXT:a]", "[TEXT:q] -> say [TEXT:q,no_loss] [TEXT:a]"


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A task, a model, and a mixture of three streams: images, texts, and texts that no batch has."""
    folder = tmp_path_factory.mktemp("streams")
    vocab = tiny.vocabulary(folder / "vocab")
    path = tiny.write_table(folder, rows=3)
    images = [(folder / "images" / f"{path.name}-{i}.png").read_bytes() for i in range(3)]
    task = UnivalTask(config(instruction=IMAGE, patch_image_size=32), vocab)
    pictures = RowTable([{"image": image, "a": "a red square " * i} for i, image in enumerate(images, start=1)])
    texts = RowTable([{"q": "red " * i, "a": "blue"} for i in range(1, 4)])
    streams = [task.build_dataset(pictures, train=True)]
    streams += [task.build_dataset(texts, train=True, instructions=parse(TEXT, MODALITIES)) for _ in range(2)]
    for stream, name in zip(streams, ("pictures", "texts", "others"), strict=True):
        stream.name = name
    return task, tiny.model(vocab), Mixture(streams)


def make(task, **options):
    return LabelSmoothedCriterion(task, LabelSmoothedConfig(label_smoothing=0.1, sentence_avg=False, **options))


NUMBERS = [0, 4, 2, 3]  # rows of both streams in turn


@pytest.mark.parametrize("rdrop", [False, True])
def test_losses_are_those_of_the_rows_alone(place, rdrop):
    task, model, mixture = place
    criterion = make(task, use_rdrop=rdrop).train(rdrop)
    batch = mixture.collater([mixture[number] for number in NUMBERS])
    assert len(batch["net_input"]["groups"]) == 2 and batch["stream"].tolist() == [0, 0, 1, 1]
    loss, size, log = criterion(model, batch)
    alone = {number: criterion(model, mixture.streams[0].collater([mixture[number]])) for number in NUMBERS}
    assert size == sum(one[1] for one in alone.values())
    torch.testing.assert_close(loss, sum(one[0] for one in alone.values()), rtol=1e-5, atol=1e-5)
    assert [key.split("/")[1] for key in log if key.startswith("loss/")] == ["pictures", "texts", "others"]
    for name, numbers in (("pictures", [0, 2]), ("texts", [4, 3]), ("others", [])):
        for key in ("loss", "nll_loss", "ntokens", "nsentences"):
            expected = sum(float(alone[number][2][key]) for number in numbers)
            assert float(log[f"{key}/{name}"]) == pytest.approx(expected, rel=1e-5), (key, name)
    only_text = criterion(model, mixture.collater([mixture[3]]))[2]
    assert list(only_text) == list(log), "all keys in one order, zeros included"
    with metrics.aggregate() as logged:
        LabelSmoothedCriterion.reduce_metrics([log, only_text])
        values = logged.get_smoothed_values()
    both, tokens = (float(log[key] + only_text[key]) for key in ("nll_loss/texts", "ntokens/texts"))
    called = "{0}/{1}" if rdrop else "{1}/{0}"  # in training, and in validation
    assert values[called.format("nll_loss", "texts")] == pytest.approx(both / tokens / math.log(2), abs=1e-3)
    assert values[called.format("loss", "others")] == 0


def trained(place, weights, batches=1):
    """Loss and log of the last batch of an update with weight decay, what the update changed, and the model's new state."""
    task, _, mixture = place
    model = tiny.model(task.vocabulary)
    batch = mixture.collater([mixture[number] for number in NUMBERS])
    if weights:
        batch["stream_loss_weights"] = torch.tensor(weights, dtype=torch.float64)
    criterion = LabelSmoothedCriterion(task, LabelSmoothedConfig(sentence_avg=False))
    names, parameters = zip(*model.named_parameters(), strict=True)
    optimizer = optim.build_optimizer(Namespace(optimizer="sgd", lr=[0.1], momentum=0.9, weight_decay=0.1), parameters)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    for _ in range(batches):
        loss, _, log = task.train_step(batch, model, criterion, optimizer, 0)
    task.optimizer_step(optimizer, model, 0)
    after = model.state_dict()
    return loss.item(), log, {key for key in before if not torch.equal(before[key], after[key])}, after


def test_loss_weights_of_streams(place):
    """1 keeps bits; nothing is learned of a stream of weight 0, not even by weight decay or in batch norms, but it is logged."""
    loss, log, changed, after = trained(place, None)
    assert any("image.backbone" in key and "running_mean" in key for key in changed)
    same = trained(place, [1, 1, 1])
    assert same[0] == loss and all(torch.equal(after[key], value) for key, value in same[3].items())
    halved = trained(place, [0.5, 2, 0])
    parts = {name: float(log[f"loss/{name}"]) for name in ("pictures", "texts")}
    assert halved[0] == pytest.approx(0.5 * parts["pictures"] + 2 * parts["texts"])
    assert float(halved[1]["loss/pictures"]) == parts["pictures"] and halved[1]["sample_size"] == log["sample_size"]
    without = trained(place, [0, 1, 1])
    assert without[0] == pytest.approx(parts["texts"]) and float(without[1]["loss/pictures"]) == parts["pictures"]
    assert changed - without[2] == {key for key in changed if "image" in key or "patch" in key}
    nothing = trained(place, [0, 0, 0], batches=2)
    assert nothing[0] == 0 and not nothing[2] and list(nothing[1]) == list(log)


def test_values_of_streams(place):
    """Accuracy, counts and shares of time, of training and of validation."""
    task, model, mixture = place
    batch = mixture.collater([mixture[number] for number in NUMBERS])
    criterion = LabelSmoothedCriterion(task, LabelSmoothedConfig(sentence_avg=False, report_accuracy=True))
    log = criterion(model, batch)[2]
    alone = criterion.eval()(model, mixture.streams[0].collater([mixture[0], mixture[2]]))[2]
    for training in (True, False):
        log = criterion.train(training)(model, batch)[2]
        with metrics.aggregate(new_root=True) as logged:
            LabelSmoothedCriterion.reduce_metrics([log, {key: value * 0 for key, value in log.items()}])
            values = logged.get_smoothed_values()
        called = "{1}/{0}" if training else "{0}/{1}"
        of = {key: [values[called.format(name, key)] for name in mixture.names] for key in ("accuracy", "ntokens", "nsentences", "loss")}
        assert of["accuracy"][0] == pytest.approx(100 * float(alone["n_correct"]) / alone["total"], abs=1e-3)
        assert of["ntokens"][0] == alone["ntokens"] and of["ntokens"][2] == of["accuracy"][2] == of["loss"][2] == 0
        assert of["nsentences"] == [2, 2, 0]
    with metrics.aggregate(new_root=True) as logged:
        for _ in range(2):
            LabelSmoothedCriterion.reduce_metrics([criterion.train()(model, batch)[2]])
        shares = [logged.get_smoothed_values()[f"time_share/{name}"] for name in mixture.names]
    assert sum(shares) == pytest.approx(1, abs=1e-3) and shares[0] > shares[1] > shares[2] == 0, "images take longer than texts"


@pytest.mark.parametrize(
    "options, message",
    [({"loss_normalization": "example"}, "--loss-normalization"), ({"scale_by_candidates": True}, "--scale-by-candidates")],
)
def test_self_critical_training_has_a_normalisation_of_its_own(place, options, message):
    with pytest.raises(UserError, match=f"{message} does not go with self-critical training"):
        ScstCriterion(place[0], ScstConfig(sentence_avg=False, **options))
    criterion = ScstCriterion(place[0], ScstConfig(sentence_avg=False))
    with pytest.raises(UserError, match="loss weights of streams do not go"):
        criterion(place[1], {"rollouts": object(), "stream_loss_weights": torch.ones(3)})


def test_tokens_that_are_dropped_count_for_no_stream(place):
    task, model, mixture = place
    criterion = make(task, drop_worst_ratio=0.5)
    criterion.set_num_updates(1)
    log = criterion(model, mixture.collater([mixture[number] for number in NUMBERS]))[2]
    for key in ("loss", "nll_loss", "ntokens"):
        assert float(log[key]) == pytest.approx(sum(float(log[f"{key}/{name}"]) for name in mixture.names), rel=1e-5)


def test_a_criterion_of_fairseq_takes_groups(place):
    """Logits of all groups in one tensor, padded as the target is."""
    task, model, mixture = place
    batch = mixture.collater([mixture[number] for number in NUMBERS])
    theirs = LabelSmoothedCrossEntropyCriterion(task, sentence_avg=False, label_smoothing=0.0)
    ours = LabelSmoothedCriterion(task, LabelSmoothedConfig(sentence_avg=False)).eval()
    (loss, size, _), (expected, expected_size, _) = theirs(model, batch), ours(model, batch)
    assert size == expected_size
    torch.testing.assert_close(loss, expected, rtol=1e-5, atol=1e-5)


def test_generation_is_that_of_the_rows_alone(place):
    task, model, mixture = place
    generator = task.build_generator([model], Namespace(beam=2, max_len_b=8))
    batch = mixture.collater([mixture[number] for number in NUMBERS])
    together = task.hypotheses(generator, [model], batch)
    order = [0, 2, 4, 3]  # as the batch has its rows
    for number, beams in zip(order, together, strict=True):
        (alone,) = task.hypotheses(generator, [model], mixture.streams[0].collater([mixture[number]]))
        assert [beam["tokens"].tolist() for beam in beams] == [beam["tokens"].tolist() for beam in alone]
        assert [float(beam["score"]) for beam in beams] == pytest.approx([float(beam["score"]) for beam in alone], abs=1e-4)
