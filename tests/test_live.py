"""What the quickstart's helpers do: the live line, the choice of threads, the advice for a model that does not look."""

import importlib.util
import io
import json
import pathlib
import re
import subprocess
import sys
import time

import pytest

SCRIPTS = pathlib.Path(__file__).resolve().parents[1] / "run_scripts"


def load(name):
    """A helper of the run scripts, which are no package."""
    spec = importlib.util.spec_from_file_location(name, SCRIPTS / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


live, threads, advice = load("live"), load("threads"), load("advice")


class Terminal(io.StringIO):
    def isatty(self):
        return True


class Clock:
    def __init__(self):
        self.now = 0.0

    def __call__(self):
        return self.now


# The live line --------------------------------------------------------------------------------------------------


def test_a_log_gets_a_line_every_15_seconds():
    clock, stream = Clock(), io.StringIO()
    screen = live.Screen(stream, clock)
    for second in range(0, 61):
        clock.now = second
        screen.show(None, f"second {second}")
    assert stream.getvalue().splitlines() == [f"  second {second}" for second in (15, 30, 45, 60)]


def test_a_terminal_gets_one_bar_that_is_rewritten(monkeypatch):
    monkeypatch.setenv("COLUMNS", "60")
    stream = Terminal()
    screen = live.Screen(stream)
    screen.show(0.5, "pictures: 10 of 20 " + "and so on " * 20)
    screen.say("a line that stays")
    screen.show(1.0, "done")
    screen.clear()
    first, cleared, said, *_ = re.split(r"\r(?=[^\n]*)", stream.getvalue())[1:]
    assert first.startswith("[############............] pictures: 10 of 20") and len(first) == 59, "fits the terminal"
    assert not cleared.strip() and said.startswith("  a line that stays\n")
    assert stream.getvalue().endswith("\r" + " " * 59 + "\r"), "the bar leaves nothing behind"


def test_things_are_counted(tmp_path):
    for name in ("a.jpg", "b.jpg", "c.txt"):
        (tmp_path / name).touch()
    watch = live.Counted("pictures", 8, lambda: live.count_files(f"{tmp_path}/*.jpg"))
    assert watch.look(4.0, None) == (0.25, "pictures: 2 of 8, 0.5/s, 0:12 left")
    assert live.Counted("rows", 900, lambda: 600).look(4.0, None)[1] == "rows: 600 of 900, 150/s, 0:02 left"
    assert live.Counted("x", 8, lambda: 0).look(75, None) == (0, "x: 0 of 8, starting, 1:15 so far")
    assert live.Counted("x", 8, lambda: 8).look(75, None) == (1, "x: 8 of 8, finishing, 1:15 so far")
    generated = tmp_path / "generate-test.txt"
    count = live.CountedLines(generated, "D-")
    assert count() == 0, "it is not there yet"
    generated.write_text("S-0\tx\nD-0\ty\nD-1")
    assert count() == 1, "a line that is not whole does not count"
    with generated.open("a") as file:
        file.write("\tz\n")
    assert count() == 2 == count()


def records(**changes):
    """A line of fairseq's log within an epoch, and the two of a validation."""
    record = {"epoch": 1, "loss": "3.21", "ups": "2", "num_updates": "40", "lr": "0.0015", "wall": "20"} | changes
    return json.dumps(record)


def valid(update, right, other):
    return [
        json.dumps({"epoch": 1, "valid_loss": "2", "valid_cider": str(right), "valid_num_updates": str(update)}),
        json.dumps({"epoch": 1, "valid_swapped_cider": str(other), "valid_swapped_num_updates": str(update)}),
    ]


def test_training_line_and_the_signal(tmp_path):
    """From fairseq's log: the state, the scores as they grow, the signal once, and how much time is left in each phase."""
    log, signal = tmp_path / "train.jsonl", tmp_path / "looks"
    watch = live.Training(log, minutes=1, limit=5, ratio=4, signal=signal)
    screen = live.Screen(io.StringIO())

    def look(elapsed, *lines):
        with log.open("a") as file:
            file.writelines(f"{line}\n" for line in lines)
        return watch.look(elapsed, screen)

    assert look(5, "not JSON", '{"task": 1') == (None, "training: starting, 0:05 so far")
    done, text = look(30, records())
    assert (done, text) == (20 / 60, "training: update 40, 2/s, loss 3.21, 0:40 left")
    _, text = look(40, *valid(60, 0.5, 0.25))
    assert "CIDEr 0.50 (other image 0.25)" in text and text.endswith("0:30 left") and not signal.exists()
    look(41, *valid(60, 0.5, 0.25))  # fairseq writes lines twice
    look(42, *valid(90, 0.9, 0.01))
    assert not signal.exists(), "of two scores near zero, any ratio may be chance"
    done, text = look(72, records(num_updates="90", wall="62"))
    assert text.endswith("until it looks, at most 3:58 more") and done == pytest.approx(62 / 300)
    look(80, *valid(120, 2, 0.5))
    assert signal.exists()
    done, text = look(90, records(num_updates="130", wall="80", last_update="140"))
    assert text.endswith("0:05 left") and done == 130 / 140, "the schedule has said where the run ends"
    assert look(95, records(num_updates="140", wall="85", last_update="140"))[1].endswith("finishing")
    assert screen.stream.getvalue().splitlines() == [
        "  update 60: validation CIDEr 0.50 with the right pixels, 0.25 with another image's",
        "  update 90: validation CIDEr 0.90 with the right pixels, 0.01 with another image's",
        "  update 120: validation CIDEr 2.00 with the right pixels, 0.50 with another image's: the model looks",
    ]
    assert watch.summary()["updates"] == 140 and watch.summary()["looks"]


def test_commands_run_with_their_messages_in_the_log(tmp_path, capfd):
    """Success, a one-line error, a failure with a long log: what the person sees."""
    log = tmp_path / "log"

    def run(code, *more):
        return live.main(["--title", "x", "--log", str(log), *more, "--", sys.executable, "-c", code])

    assert run("import sys; print('result'); print('noise', file=sys.stderr)", "--show") == 0
    assert capfd.readouterr().out == "  result\n" and log.read_text() == "noise\n"
    assert run("print('noise')") == 0 and log.read_text() == "noise\n"
    assert capfd.readouterr() == ("", "")
    assert run("import sys; print('noise'); sys.exit('error: --out x: holds other data')") == 1
    assert capfd.readouterr().err == "error: --out x: holds other data\n"
    said = "The model scores only 1.00 times as high …: it has not learnt to look. Set MINUTES=30"
    assert run(f"import sys; print('CIDEr: 0.2'); print('noise', file=sys.stderr); sys.exit({said!r})", "--show") == 1
    assert capfd.readouterr() == ("  CIDEr: 0.2\n", said + "\n"), "the report of a model that does not look"
    assert run("import sys; print('\\n'.join(map(str, range(99)))); sys.exit(3)") == 3
    shown = capfd.readouterr().err.splitlines()
    assert shown[:-1] == [str(n) for n in range(87, 99)]
    assert shown[-1] == f"This failed: {sys.executable} -c; all its messages are in {log}"


def test_stopping_stops_the_command(tmp_path):
    """Ctrl-C reaches the whole group: the command ends first, then one line says so."""
    code = "import time; print('up', flush=True); time.sleep(60)"
    command = [sys.executable, str(SCRIPTS / "live.py"), "--title", "x", "--log", str(tmp_path / "log"), "--", sys.executable, "-c", code]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, start_new_session=True)
    deadline = time.monotonic() + 60
    while not (tmp_path / "log").exists() or "up" not in (tmp_path / "log").read_text():
        assert time.monotonic() < deadline
        time.sleep(0.05)
    import os
    import signal

    os.killpg(process.pid, signal.SIGINT)
    assert process.wait(30) == 130
    assert process.stderr.read() == f"Stopped; all messages are in {tmp_path / 'log'}\n"


