"""Answers that are no candidates: refused or skipped in training, kept in evaluation."""

import json
import logging

import pytest
import torch

from tests import runs, tiny
from tests.tasks.test_task import config
from unival.criterions.label_smoothed import LabelSmoothedConfig, LabelSmoothedCriterion
from unival.data.outside import check_answers
from unival.data.rows import RowTable
from unival.data.table import open_table
from unival.errors import BadAnswerError, UserError
from unival.tasks import UnivalTask

INSTRUCTION = "[TEXT:q] -> [TEXT:a,closed_set]"
ROWS = [{"q": "x", "a": "red"}, {"q": "x", "a": "green"}, {"q": "x", "a": ["blue", "left"]}]
ANSWERS = ["red", "blue"]


@pytest.fixture(scope="module")
def vocab(tmp_path_factory):
    return tiny.vocabulary(tmp_path_factory.mktemp("vocab"))


@pytest.fixture
def table(tmp_path):
    (tmp_path / "t.jsonl").write_text("\n".join(map(json.dumps, ROWS)))
    return open_table(tmp_path / "t.jsonl")


def task_of(vocab, **options):
    return UnivalTask(config(instruction=INSTRUCTION, **options), vocab, ANSWERS)


def test_training_names_and_counts_them_at_the_start(vocab, table, caplog):
    data = task_of(vocab).build_dataset(table, train=True)
    said = r"t.jsonl, row 1 \(line 2\), column 'a': 'green' is none of the 2 candidate answers \(nor are 2 answers of the first 3 rows\)"
    with pytest.raises(BadAnswerError, match=f"{said}; --on-bad-answer skip"):
        check_answers(data)
    with pytest.raises(BadAnswerError, match="row 1 .*'green' is none of the 2 candidate answers; --on-bad-answer skip"):
        data[1]
    skipping = task_of(vocab, on_bad_answer="skip").build_dataset(table, train=True)
    with caplog.at_level(logging.WARNING):
        check_answers(skipping)
    assert "nor are 2 answers" in caplog.text
    batch = skipping.collater([skipping[0], skipping[1]])
    assert batch["nsentences"] == 1 and batch["skipped"][0].endswith("'green' is none of the 2 candidate answers")  # no advice to skip
    other = task_of(vocab, on_bad_sample="skip").build_dataset(table, train=True)  # of broken rows only
    with pytest.raises(BadAnswerError):
        other[1]
    broken = task_of(vocab, on_bad_answer="skip").build_dataset(RowTable([{"q": "x", "a": ""}]), train=True)
    with pytest.raises(UserError, match="must not be empty"):
        broken[0]


def test_evaluation_keeps_them(vocab, table, caplog):
    """The loss of a candidate is over the candidates, that of another answer over the whole vocabulary."""
    task = task_of(vocab)
    data = task.build_dataset(table)
    with caplog.at_level(logging.WARNING):
        assert data.check_rows() == [["red"], ["green"], ["blue", "left"]]
    assert "the answers of 1 row are no candidates" in caplog.text
    model = tiny.model(vocab)
    criterion = LabelSmoothedCriterion(task, LabelSmoothedConfig(sentence_avg=False)).eval()
    batch = data.collater([data[0], data[1]])
    assert batch["outside"].tolist() == [False, True]
    free = UnivalTask(config(instruction="[TEXT:q] -> [TEXT:a]"), vocab).build_dataset(table)
    alone = [
        criterion(model, task.with_limits(data.collater([data[0]])))[0],
        criterion(model, free.collater([free[1]]))[0],
    ]
    torch.testing.assert_close(criterion(model, task.with_limits(batch))[0], sum(alone))


def test_a_run_skips_counts_and_validates(tmp_path, capsys):
    data, out = tmp_path / "data", tmp_path / "out"
    rows = [json.loads(line) for line in tiny.write_table(data, rows=4).read_text().splitlines()]
    for split, first in (("train", "green"), ("valid", "green")):
        table = [{**row, "caption": answer} for row, answer in zip(rows, [first, "red", "blue", "red"], strict=True)]
        (data / f"{split}.jsonl").write_text("\n".join(map(json.dumps, table)))
    tiny.vocabulary(data / "vocab", num_codes=0, num_bins=0)
    (tmp_path / "answers.txt").write_text("\n".join(ANSWERS))
    own = ["--task", "unival", "--instruction", "[IMAGE:image] what? -> [TEXT:caption,closed_set]", "--eval-metrics", "exact_match"]
    own += ["--closed-set", str(tmp_path / "answers.txt"), "--best-checkpoint-metric", "exact_match", "--batch-size", "2"]
    assert runs.train(data, out, *own) == 1
    said = capsys.readouterr().err
    assert "train.jsonl, row 0 (line 1), column 'caption': 'green' is none of the 2 candidate answers; --on-bad-answer skip" in said
    assert runs.train(data, out, *own, "--on-bad-answer", "skip", "--max-epoch", "1") == 0
    assert sum(int(line["num_skipped"]) for line in runs.log_lines(out, "num_skipped") if "update" in line) == 1
    assert runs.log_lines(out, "valid_num_outside")[-1]["valid_num_outside"] == "1"
    assert runs.train(data, tmp_path / "large", *own, "--on-bad-answer", "skip", "--patch-image-size", "700") == 1
    assert "a grid of 44 x 44 patches exceeds 42 per side: use smaller images (--patch-image-size" in capsys.readouterr().err
