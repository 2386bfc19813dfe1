"""Answers from a closed set, in the loss and in generation."""

import json
import math
from types import SimpleNamespace

import pytest
import torch

from tests import runs, tiny
from unival.cli import main
from unival.commands.score import score_file
from unival.criterions.label_smoothed import LabelSmoothedConfig, LabelSmoothedCriterion
from unival.data.rows import RowTable
from unival.errors import UserError
from unival.hub import from_checkpoint
from unival.metrics.score import read_generated
from unival.tasks.base import UnivalTask
from unival.tasks.checks import check_generation
from unival.tasks.closed_set import read_answers

INSTRUCTION = "[TEXT:q]? -> [TEXT:q,no_loss] is [TEXT:a,closed_set]"
ANSWERS = ["red", "red square", "blue circle"]


@pytest.fixture(scope="module")
def vocab(tmp_path_factory):
    return tiny.vocabulary(tmp_path_factory.mktemp("vocab"))


def own_task(vocab, instruction=INSTRUCTION, answers=ANSWERS, cls=UnivalTask):
    from tests.tasks.test_task import config

    return cls(config(instruction=instruction), vocab, answers)


def test_the_loss_is_that_of_the_allowed_symbols_alone(vocab):
    """First answer token: " red" or " blue" only; the loss is -ln of the softmax over these two, by hand."""
    task = own_task(vocab)
    dataset = task.build_dataset(RowTable([{"q": "the left", "a": "red"}]))
    sample = task.with_limits(dataset.collater([dataset[0]]))
    assert sample["num_candidates"].tolist() == [len(ANSWERS)]
    model = tiny.model(vocab)
    criterion = LabelSmoothedCriterion(task, LabelSmoothedConfig(sentence_avg=False)).eval()
    loss, size, _ = criterion(model, sample)
    logits = model(**sample["net_input"])[0][0]
    first, second = len(dataset[0][0].prefix), len(dataset[0][0].prefix) + 1
    red, blue = vocab.encode(" red")[0], vocab.encode(" blue")[0]
    square = vocab.encode(" red square")[1]
    by_hand = (
        -torch.log_softmax(logits[first, [red, blue]], 0)[0]
        - torch.log_softmax(logits[second, [vocab.eos, square]], 0)[0]
    )
    assert vocab.encode(" red") == [red] and vocab.encode(" red square")[0] == red  # what the case by hand relies on
    assert size == 2
    torch.testing.assert_close(loss, by_hand)


def test_a_target_outside_the_set_is_named(vocab):
    task = own_task(vocab)
    dataset = task.build_dataset(RowTable([{"q": "x", "a": "red"}, {"q": "x", "a": "green"}]))
    batch = dataset.collater([dataset[0], dataset[1]])
    assert batch.pop("outside").tolist() == [False, True]  # evaluation's data sets find it; the loss is the last to look
    sample = task.with_limits(batch)
    criterion = LabelSmoothedCriterion(task, LabelSmoothedConfig(sentence_avg=False)).eval()
    with pytest.raises(UserError, match="row 1.*candidate answers"):
        criterion(tiny.model(vocab), sample)


def test_slots_and_files_that_cannot_be(vocab, tmp_path):
    with pytest.raises(UserError, match="--closed-set FILE"):
        own_task(vocab, answers=[])
    with pytest.raises(UserError, match="only one to predict"):
        own_task(vocab, "[TEXT:q] -> [TEXT:a,closed_set] and [TEXT:b]")
    with pytest.raises(UserError, match="no such file"):
        read_answers(tmp_path / "none.txt")
    (tmp_path / "empty.txt").write_text("\n\n")
    with pytest.raises(UserError, match="no answers"):
        read_answers(tmp_path / "empty.txt")