# Threads --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("cores, expected", [(1, [1]), (2, [1, 2]), (6, [1, 2, 4, 6]), (8, [1, 2, 4, 8])])
def test_numbers_of_threads(cores, expected):
    assert threads.candidates(cores) == expected


def choose(seconds, counts=(1, 2, 4)):
    """The choice where an act with n threads takes seconds[n] (or what that gives for the number of earlier acts)."""
    clock, used, acts = Clock(), [], []

    def act():
        acts.append(used[-1])
        cost = seconds[used[-1]]
        clock.now += cost(len(acts)) if callable(cost) else cost

    best, measured = threads.fastest(counts, used.append, act, clock)
    return best, measured, acts


def test_the_fastest_number_of_threads_is_taken():
    assert choose({1: 1.0, 2: 0.6, 4: 0.5})[0] == 4, "an idle machine"
    assert choose({1: 1.0, 2: 3.0, 4: 9.0})[0] == 1, "a busy one"
    assert choose({1: 0.5, 2: 0.49, 4: 0.51})[0] == 1, "as fast within five percent: the smaller"


def test_hopeless_numbers_are_tried_once_and_the_trial_ends():
    _, _, acts = choose({1: 1.0, 2: 3.0, 4: 1.2})
    assert acts.count(2) == 1 and acts.count(1) == acts.count(4) == 9
    _, _, acts = choose({1: 1.0, 2: 2.0, 4: 1.2})
    assert acts.count(2) == 3 and acts.count(1) == acts.count(4) == 9
    _, _, acts = choose({1: 30.0, 2: 31.0, 4: 32.0})
    assert len(acts) == 9, "a very slow machine has one round"


