"""`run_scripts/pretrain/example.sh`, to its end at a size that learns nothing: data, stages, audio afterwards, report; and its note."""

import pathlib

import pytest

from tests import runs
from tests.test_live import load
from tests.test_run_scripts import RECORDER, ROOT, bash, recorded  # noqa: F401  a fixture
from unival.cli import build_parser, main

pytestmark = pytest.mark.filterwarnings("ignore")  # of Hydra's, about fairseq's way to call it
SCRIPT = ROOT / "run_scripts" / "pretrain" / "example.sh"
TINY = [*runs.MODEL, *runs.CPU, "--skip-checks", "--max-update", "1", "--batch-size", "6", "--batch-size-valid", "8"]
TINY += ["--eval-args", '{"beam": 1, "max_len_b": 4}']
SHOWN = ("captions", "regions", "region_captions", "audio_captions")  # of the tasks, those that this test scores
PREDICTED = RECORDER.replace("$(basename \"$0\")", "predict").replace('"$@"', '"${@:2}"')


def test_stages_then_audio_then_the_report(recorded, tmp_path):  # noqa: F811
    """Trains a model of its own size and scores some of the tasks; the other commands are looked at."""
    python = tmp_path / "recording" / "bin" / "python"
    real = python.read_text().partition("\n")[2]
    python.write_text(f'#!/usr/bin/env bash\nif [[ "$1" = *predict.py ]]; then\n{PREDICTED}exit\nfi\n{real}')
    commands = recorded(SCRIPT, "--smoke", OUT=tmp_path / "made", OMP_NUM_THREADS=1)
    out = tmp_path / "made"
    trained = [arguments for _, arguments in commands if arguments[0] == str(out / "data" / "mixture.yaml")]
    assert [arguments[arguments.index("--stage") + 1] for arguments in trained] == ["text", "images", "videos"]
    for command, arguments in commands:
        if command == "predict":
            assert load("pretrain/predict").main([*arguments, "--beam", "1", "--max-len-b", "4"]) == 0
        else:
            run_small(command, arguments)
    page = (out / "report.html").read_text(encoding="utf-8")
    assert page.count("<h2>") == 3 + len(SHOWN) and "text → images → videos: 6 streams" in page
    for stream in ("text", "captions", "questions", "regions", "video_captions", "video_questions"):
        assert f"<tr><td>{stream}</td>" in page
        assert len((out / "generated" / f"generate-{stream}-test.txt").read_text().splitlines()) == 6


def run_small(command, arguments):
    """Run a command of the script in this process, a training with one update of a smaller model; some are only parsed."""
    if command == "train":
        arguments = ["train", *arguments, *TINY]
        if "audio-scratch" in str(arguments):
            return
    else:
        build_parser(arguments[0]).parse_args(arguments)
    if arguments[0] == "score" and pathlib.Path(arguments[1]).name[len("generate-") : -len("-test.txt")] not in SHOWN:
        return
    if arguments[0] == "report":
        arguments = shown_only(arguments)
    try:
        assert main(arguments) == 0, arguments
    finally:
        runs.forget_run()


def shown_only(arguments):
    """The report's arguments without the tasks that were not scored, and without the run that was not made."""
    kept = [arguments[0]]
    for flag, value in zip(arguments[1::2], arguments[2::2], strict=True):
        split = value.partition("=")[0]
        is_left_out = flag in ("--table", "--generated", "--summary", "--per-row", "--view") and split not in SHOWN
        if not is_left_out and not (flag == "--after" and "audio-scratch" in value):
            kept += [flag, value]
    return kept


def test_what_is_not_known_is_one_line(tmp_path):
    for arguments, variables, said in (
        (["--fast"], {}, "unknown argument --fast: known are --smoke, --help"),
        ([], {"SLOWER": "0"}, "SLOWER=0: give a number"),
    ):
        result = bash(SCRIPT, *arguments, cwd=tmp_path, **variables)
        assert result.returncode == 2 and result.stderr.startswith(said) and result.stderr.count("\n") == 1
        assert not list(tmp_path.iterdir())


def test_the_note_says_what_took_too_long():
    note = load("pretrain/note").note
    made = [
        {"title": "text", "updates": 300, "planned": 300, "seconds": 60},
        {"title": "images", "updates": 600, "planned": 600, "seconds": 240},
    ]
    assert note(made, 4) == "All trainings together took 5.0 minutes."
    slow = note([*made, {"title": "videos", "updates": 20, "planned": 250, "seconds": 720}], 4)
    assert "videos 20 of 250" in slow and "SLOWER=8 bash run_scripts/pretrain/example.sh" in slow and "images" not in slow
