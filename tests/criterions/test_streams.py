"""A batch of several groups and streams: losses, values per stream and generation are those of its rows alone."""

import math
from argparse import Namespace

import pytest
import torch
from fairseq.criterions.label_smoothed_cross_entropy import LabelSmoothedCrossEntropyCriterion
from fairseq.logging import metrics

from tests import tiny
from tests.tasks.test_task import config
from unival.criterions.label_smoothed import LabelSmoothedConfig, LabelSmoothedCriterion
from unival.data.mixture import Mixture
from unival.data.rows import RowTable
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
    assert values["nll_loss/texts"] == pytest.approx(both / tokens / math.log(2), abs=1e-3)
    assert values["loss/others"] == 0


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