def test_training_and_generation_stay_within_the_set(tmp_path, capsys):
    """Through fairseq's own commands: the answers are kept in the checkpoint and used by the Python API."""
    data, out = tmp_path / "data", tmp_path / "out"
    instruction = "[IMAGE:image] what? -> [TEXT:caption,closed_set]"
    path = tiny.write_table(data, rows=6, name="train.jsonl")
    rows = [{**json.loads(line), "caption": ANSWERS[i % 3]} for i, line in enumerate(path.read_text().splitlines())]
    for split in ("train", "valid"):
        (data / f"{split}.jsonl").write_text("\n".join(json.dumps(row) for row in rows))
    tiny.vocabulary(data / "vocab", num_codes=0, num_bins=0)
    (tmp_path / "answers.txt").write_text("\n".join(ANSWERS))
    flags = [
        "--task",
        "unival",
        "--instruction",
        instruction,
        "--eval-metrics",
        "exact_match",
    ]
    flags += ["--closed-set", str(tmp_path / "answers.txt"), "--batch-size", "3", "--max-update", "2"]
    metric = ["--best-checkpoint-metric", "exact_match", "--eval-args", '{"inference": "candidates"}']
    assert runs.train(data, out, *flags, *metric) == 0
    validated = float(runs.log_lines(out, "valid_exact_match")[-1]["valid_exact_match"])
    model = from_checkpoint(out / "checkpoint_last.pt")
    images = [{"image": str(data / row["image"])} for row in rows]
    outputs = model.run(instruction, images)
    assert {output.text for output in outputs} <= set(ANSWERS)
    others = model.run(instruction, images, closed_set=["green", "left of"])
    assert {output.text for output in others} <= {"green", "left of"}
    free = ["--task", "unival", "--no-repeat-ngram-size", "0"]
    capsys.readouterr()
    generated = read_generated(runs.generate(data, out / "checkpoint_last.pt", out, "valid", *free))
    said = capsys.readouterr().err  # the metric of training, and from which scores a threshold can be chosen
    assert "\nvalid: exact_match " in said and "answers score from -" in said and "% are below -" in said
    assert len(generated) == 6 and {text for text, _ in generated.values()} <= set(ANSWERS)  # nothing was said again
    # In another type of numbers: close, and not the same
    other = "int8" if "--cpu" in runs.CPU else "bf16"
    rounded = read_generated(runs.generate(data, out / "checkpoint_last.pt", out / other, "valid", *free, "--dtype", other))
    assert {text for text, _ in rounded.values()} <= set(ANSWERS)
    for row, (text, score) in rounded.items():
        assert text != generated[row][0] or 0 < abs(score - generated[row][1]) < 0.05
    both = SimpleNamespace(data=str(data), gen_subset="valid", train_subset="train", model_overrides="{}", dtype="int8", fp16=True)
    with pytest.raises(UserError, match="--dtype int8 and --fp16"):
        check_generation(both)

    # Every candidate scored: as in validation, by fairseq-generate, in Python and by `unival run`; then some rows rejected
    chosen = [*free, "--inference", "candidates", "--nbest", "3"]
    scored = read_generated(runs.generate(data, out / "checkpoint_last.pt", out / "scored", "valid", *chosen))
    said = model.run(instruction, images, inference="candidates", nbest=3)
    near = 1e-6 if "--cpu" in runs.CPU else 1e-3
    assert [(output.text, pytest.approx(output.score, rel=near)) for output in said] == [
        (text, score * math.log(2)) for text, score in (scored[row] for row in range(6))
    ]
    for output in said:  # the candidates share all of the probability
        assert sum(math.exp(each.score) for each in (output, *output.alternatives)) == pytest.approx(1, abs=1e-5)
    assert sum(output.text == row["caption"] for output, row in zip(said, rows, strict=True)) / 6 == pytest.approx(validated, abs=5e-4)
    scores = sorted(output.score for output in said)
    least = (scores[2] + scores[3]) / 2
    expected = ["" if output.score < least else output.text for output in said]
    written = runs.generate(data, out / "checkpoint_last.pt", out / "rejected", "valid", *chosen, "--reject-below", str(least))
    assert [text for _, (text, _) in sorted(read_generated(written).items())] == expected and expected.count("") == 3
    kept = model.run(instruction, images, inference="candidates", reject_below=least)
    assert [(output.text, output.rejected, output.score) for output in kept] == [
        (text, not text, output.score) for text, output in zip(expected, said, strict=True)
    ]
    (accuracy,) = score_file(str(written), {i: [row["caption"]] for i, row in enumerate(rows)}, ["exact_match"]).total.values()
    assert accuracy == pytest.approx(sum(text == row["caption"] for text, row in zip(expected, rows, strict=True)) / 6)
    capsys.readouterr()
    flags = ["--inference", "candidates", "--reject-below", str(least), "--json"]
    assert main(["run", "--path", str(out / "checkpoint_last.pt"), *flags, *(row["image"] for row in images)]) == 0
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [(line["text"], line.get("rejected", False)) for line in lines] == [(text, not text) for text in expected]
    assert [line["answer_score"] < least for line in lines] == [not text for text in expected]
    zero_shot = model.run(instruction, images, inference="candidates", zero_shot=True)
    assert all(one.score < other.score for one, other in zip(zero_shot, said, strict=True))  # among the whole vocabulary
