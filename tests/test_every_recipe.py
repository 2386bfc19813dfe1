"""Every recipe, run to its end on a tiny model and tables in the published layout."""

import base64
import json
import pathlib
import re

import pytest

from tests import runs, tiny
from tests.test_run_scripts import RECIPES, ROOT, SCRATCH, name_of, recorded  # noqa: F401  a fixture
from unival.cli import main

pytestmark = pytest.mark.filterwarnings("ignore")  # of Hydra's, about fairseq's way to call it
BACKBONES = ["--image-backbone", "resnet10", "--video-backbone", "resnext3d14", "--audio-backbone", "cnn6"]
VOCABULARY = ["--num-codes", "0", "--num-bins", "20"]
READING = ["--patch-image-size", "32", "--patch-frame-size", "32", "--num-frames", "2"]
READING += ["--audio-sample-rate", "32000", "--max-audio-seconds", "1"]
SMALL = [*runs.MODEL, *BACKBONES, *VOCABULARY, *READING, "--num-workers", "0"]
SMALL += ["--modalities", "image,video,audio", "--max-update", "1", "--skip-checks"]
ROWS = 3
ANSWERS = ("red", "blue", "a square")
BOXES = ("1,2,30.5,31", "0,0,20,20", "5,5,40,38")
LABELS = ("entailment", "neutral", "contradiction")


def cells(task: str, i: int, medium: str) -> list[str]:
    """The row of a published table, with all of its columns."""
    return {
        "caption": [str(i), f"image{i}", f"a red square&&the {ANSWERS[i]}", "", medium],
        "vqa": [str(i), f"image{i}", f"what is this {i}", f"0.3|!+red&&1.0|!+{ANSWERS[i]}", "red&&square", medium],
        "grounding": [str(i), f"image{i}", f"the {ANSWERS[i]}", BOXES[i], medium],
        "entailment": [str(i), f"image{i}", medium, f"this is {ANSWERS[i]}", "a square", LABELS[i]],
    }[task]


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """Tables of every task and medium, a vocabulary, and a model of all media to start from."""
    folder = tmp_path_factory.mktemp("recipes")
    table = [json.loads(line) for line in tiny.write_media_table(folder, ROWS).read_text().splitlines()]
    tiny.vocabulary(folder / "vocabulary", num_codes=0, num_bins=20)
    for task in ("caption", "vqa", "grounding", "entailment"):
        for medium in ("image", "video", "audio"):
            data = folder / f"{task}-{medium}"
            data.mkdir()
            (data / "answers.txt").write_text("\n".join(ANSWERS) + "\n")
            media = [folder / row[medium] for row in table]
            values = [base64.urlsafe_b64encode(file.read_bytes()).decode() if medium == "image" else str(file) for file in media]
            lines = ["\t".join(cells(task, i, value)) + "\n" for i, value in enumerate(values)]
            for split in ("train", "valid", "test"):
                (data / f"{split}.tsv").write_text("".join(lines))
    (folder / "valid.jsonl").write_text((folder / "train.jsonl").read_text())
    flags = [*SMALL, "--instruction", "[IMAGE:image] [VIDEO:video] [AUDIO:audio] what? -> [TEXT:caption]"]
    assert runs.train(folder, folder / "start", *flags, "--vocab-dir", str(folder / "vocabulary"), "--batch-size", "3") == 0
    return folder


def task_and_medium(script: pathlib.Path) -> tuple[str, str]:
    """Which tables a recipe takes, by its name."""
    name = script.stem if script.parent.name in ("linear_only", "zero_shot", "scst") else script.parent.name
    medium = next((medium for medium in ("video", "audio") if name.startswith(medium)), "image")
    if "caption" in name or name == "nocaps":
        return "caption", medium
    return "grounding" if name.startswith("refcoco") else "entailment" if name == "snli_ve" else "vqa", medium


@pytest.fixture(scope="module")
def finished():
    """Folders of the training recipes that have run, and what they wrote."""
    return {}


def is_training(script: pathlib.Path) -> bool:
    return script.name != "eval.sh" and script.parent.name != "zero_shot"


def run(recorded, script, place, checkpoint, out, *more):  # noqa: F811
    """Run the commands of a recipe in this process, with more flags; returns the names of the files that are there then."""
    task, medium = task_and_medium(script)
    inputs = {"DATA": place / f"{task}-{medium}", "CHECKPOINT": checkpoint, "OUT": out, "GPUS": 0}
    if medium == "video":  # else that of the checkpoint
        inputs["VOCAB"] = place / "vocabulary"
    flags = [*(SMALL if is_training(script) else [*VOCABULARY, "--num-workers", "0", "--beam", "2"]), *more]
    for command, arguments in recorded(script, *flags, **inputs):
        try:
            assert main(arguments if command == "unival" else [command, *arguments]) == 0
        finally:
            runs.forget_run()
    return {path.name for path in out.iterdir()}


# A recipe of each kind: its first start ends after one update, within an epoch, and the second makes the other one
TRAINED = ("caption_coco", "vqa", "refcoco", "snli_ve", "easy_vqa", "video_caption_msrvtt", "audio_caption_audiocaps")
OTHERS = ("linear_only/caption_coco", "scst/caption_coco", "scst/refcoco")
RESUMED = {ROOT / "run_scripts" / f"{name}.sh" for name in (*(f"{name}/train" for name in TRAINED), *OTHERS)}
TWICE = ("--batch-size", "1", "--update-freq", "1", "--max-update", "2", "--patch-frame-size", "64")  # one video has features enough


def train(recorded, script, place, out):  # noqa: F811
    """Run a training recipe, some in two starts; returns the names of the files that it wrote."""
    start, more = place / "start" / "checkpoint_last.pt", TWICE if script in RESUMED else ()
    before = ""
    if script in RESUMED:
        run(recorded, script, place, start, out, *more, "--stop-time-hours", "1e-9", "--disable-validation")
        before = (out / "train.log").read_text()
    written = run(recorded, script, place, start, out, *more)
    if script in RESUMED:
        said = (out / "train.log").read_text().removeprefix(before)
        assert re.findall(r"Loaded checkpoint (\S+) \(epoch 1 @ (\d+) updates\)", said) == [(str(out / "checkpoint_last.pt"), "1")]
        first, last = (float(re.findall(r'"train_lr": "([^"]+)"', log)[-1]) for log in (before, said))
        assert first > 0 == last, "the schedule is that of the whole run"
        assert "@ 1 updates" in before and "@ 2 updates" not in before and "@ 2 updates" in said
    return written


@pytest.mark.parametrize("script", RECIPES, ids=name_of)
def test_recipe_runs_to_its_end(script, place, finished, recorded, tmp_path, tmp_path_factory):  # noqa: F811
    trains = script if is_training(script) else script.with_name("train.sh")
    start = place / "start" / "checkpoint_last.pt"
    if trains.is_file():
        if trains not in finished:
            folder = tmp_path_factory.mktemp("trained")
            finished[trains] = folder, train(recorded, trains, place, folder)
        folder, written = finished[trains]
        start = folder / "checkpoint_best.pt"  # evaluation is of what training writes
    if is_training(script):
        assert {"checkpoint_last.pt", "checkpoint_best.pt", "train.jsonl"} <= written
        assert ("checkpoint_best_ema.pt" in written) == (task_and_medium(script)[0] == "vqa" and script not in SCRATCH)
    else:
        (scores,) = [name for name in run(recorded, script, place, start, tmp_path / "out") if name.startswith("scores-")]
        assert json.loads((tmp_path / "out" / scores).read_text())
