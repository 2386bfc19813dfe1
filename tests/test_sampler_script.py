"""`run_scripts/sampler.sh`, to its end at a size that learns nothing: tables, training, three tests, guesses, report."""

import json
import pathlib
import re

import pytest

from tests import runs
from tests.test_run_scripts import ROOT, bash, recorded  # noqa: F401  a fixture
from unival.cli import build_parser, main
from unival.commands.report.content import GENERATED_COLOUR

pytestmark = pytest.mark.filterwarnings("ignore")  # of Hydra's, about fairseq's way to call it
SCRIPT = ROOT / "run_scripts" / "sampler.sh"
SMALL = [*runs.MODEL, "--video-backbone", "resnext3d14", "--audio-backbone", "cnn6", "--skip-checks", "--num-workers", "0"]


def run(recorded, tmp_path, task):  # noqa: F811
    """Run the script's commands in this process; returns the folder of the task."""
    for command, arguments in recorded(SCRIPT, task, "--smoke", *SMALL, OUT=tmp_path / "made", WORKERS=0, GPUS=0):
        try:
            assert main(arguments if command == "unival" else [command, *arguments]) == 0
        finally:
            runs.forget_run()
    return tmp_path / "made" / task


def test_grounding(recorded, tmp_path, capsys):  # noqa: F811
    out = run(recorded, tmp_path, "grounding")
    scores = {path.stem: json.loads(path.read_text()) for path in out.glob("scores-*.json") if "rows" not in path.name}
    assert scores.keys() == {f"scores-{name}" for name in ("test", "test_other_media", "test_other_text", "guesses")}
    assert 0 < scores["scores-guesses"]["mean_iou"] < 0.5
    page = (out / "report.html").read_text(encoding="utf-8")
    assert re.search(r'<div class="asked">\w+ \w+</div>', page) and "box accuracy, without looking" in page
    assert "say something else when asked otherwise" in page and "Guesses of somebody" not in page.split("<h2>Scores")[0]
    assert f'Boxes: <b style="color: {GENERATED_COLOUR}">generated</b>' in page


@pytest.mark.parametrize("task", ["vqa", "entailment", "video_qa", "audio_caption"])
def test_commands_of_other_tasks_are_known(task, recorded, tmp_path):  # noqa: F811
    commands = recorded(SCRIPT, task, "--smoke", *SMALL, OUT=tmp_path / "made", WORKERS=0, GPUS=0)
    splits = ["test", "test_other_media", *(["test_other_text"] if task != "audio_caption" else [])]
    assert [name for name, _ in commands].count("generate") == len(splits)
    for name, arguments in commands:
        if name == "unival":
            build_parser(arguments[0]).parse_args(arguments)
    data = tmp_path / "made" / task / "data"
    for split in ("train", "valid", *splits):
        assert (data / f"{split}.jsonl").is_file()
    if task in ("vqa", "video_qa"):
        assert {"yes", "no"} < set((data / "answers.txt").read_text().splitlines())


def test_what_is_not_known_is_one_line(tmp_path):
    for arguments, said in (((), "no task: there are vqa,"), (("caption",), "unknown task caption: there are vqa,")):
        result = bash(SCRIPT, *arguments, cwd=tmp_path)
        assert result.returncode == 2 and result.stderr.startswith(said) and result.stderr.count("\n") == 1
        assert not list(pathlib.Path(tmp_path).iterdir())
