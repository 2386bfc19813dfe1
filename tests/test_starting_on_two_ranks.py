"""Every way of starting from a checkpoint works on two processes, and gives what it gives on one; so do recipes of every kind."""

import json
import os
import pathlib
import pickle
import shutil
import subprocess
import sys

import pytest
import torch

from tests import runs, tiny
from tests.ranks import run_on_two_ranks
from tests.test_training import SAME
from unival.cli import main
from unival.commands.fairseq import Request, training_process

ROOT = pathlib.Path(__file__).resolve().parents[1]
# Recipes, and the media that are new in them.
RECIPES = {"caption_coco": "", "video_caption_msrvtt": "video", "audio_caption_audiocaps": "audio", "vqa": "", "snli_ve": ""}
RECIPES |= {"refcoco": ""}
ANSWERED = {"question": "what is red", "answer": {"red": 0.9, "blue": 0.3}}
ANSWERED |= {"hypothesis": "a red square", "premise": "a", "label": "neutral"}
ANSWERED |= {"text": "a red square", "box": [2, 3, 20, 24]}
BINS = 10
ROWS = 12
# Validation generates the same captions on one rank and on two, but takes time: the training flags decide.
FLAGS = [*SAME, "--disable-validation", "--max-epoch", "50", "--num-bins", str(BINS)]
PUBLISHABLE = ["--image-backbone", "resnet50"]  # the least that the published format has
AFRESH = ["--reset-optimizer", "--reset-dataloader", "--reset-meters", "--reset-lr-scheduler"]
SMALL_MEDIA = ["--patch-frame-size", "64", "--num-frames", "4", "--audio-sample-rate", "16000", "--max-audio-seconds", "1"]
SMALL_AUDIO = ["--audio-hop-size", "160", "--audio-fmax", "8000", "--audio-mel-bins", "32", "--audio-window-size", "512"]


