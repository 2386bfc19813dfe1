"""Lists of tables as data: TRAIN,VALID and TRAIN1,TRAIN2,…,VALID, whose tables the epochs train on in turn."""

import os

import pytest
import torch
from fairseq.tasks import TASK_REGISTRY

from tests import runs, tiny
from tests.tasks.test_task import config, model_config
from tests.test_training import assert_equal
from unival.console.lines import RunPlan
from unival.errors import UserError
from unival.tasks.inputs import check_splits, find_table, train_tables
from unival.vocab import Vocabulary

CaptionTask = TASK_REGISTRY["unival_caption"]

ROWS = {"one": 5, "two": 8, "valid": 3}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Tables of five and eight rows to train on, one of three to validate on, a vocabulary."""
    folder = tmp_path_factory.mktemp("tables")
    for seed, (name, rows) in enumerate(ROWS.items()):
        tiny.write_table(folder, rows, name=f"{name}.jsonl", seed=seed)
    tiny.vocabulary(folder / "vocab", 0, 0)
    return folder


def listed(folder, *names):
    return ",".join(str(folder / f"{name}.jsonl") for name in names)


def train(data, out, *flags):
    """Batches of two: an epoch of three updates, one of four, one of three, …; returns the log."""
    assert runs.train(data, out, "--batch-size", "2", *flags) == 0
    return (out / "train.log").read_text()


def test_epochs_train_on_the_tables_in_turn_and_resume(folder, tmp_path):
    """Every bit is that of an uninterrupted run after stops within and between the epochs of both tables."""
    data = listed(folder, "one", "two", "valid")
    log = train(data, tmp_path / "whole", "--max-epoch", "3", "--eval-metrics", "exact_match", "--best-checkpoint-metric", "exact_match")
    assert [int(line["train_num_updates"]) for line in runs.log_lines(tmp_path / "whole", "train_num_updates")] == [3, 7, 10]
    assert log.count("train: 8 rows from ") == 1, "an epoch that never comes was announced"
    assert "valid: 3 rows from " in log and len(runs.log_lines(tmp_path / "whole", "valid_exact_match")) == 3
    stops = [2, 3, 5, 7]  # within the first epoch, at its end, within and at the end of the second, which is another table's
    for stop in stops:
        train(data, tmp_path / "parts", "--disable-validation", "--max-update", str(stop))
    resumed = train(data, tmp_path / "parts", "--disable-validation", "--max-epoch", "3")
    states = [torch.load(tmp_path / run / "checkpoint_last.pt", weights_only=True) for run in ("whole", "parts")]
    for part in ("model", "last_optimizer_state"):
        assert_equal(states[0][part], states[1][part])
    assert "train: 8 rows from " in resumed and "train: 5 rows from " in resumed


def test_one_table_to_train_and_one_to_validate_on(folder, tmp_path):
    log = train(listed(folder, "two", "valid"), tmp_path, "--max-update", "1", "--eval-metrics", "cider")
    assert "train: 8 rows from " in log and "valid: 3 rows from " in log
    assert len(runs.log_lines(tmp_path, "valid_cider")) == 1


def test_which_table_is_read(folder):
    data = listed(folder, "one", "two", "valid")
    assert [find_table(data, "train", True, epoch).stem for epoch in range(1, 6)] == ["one", "two", "one", "two", "one"]
    assert find_table(data, "test", False).stem == "valid"
    lone = str(folder / "one.jsonl")
    assert [find_table(lone, "any", train).stem for train in (True, False)] == ["one", "one"]
    comma = folder / "a,b"
    comma.mkdir()
    tiny.write_table(comma, 2)
    assert find_table(str(comma), "train", True) == comma / "train.jsonl" and train_tables(str(comma)) == [str(comma)]
    assert len(train_tables(",".join([lone] * 400))) == 399  # longer than any path


@pytest.mark.parametrize(
    "names, message",
    [
        (("one", "absent", "valid"), "absent.jsonl: no such table"),
        (("one", "two", "absent"), "absent.jsonl: no such table"),
        (("one", "", "valid"), "an empty name"),
        (("one", "folder", "valid"), "is a folder, and a list as data holds tables"),
        (("one", "other", "valid"), "other.jsonl: no column 'caption'"),
        (("one", "broken", "valid"), "broken.jsonl, row 0 .line 1., column 'image'"),
    ],
)
def test_every_table_is_checked_at_the_start(folder, tmp_path, names, message, capsys):
    (folder / "other.jsonl").write_text('{"image": "x.png", "text": "a"}\n')
    (folder / "broken.jsonl").write_text('{"image": "x.png", "caption": "a"}\n')
    (folder / "folder.jsonl").mkdir(exist_ok=True)
    data = ",".join(str(folder / f"{name}.jsonl") if name else "" for name in names)
    assert runs.train(data, tmp_path, "--batch-size", "2", "--max-epoch", "1") == 1
    assert len(error := capsys.readouterr().err.strip().splitlines()) == 1
    with pytest.raises(UserError, match=message):
        raise UserError(error[0])


def test_validation_on_a_table_of_training_takes_another_name(folder, tmp_path):
    """The same file in any spelling is a slip; a link or a copy is meant, and so is a run without validation."""
    one, link = folder / "one.jsonl", folder / "linked.jsonl"
    link.symlink_to(one)
    detour = folder / "folder.d" / ".." / "one.jsonl"
    detour.parent.parent.mkdir()
    options = {"train_subset": "train", "valid_subset": "valid", "disable_validation": False, "combine_valid_subsets": False}
    for data in ([one], [one, one], [one, detour], [one, os.path.relpath(one)], [folder / "two.jsonl", one, one]):
        cfg = config(data=",".join(map(str, data)), **options)
        with pytest.raises(UserError, match="one.jsonl would be the table for training and for validation: .*TRAIN,VALID.*a link to it"):
            check_splits(cfg)
        cfg.disable_validation = True
        check_splits(cfg)
    for data in ([one, link], [one, one, folder / "valid.jsonl"]):
        check_splits(config(data=",".join(map(str, data)), **options))


def test_lengths_of_epochs_to_come(folder, monkeypatch):
    """Schedules are told how long the run is, whatever table comes when; too few rows for all processes are said at the start."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)  # a task outside of a run does not know of --cpu
    cfg = config(data=listed(folder, "one", "two", "valid"), patch_image_size=32, update_freq=[1], max_epoch=0)
    task = CaptionTask(cfg, Vocabulary.load(folder / "vocab", 0, 0))
    task.build_model(model_config())
    task.load_dataset("train", epoch=2)
    assert len(task.datasets["train"]) == 8 and task.has_sharded_data("train")
    batches = task.get_batch_iterator(task.datasets["train"], max_sentences=2, epoch=2)
    assert [batches.length(epoch) for epoch in range(1, 5)] == [3, 4, 3, 4] and len(batches) == 4
    task.cfg.max_epoch = 5
    task.begin_epoch(2, None)
    assert task.planned_updates == 17 and RunPlan(max_epoch=5).updates(4, task.planned_updates) == 17  # the console's last update
    task.cfg.update_freq = [1, 2]
    batches = task.get_batch_iterator(task.datasets["train"], max_sentences=2, epoch=2, num_shards=2)
    assert [batches.length(epoch) for epoch in range(1, 4)] == [2, 1, 1]  # two rounds of both processes; then in one update
    with pytest.raises(UserError, match="later epoch trains on, after .*two.jsonl: 5 rows cannot be shared by 6 processes"):
        task.get_batch_iterator(task.datasets["train"], max_sentences=2, epoch=2, num_shards=6)
