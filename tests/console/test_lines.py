"""What the console shows of a run, worked out from single records: progress, scores, warnings, nothing else."""

import io
import json
import logging

import pytest

from unival.console.lines import PROGRESS, Console, RunPlan, duration
from unival.console.session import Session
from unival.tasks.progress import Step

BAR_MODULE = "fairseq/logging/progress_bar.py"


class Terminal(io.StringIO):
    def isatty(self):
        return True


class Clock:
    def __init__(self):
        self.now = 100.0

    def __call__(self):
        return self.now


def record(name, message, level=logging.INFO, path="other.py", **attributes):
    made = logging.LogRecord(name, level, path, 1, message, (), None)
    made.__dict__.update(attributes)
    return made


def step(kind, done, total=None, loss=1.25):
    return record(PROGRESS, "", logging.DEBUG, step=Step(kind, done, total, lambda: loss))


@pytest.fixture
def console():
    return Console(io.StringIO(), clock=Clock())


def lines(console):
    return console.stream.getvalue().splitlines()


def test_progress_that_was_shown_ends_with_its_last_row(console):
    """Rows that are done faster than a line is due are not told at all."""
    for kind, seconds in (("generating", 20), ("validating", 0)):
        for done in (2, 4):
            console.clock.now += seconds if done == 2 else 0
            console.handle(step(kind, done, 4))
    assert lines(console) == ["generating; 2 of 4 rows", "generating; 4 of 4 rows"]


def test_progress_in_a_log_is_a_line_now_and_then(console):
    console.plan = RunPlan(max_update=100, max_epoch=2)
    console.handle(record("fairseq.data.iterators", "grouped total_num_itrs = 30"))
    console.handle(record("fairseq.trainer", "begin training epoch 1"))
    for update in range(1, 41):
        console.handle(step("training", update))
        console.clock.now += 1
    assert lines(console) == [
        "epoch 1: loss 1.250, 1.0 s per update, 44 s left; 16 of 60 updates",
        "epoch 1: loss 1.250, 1.0 s per update, 29 s left; 31 of 60 updates",
    ]


def test_speed_leaves_out_validation(console):
    console.handle(step("training", 1))
    console.clock.now += 1
    console.handle(step("training", 2))
    console.clock.now += 1000
    console.handle(record("valid", json.dumps({"epoch": 1, "valid_loss": "2", "valid_num_updates": "2"}), path=BAR_MODULE))
    for update in (3, 4):
        console.handle(step("training", update))
        console.clock.now += 1
    console.clock.now += 100
    console.handle(step("validating", 7, 20))
    assert lines(console)[-1] == "validating; 7 of 20 rows"
    assert "1.0 s per update" in lines(console)[1]


def test_a_bar_on_a_terminal_is_drawn_over_and_gone_at_the_end():
    console = Console(Terminal(), clock=Clock())
    console.plan = RunPlan(max_update=4)
    for update in range(1, 5):
        console.handle(step("training", update))
        console.clock.now += 0.5
    console.handle(record("unival.tasks.base", "a message"))
    console.close()
    text = console.stream.getvalue()
    assert "[############............] 2 of 4  epoch 0: loss 1.250, 2.0 updates/s, 1 s left" in text
    assert text.endswith("\r\x1b[Ka message\n")
    assert text.count("\n") == 1


@pytest.mark.parametrize(
    ("plan", "per_epoch", "expected"),
    [
        (RunPlan(), 10, None),
        (RunPlan(max_update=7), None, 7),
        (RunPlan(max_epoch=3), 10, 30),
        (RunPlan(max_epoch=3), None, None),
        (RunPlan(25, 3), 9, 25),
    ],
)
def test_the_number_of_updates(plan, per_epoch, expected):
    assert plan.updates(per_epoch) == expected


def test_a_validation_has_a_line_for_each_stream(console):
    streams = {f"stream-{i}": {"loss": "2.5", "nll_loss": "2", "ntokens": "900", "cider": f"0.{i}"} for i in range(10)}
    stats = {"epoch": 1, "valid_loss": "3", "valid_num_updates": "8", "valid_best_stream-2/cider": "0.3"}
    stats |= {f"valid_{name}/{key}": value for name, values in streams.items() for key, value in values.items()}
    console.handle(record("valid", json.dumps(stats), path=BAR_MODULE))
    console.handle(record("fairseq.checkpoint_utils", "Saved checkpoint out/a.pt (epoch 1 @ 8 updates, score 1) (writing took 1 seconds)"))
    expected = [f"  stream-{i}  loss 2.5, cider {i / 10:g}" for i in range(10)]
    assert lines(console) == ["epoch 1, 8 updates, valid: loss 3, best_stream-2/cider 0.3; saved out/a.pt", *expected]


