"""Two processes make the updates that one makes of the same rows: remainders, skipped rows, batch norms, mixtures, a resumed epoch."""

import json
import math
import re

import pytest
import torch

from tests import runs, tiny
from tests.ranks import run_on_two_ranks
from tests.test_training import SAME, state
from unival.data.mixture import EpochBatches, Mixture
from unival.data.stream import Stream, TextLimits
from unival.data.table import open_table
from unival.instructions import parse
from unival.modalities import MODALITIES
from unival.modalities.composed import MediaOptions
from unival.vocab import Vocabulary

pytestmark = pytest.mark.slow
# One process with twice the update frequency makes the same updates; 13 rows are 7 batches of 2: a remainder for both.
ROWS = 13
PLAIN = [*SAME, "--max-epoch", "2", "--disable-validation", "--skip-checks", "--batch-size", "2"]
SKIP = [*PLAIN, "--on-bad-sample", "skip", "--max-epoch", "1"]
# Rows of an update with an image and without: image codes are no row's, the image's parts are one rank's only or nobody's.
PARTS = [
    *(*PLAIN, "--task", "unival", "--instruction", "[TEXT:id] -> [TEXT:caption] ||| [IMAGE:image] what? -> [TEXT:caption]"),
    *("--momentum", "0.9", "--weight-decay", "0.1", "--store-ema", "--ema-decay", "0.9"),
]
# Two rows of images, of audio and of text in an update; audio is read once and a half.
MIXTURE = [
    *(*SAME, "--task", "unival_pretrain", "--disable-validation", "--skip-checks", "--batch-size", "3", "--max-epoch", "1"),
    *("--freeze-audio-backbone", "--audio-sample-rate", "16000", "--max-audio-seconds", "1", "--audio-hop-size", "160"),
    *("--audio-fmax", "8000", "--audio-mel-bins", "32", "--audio-window-size", "512"),
]
STREAMS = """
streams:
  images: {table: train.jsonl, instruction: "[IMAGE:image] what? -> [TEXT:caption]"}
  audio: {table: audio.jsonl, instruction: "[AUDIO:audio] what? -> [TEXT:caption]"}
  text: {table: train.jsonl, instruction: "[TEXT:id] -> [TEXT:caption]"}
balancing: equal
"""
NORMS = ["--batch-size", "3", "--max-update", "1"]


def bad_rows(data):
    """Both rows of the second rank in the first update, all of the second update, one of the first rank in the third."""
    table = open_table(data / "train.jsonl")
    vocabulary = Vocabulary.load(data / "vocab", 0, 0)
    instruction = parse("[TEXT:id] -> [TEXT:caption]", MODALITIES)
    dataset = Stream(table, instruction, vocabulary, MediaOptions(), TextLimits(), train=True)
    first, second, third, _ = EpochBatches(Mixture([dataset]), 2, ranks=2).rounds(1, True, [])
    return [*first[1], *second[0], *second[1], third[0][0]]