class Place:
    """Data, checkpoints to start from, and what each way of starting ended with on one rank and on two."""

    def __init__(self, folder: pathlib.Path):
        self.folder = folder
        self.printed: list[str] = []  # by each of the two ranks
        self.data = folder / "data"
        self.data.mkdir()
        for table in (
            tiny.write_media_table(self.data, rows=ROWS, name="train.jsonl"),
            tiny.write_media_table(self.data, rows=3, name="valid.jsonl", seed=50),
        ):
            rows = [{**json.loads(line), **ANSWERED} for line in table.read_text().splitlines()]
            table.write_text("".join(json.dumps(row) + "\n" for row in rows))
        (self.data / "answers.txt").write_text("red\nblue\n")
        tiny.vocabulary(self.data / "vocab", num_codes=0, num_bins=BINS)
        self.start = folder / "start"
        assert runs.train(self.data, self.start, *FLAGS, "--batch-size", str(ROWS), "--max-update", "2") == 0
        self.published = folder / "published.pt"
        ours = folder / "to publish"
        assert runs.train(self.data, ours, *FLAGS, *PUBLISHABLE, "--batch-size", str(ROWS), "--max-update", "1") == 0
        assert main(["convert", "--to", "published", str(ours / "checkpoint_last.pt"), str(self.published)]) == 0

    def ways(self) -> dict[str, list[str]]:
        """Name -> flags; each makes two updates more than its checkpoint has."""
        last = str(self.start / "checkpoint_last.pt")
        return {
            "resume": ["--max-update", "4"],
            "restore": ["--restore-file", last, *AFRESH, "--max-update", "2"],
            "finetune": ["--finetune-from-model", last, "--max-update", "2"],
            "restore published": ["--restore-file", str(self.published), *AFRESH, *PUBLISHABLE, "--max-update", "2"],
            "finetune published": ["--finetune-from-model", str(self.published), *PUBLISHABLE, "--max-update", "2"],
        }

    def training(self, name: str, ranks: int) -> list[str]:
        out = self.out(name, ranks)
        out.mkdir()
        if name == "resume":
            shutil.copy(self.start / "checkpoint_last.pt", out)
        return runs.train_flags(self.data, out, *FLAGS, "--batch-size", str(ROWS // ranks), *self.ways()[name])

    def stopped_while_saving(self, name: str, whole: bool) -> list[str]:
        """A run whose last checkpoint is cut short, with a whole one of two updates beside it or not."""
        out, start = self.out(name, 2), self.start / "checkpoint_last.pt"
        out.mkdir()
        (out / start.name).write_bytes(start.read_bytes()[:100_000])
        if whole:
            shutil.copy(start, out / "checkpoint_1_2.pt")
        return runs.train_flags(self.data, out, *FLAGS, "--batch-size", str(ROWS // 2), "--max-update", "3")

    def out(self, name: str, ranks: int) -> pathlib.Path:
        return self.folder / f"{name} {ranks}"

    def recipe(self, name: str) -> list[str]:
        """What a recipe passes to `unival train`, at a size for tests."""
        programs = self.folder / f"record {name}" / "bin"
        programs.mkdir(parents=True)
        recorded = programs.parent / "arguments"
        (programs / "unival").write_text(f"#!/usr/bin/env bash\nprintf '%s\\0' \"${{@:2}}\" >'{recorded}'\n")
        (programs / "python").write_text(f'#!/usr/bin/env bash\nPYTHONPATH="{ROOT}" exec "{sys.executable}" "$@"\n')
        for program in programs.iterdir():
            program.chmod(0o755)
        settings = {"DATA": self.data, "VOCAB": self.data / "vocab", "CHECKPOINT": self.start / "checkpoint_last.pt"}
        settings |= {"OUT": self.out(name, 2), "GPUS": 0, "WORKERS": 0, "VIRTUAL_ENV": programs.parent}
        environment = {**os.environ, **{key: str(value) for key, value in settings.items()}}
        small = [*runs.MODEL, *SMALL_MEDIA, *SMALL_AUDIO, "--patch-image-size", "32", "--num-codes", "0", "--num-bins", str(BINS)]
        small += ["--new-modalities", RECIPES[name]]
        more = ["--batch-size", "3", "--update-freq", "1", "--max-update", "2", "--disable-validation"]
        command = ["bash", str(ROOT / "run_scripts" / name / "train.sh"), *small, *more]
        result = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        assert result.returncode == 0, result.stdout + result.stderr
        return recorded.read_text().split("\0")[:-1]


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """Everything is run on two ranks here, in one pair of processes."""
    place = Place(tmp_path_factory.mktemp("ranks"))
    again = [*place.training("resume", 2)]
    trainings = [again, *(place.training(name, 2) for name in place.ways() if name != "resume")]
    again = [argument if argument != "4" else "6" for argument in again]
    trainings += [again, *map(place.recipe, RECIPES), place.stopped_while_saving("stopped", whole=True)]
    damaged = place.stopped_while_saving("damaged", whole=False)
    place.printed = run_on_two_ranks(place.folder, *trainings, damaged, codes=[*(0 for _ in trainings), 1])
    return place


def state(out):
    return torch.load(out / "checkpoint_last.pt", weights_only=True)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["restore", "finetune", "restore published", "finetune published"])
def test_starting_from_a_checkpoint_gives_what_one_process_gives(place, name):
    assert main(["train", *place.training(name, 1)]) == 0
    runs.forget_run()
    assert_close(state(place.out(name, 1)), state(place.out(name, 2)), updates=2)


@pytest.mark.slow
def test_resuming_gives_what_one_process_gives(place):
    """One process after two updates -> two ranks until four, then until six -> as one process for six."""
    one = place.training("resume", 1)
    assert main(["train", *[argument if argument != "4" else "6" for argument in one]]) == 0
    runs.forget_run()
    assert_close(state(place.out("resume", 1)), state(place.out("resume", 2)), updates=6)


@pytest.mark.slow
def test_one_process_goes_on_where_two_ranks_stopped(place, tmp_path):
    shutil.copy(place.out("resume", 2) / "checkpoint_last.pt", tmp_path)
    flags = [*FLAGS, "--batch-size", str(ROWS), "--max-update", "7"]
    assert runs.train(place.data, tmp_path, *flags) == 0
    assert state(tmp_path)["optimizer_history"][-1]["num_updates"] == 7


@pytest.mark.slow
@pytest.mark.parametrize("name", RECIPES)
def test_recipes_of_every_kind_train_on_two_ranks(place, name):
    trained = state(place.out(name, 2))
    assert trained["optimizer_history"][-1]["num_updates"] == 2
    key = "decoder.layers.0.fc1.weight"
    assert not torch.equal(trained["model"][key], state(place.start)["model"][key])


@pytest.mark.slow
def test_a_run_that_was_stopped_while_saving_is_mended_by_one_rank_before_any_reads(place):
    out = place.out("stopped", 2)
    assert state(out)["optimizer_history"][-1]["num_updates"] == 3
    said = f"{out}: checkpoint_last.pt is cut short, as after a stop while saving: resuming from checkpoint_1_2.pt (2 updates)"
    assert [printed.count(said) for printed in place.printed] == [1, 0]
    failed = f"unival: error: {place.out('damaged', 2)}: no whole checkpoint to resume from: checkpoint_last.pt cut short"
    assert [printed.count(failed) for printed in place.printed] == [1, 1]


@pytest.mark.slow
def test_a_process_that_training_starts_knows_the_plugin(place, tmp_path):
    """On GPUs fairseq starts its ranks afresh, with what they run as a pickle: they have imported the command, but no task."""
    from fairseq import options
    from fairseq.dataclass.utils import convert_namespace_to_omegaconf

    shutil.copy(place.start / "checkpoint_last.pt", tmp_path)
    flags = [*FLAGS, "--batch-size", str(ROWS), "--max-update", "3", "--user-dir", str(ROOT / "unival")]
    arguments = runs.train_flags(place.data, tmp_path, *flags)
    cfg = convert_namespace_to_omegaconf(options.parse_args_and_arch(options.get_training_parser(), arguments))
    request = Request("train", tuple(arguments), verbose=False, traceback=False)
    (tmp_path / "call.pickle").write_bytes(pickle.dumps((training_process, cfg, request)))
    code = f"""
import pathlib, pickle
import unival.cli
function, cfg, request = pickle.loads(pathlib.Path({str(tmp_path / "call.pickle")!r}).read_bytes())
function(cfg, request=request, log=pathlib.Path({str(tmp_path / "train.log")!r}), start=0.0)
"""
    result = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    assert state(tmp_path)["optimizer_history"][-1]["num_updates"] == 3


def assert_close(one, two, updates):
    assert one["optimizer_history"][-1]["num_updates"] == two["optimizer_history"][-1]["num_updates"] == updates
    for key, value in one["model"].items():
        torch.testing.assert_close(two["model"][key], value, rtol=1e-4, atol=1e-6, msg=lambda text, key=key: f"{key}: {text}")