def test_a_validation_and_where_it_was_saved_are_one_line(console):
    console.plan = RunPlan(metric="cider", maximize=True)
    for value, best in (("0.5", None), ("0.25", "0.5")):
        stats = {"epoch": 2, "valid_loss": "3.21", "valid_ppl": "9", "valid_cider": value, "valid_num_updates": "8"}
        stats |= {"valid_best_cider": best} if best else {}
        console.handle(record("valid", json.dumps(stats), path=BAR_MODULE))
    console.handle(
        record("fairseq.checkpoint_utils", "Saved checkpoint out/a.pt (epoch 2 @ 8 updates, score 1) (writing took 3 seconds)")
    )
    assert lines(console) == [
        "epoch 2, 8 updates, valid: loss 3.21, cider 0.5",
        "epoch 2, 8 updates, valid: loss 3.21, cider 0.25, best_cider 0.5; saved out/a.pt",
    ]
    assert console.seen.best == 0.5


def test_skipped_rows_of_an_epoch_are_counted(console):
    for epoch, skipped in enumerate(("0", "8"), start=1):
        console.handle(record("train_inner", json.dumps({"epoch": epoch, "num_skipped": "3"}), path=BAR_MODULE))
        console.handle(record("train", json.dumps({"epoch": epoch, "train_num_skipped": skipped}), path=BAR_MODULE))
    console.handle(record("train", json.dumps({"epoch": 3, "train_loss": "1"}), path=BAR_MODULE))
    assert lines(console) == ["epoch 2: 8 rows skipped"]


def test_scores_are_not_lost_when_nothing_follows(console):
    console.handle(record("valid", json.dumps({"valid_loss": "1", "epoch": 1, "valid_num_updates": 3}), path=BAR_MODULE))
    console.close()
    assert lines(console) == ["epoch 1, 3 updates, valid: loss 1"]


def test_messages_of_the_package_are_shown_and_fairseqs_are_not(console):
    console.handle(record("unival.tasks.base", "train: 8 rows from a.jsonl"))
    console.handle(record("fairseq_cli.train", "UnivalModel(\n  (encoder): …"))
    console.handle(record("fairseq.tasks.fairseq_task", "can_reuse_epoch_itr = False"))
    console.handle(record("fairseq.trainer", "ran out of memory\nTraceback", logging.WARNING))
    console.handle(record("train_inner", json.dumps({"loss": "1"}), path=BAR_MODULE))
    assert lines(console) == ["train: 8 rows from a.jsonl", "warning: fairseq: ran out of memory"]


def test_warnings_of_one_kind_are_limited_and_counted(console):
    for row in range(10):
        made = record("unival.data.stream", "skipped: row %d", logging.WARNING)
        made.args = (row,)
        console.handle(made)
    console.handle(record("unival.data.stream", "another", logging.WARNING))
    console.clock.now += 100
    made = record("unival.data.stream", "skipped: row %d", logging.WARNING)
    made.args = (10,)
    console.handle(made)
    assert lines(console) == [
        *(f"warning: skipped: row {row}" for row in range(3)),
        "warning: another",
        "warning: skipped: row 10 (number 11 of this kind; the log has all)",
    ]


def test_fairseqs_own_lines_when_they_are_asked_for():
    console = Console(io.StringIO(), show_stats=True)
    console.handle(record("train_inner", '{"loss": "1"}', path=BAR_MODULE))
    assert lines(console) == ['train_inner | {"loss": "1"}']


@pytest.mark.parametrize(("seconds", "text"), [(0.4, "0 s"), (59.4, "59 s"), (60, "1 min 0 s"), (3725, "1 h 2 min")])
def test_durations(seconds, text):
    assert duration(seconds) == text


def test_a_session_puts_logging_back_and_its_file_has_everything(tmp_path):
    root = logging.getLogger()
    before = root.level, list(root.handlers), logging.getLogger("unival").handlers[:]
    stream, path = io.StringIO(), tmp_path / "deep" / "a.log"
    with pytest.raises(KeyError), Session(stream) as session:
        logging.getLogger("fairseq.early").info("before the place is known")
        session.open(path)
        logging.getLogger("fairseq.late").info("after it")
        logging.getLogger("unival.x").info("seen")
        raise KeyError("gone")
    assert (root.level, list(root.handlers), logging.getLogger("unival").handlers) == before
    assert stream.getvalue() == "seen\n"
    text = path.read_text()
    assert "before the place is known" in text and "after it" in text and "| seen" in text
    assert "Traceback" in text and "KeyError: 'gone'" in text


def test_other_ranks_show_errors_only():
    stream = io.StringIO()
    with Session(stream) as session:
        session.silence()
        session.tell("a")
        logging.getLogger("unival.x").warning("b")
        logging.getLogger("unival.x").error("c")
    assert stream.getvalue() == "error: c\n"