def test_load_that_comes_and_goes_hits_all_alike():
    """Somebody else's work makes the first nine acts ten times as slow: the medians of later rounds decide."""

    def act(usual):
        return lambda number: usual * (10 if number <= 6 else 1)

    assert choose({1: act(1.0), 2: act(0.7)}, (1, 2))[0] == 2


# Advice ---------------------------------------------------------------------------------------------------------


def test_advice_names_what_was_made_what_it_takes_and_what_to_set():
    slow = advice.advice(updates=90, seconds=1800, minutes=6, factor=5, needed=350, command="bash q.sh --shapes")
    assert slow == (
        "Training made 90 updates in 30.0 minutes (20 s each); it takes about 350 until a model looks. End other programs, or "
        "give it more time: MINUTES=35 bash q.sh --shapes (that is 175 minutes of training at most)"
    )
    unlucky = advice.advice(updates=700, seconds=360, minutes=6, factor=5, needed=350, command="bash q.sh")
    assert unlucky.startswith("Training made 700 updates in 6.0 minutes (0.51 s each); 350 are usually enough: try SEED=2 bash q.sh")
    assert "MINUTES=12 bash q.sh" in unlucky
    assert "0 updates" in advice.advice(0, 0, 6, 5, 350, "x"), "not even one"


def test_training_of_planned_updates(tmp_path):
    """The time left follows from the updates from the start; scores of two subsets give no signal."""
    log = tmp_path / "train.jsonl"
    watch = live.Training(log, minutes=0, limit=0, ratio=4, signal=None, title="images", planned=100)
    screen = live.Screen(io.StringIO())
    log.write_text(records() + "\n")
    assert watch.look(30, screen) == (0.4, "images: update 40, 2/s, loss 3.21, 0:30 left")
    with log.open("a") as file:
        file.writelines(f"{line}\n" for line in [*valid(60, 5, 0.1), records(num_updates="100")])
    assert watch.look(60, screen)[1].endswith("finishing")
    assert (watch.summary()["title"], watch.summary()["updates"], watch.summary()["planned"]) == ("images", 100, 100)