def write_mixture(folder):
    """Seven images with captions, four audio files, and the mixture of both and of text: 18 rows."""
    tiny.write_table(folder, rows=7)
    lines = [{"audio": f"{i}.wav", "caption": caption} for i, caption in enumerate(("a red square", "blue", "a circle above", "green"))]
    for line in lines:
        tiny.write_sound(folder / line["audio"], seed=len(line["caption"]))
    (folder / "audio.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    tiny.vocabulary(folder / "vocab", num_codes=0, num_bins=0)
    (folder / "mixture.yaml").write_text(STREAMS)


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """Every training on two ranks, one after the other in one pair, and its counterpart on one."""
    folder = tmp_path_factory.mktemp("updates")
    for name, rows in (("good", ROWS), ("bad", ROWS), ("six", 6)):
        data = folder / name
        data.mkdir()
        tiny.write_table(data, rows=rows)
        tiny.write_table(data, rows=1 if name == "bad" else 5, name="valid.jsonl", seed=1)
        tiny.vocabulary(data / "vocab", num_codes=0, num_bins=0)
    (folder / "mixture").mkdir()
    write_mixture(folder / "mixture")
    for row in bad_rows(folder / "bad"):
        (folder / "bad" / "images" / f"train.jsonl-{row}.png").write_bytes(b"nothing")
    ways = {
        "plain": ("good", [*PLAIN, "--update-freq", "2"]),
        "skip": ("bad", [*SKIP, "--update-freq", "1"]),
        "stopped": ("good", [*PLAIN, "--update-freq", "1", "--max-update", "2"]),
        "parts": ("good", [*PARTS, "--update-freq", "2"]),
        "parts stopped": ("good", [*PARTS, "--update-freq", "2", "--max-update", "3"]),
        "mixture": ("mixture/mixture.yaml", [*MIXTURE, "--update-freq", "1"]),
        "norms": ("six", NORMS),
        "one row to validate on": ("bad", [*NORMS, "--on-bad-sample", "skip"]),
    }
    for name in ways:
        (folder / f"{name} 2").mkdir()
    trainings = [runs.train_flags(folder / data, folder / f"{name} 2", *flags) for name, (data, flags) in ways.items()]
    resumed = runs.train_flags(folder / "good", folder / "parts stopped 2", *PARTS, "--update-freq", "2")
    checks = [["python", "tests.optim.parts_on_ranks", "check"], ["python", "tests.criterions.updates", "check"]]
    run_on_two_ranks(folder, *trainings, resumed, *checks)
    assert runs.train(folder / "good", folder / "plain 1", *PLAIN, "--update-freq", "4") == 0
    assert runs.train(folder / "good", folder / "parts 1", *PARTS, "--update-freq", "4") == 0
    assert runs.train(folder / "bad", folder / "skip 1", *SKIP, "--update-freq", "2") == 0
    assert runs.train(folder / "mixture" / "mixture.yaml", folder / "mixture 1", *MIXTURE, "--update-freq", "2") == 0
    return folder


@pytest.mark.parametrize("name", ["plain", "skip", "parts", "mixture"])
def test_every_update_is_that_of_one_process(place, name):
    one, two = (runs.log_lines(place / f"{name} {ranks}", "gnorm") for ranks in (1, 2))
    assert len(one) == len(two) == (3 if name == "mixture" else 4)
    for ours, theirs in zip(two, one, strict=True):
        for key in ("loss", "gnorm", "bsz", "num_skipped"):
            key = key if key in theirs else f"train_{key}"  # the last line of an epoch sums it up
            assert float(ours[key]) == pytest.approx(float(theirs[key]), rel=2e-3, abs=2e-3), key
    first, second = (state(place / f"{name} {ranks}" / "checkpoint_last.pt")["model"] for ranks in (1, 2))
    for key, value in first.items():
        assert float((value - second[key]).abs().max()) < 1e-4, key
    skipped = [float(line["train_num_skipped"]) for line in runs.log_lines(place / f"{name} 2", "train_num_skipped")]
    assert skipped == {"skip": [7], "mixture": [0]}.get(name, [0, 0])


def test_streams_have_on_two_processes_what_they_have_on_one(place):
    one, two = (runs.log_lines(place / f"mixture {ranks}", "train_loss")[-1] for ranks in (1, 2))
    for key in (f"train_loss/{stream}" for stream in ("images", "audio", "text")):
        assert float(two[key]) == pytest.approx(float(one[key]), rel=1e-3) and float(one[key]) > 0
    states = [state(place / f"mixture {ranks}" / "checkpoint_last.pt")["extra_state"]["train_iterator"] for ranks in (1, 2)]
    assert states[0] == states[1], "the next epoch begins with the same rows"


def test_parts_that_no_rank_uses_keep_their_bits(place):
    """In spite of weight decay and momentum; one process, whose absent gradients nobody fills up, says how they began."""
    one, two, resumed = (state(place / f"parts{ranks}" / "checkpoint_last.pt") for ranks in (" 1", " 2", " stopped 2"))
    optimizer, other = (run["last_optimizer_state"] for run in (two, one))
    unused = [key for key in two["model"] if re.match(r"decoder\.(\w*image|code_)", key)]
    assert "decoder.embed_image_positions.weight" in unused
    for key in unused:
        assert torch.equal(two["model"][key], one["model"][key]), key
        torch.testing.assert_close(two["extra_state"]["ema"][key], two["model"][key], rtol=1e-5, atol=1e-7)
    assert optimizer["state"].keys() == other["state"].keys()
    assert len(optimizer["state"]) == len(optimizer["param_groups"][0]["params"]) - len(unused)
    for key, value in two["model"].items():
        assert torch.equal(value, resumed["model"][key]), key


def test_norms_have_the_mean_of_both_processes(place):
    """The mean of two halves is that of the whole; one process alone knows its half only."""
    assert runs.train(place / "six", place / "norms 1", *NORMS, "--batch-size", "6") == 0
    one, two = (state(place / f"norms {ranks}" / "checkpoint_last.pt")["model"] for ranks in (1, 2))
    key = "encoder.media.image.backbone.bn1.running_mean"
    assert float(one[key].abs().max()) > 1e-5
    torch.testing.assert_close(two[key], one[key], rtol=1e-4, atol=1e-8)


def test_a_rank_without_rows_to_validate_on_adds_nothing(place):
    loss = float(runs.log_lines(place / "one row to validate on 2", "valid_loss")[-1]["valid_loss"])
    assert math.isfinite(loss) and loss > 0


def test_one_process_ends_the_epoch_that_two_began(place):
    """Two updates of two batches of 2 rows are done: 8 of 13 rows; one process reads the other 5."""
    flags = [*PLAIN, "--max-epoch", "1", "--save-dir", str(place / "stopped 2")]
    assert runs.train(place / "good", place / "stopped 1", *flags) == 0
    assert sum(float(line["bsz"]) for line in runs.log_lines(place / "stopped 1", "gnorm")) == ROWS - 8
    assert state(place / "stopped 2" / "checkpoint_last.pt")["extra_state"]["train_iterator"]["epoch"] == 2
