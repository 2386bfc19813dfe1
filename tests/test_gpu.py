"""Training, generation and the Python API on a GPU give what they give on the CPU; precisions and processes that only GPUs have."""

import gc
import itertools
import json
import math

import pytest
import torch

from tests import runs, tiny
from tests.ranks import run_on_two_ranks
from unival.cli import main
from unival.data.reading import Reader
from unival.hub import from_checkpoint
from unival.metrics.score import read_generated

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
EXACT = ["--dropout", "0", "--encoder-drop-path-rate", "0", "--decoder-drop-path-rate", "0", "--disable-validation", "--skip-checks"]
SMALL = ["--patch-frame-size", "64", "--num-frames", "4", "--audio-sample-rate", "16000", "--max-audio-seconds", "1"]
SPECTROGRAM = ["--audio-hop-size", "160", "--audio-fmax", "8000", "--audio-mel-bins", "32", "--audio-window-size", "512"]
MEDIA = {
    "image": "[IMAGE:image] what does the image describe? -> [TEXT:caption]",
    "video": "[VIDEO:video] what does the video describe? -> [TEXT:caption]",
    "audio": "[AUDIO:audio] what does the audio describe? -> [TEXT:caption]",
    "groups": "[IMAGE:image] what? -> [TEXT:caption] ||| [AUDIO:audio] what? -> [TEXT:caption] ||| [TEXT:id] -> [TEXT:caption]",
}
CLOSED = ["--task", "unival", "--instruction", "[IMAGE:image] what? -> [TEXT:word,closed_set]"]
PRECISIONS = ["--fp16", "--bf16", "--amp", "--memory-efficient-fp16"]


FROZEN = ["--freeze-audio-backbone"]  # its dropout cannot be switched off otherwise


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("gpu")
    for name, rows, seed in (("train.jsonl", 8, 0), ("valid.jsonl", 4, 1)):
        path = tiny.write_media_table(folder, rows, name, seed)
        lines = map(json.loads, path.read_text().splitlines())
        path.write_text("".join(json.dumps({**line, "word": tiny.WORDS[i]}) + "\n" for i, line in enumerate(lines)))
    (folder / "answers.txt").write_text("\n".join(tiny.WORDS) + "\n")
    tiny.vocabulary(folder / "vocab", num_codes=0, num_bins=0)
    return folder


@pytest.fixture
def on(monkeypatch):
    """Chooses the device of the runs that follow."""

    def choose(device):
        monkeypatch.setattr(runs, "CPU", [*(["--cpu"] if device == "cpu" else []), *runs.ONE_PROCESS])

    return choose


def losses(out):
    return [float(line["loss"]) for line in runs.log_lines(out, "gnorm")]


def flags(medium):
    frozen = FROZEN if "AUDIO" in MEDIA[medium] else []
    return ["--task", "unival", "--instruction", MEDIA[medium], *SMALL, *SPECTROGRAM, "--batch-size", "4", *frozen]


@pytest.mark.parametrize("medium", MEDIA)
def test_training_gives_the_losses_of_the_cpu(data, tmp_path, on, medium, monkeypatch):
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)
    for device in ("cpu", "cuda"):
        on(device)
        assert runs.train(data, tmp_path / device, *flags(medium), *EXACT, "--max-update", "4") == 0
    assert len(losses(tmp_path / "cuda")) == 4
    assert losses(tmp_path / "cuda") == pytest.approx(losses(tmp_path / "cpu"), rel=2e-3)


@pytest.mark.parametrize("medium", MEDIA)
def test_compiled_training_gives_the_losses_of_the_cpu(data, tmp_path, on, medium, monkeypatch):
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)
    for device, compiled in (("cpu", []), ("cuda", ["--compile"])):
        on(device)
        assert runs.train(data, tmp_path / device, *flags(medium), *EXACT, "--max-update", "4", *compiled) == 0
    assert losses(tmp_path / "cuda") == pytest.approx(losses(tmp_path / "cpu"), rel=2e-3)


@pytest.mark.parametrize("precision", [*PRECISIONS, "--compile --bf16"])
@pytest.mark.parametrize("medium", MEDIA)
def test_every_precision_trains_validates_resumes_and_generates(data, tmp_path, on, medium, precision):
    on("cuda")
    options = [*flags(medium), *precision.split(), "--fp16-init-scale", "4", "--eval-metrics", "exact_match"]
    options += ["--best-checkpoint-metric", "exact_match", "--lr", "3e-3"]
    assert runs.train(data, tmp_path, *options, "--max-epoch", "2") == 0
    assert runs.train(data, tmp_path, *options, "--max-epoch", "4") == 0
    found = losses(tmp_path)
    assert len(found) == 8 and all(map(math.isfinite, found)) and found[-1] < found[0]
    lines = runs.log_lines(tmp_path, "valid_exact_match")
    assert len(lines) == 4 and math.isfinite(float(lines[-1]["valid_loss"]))
    half = [] if precision == "--amp" else precision.split()[-1:]
    instruction = ["--task", "unival", "--instruction", MEDIA[medium], *SMALL]
    file = runs.generate(data, tmp_path / "checkpoint_last.pt", tmp_path, "valid", *instruction, *half)
    assert len(read_generated(file)) == 4


def test_generation_gives_the_texts_of_the_cpu(data, tmp_path, on, monkeypatch):
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)
    on("cuda")
    assert runs.train(data, tmp_path, *flags("image"), "--disable-validation", "--max-update", "30", "--lr", "3e-3") == 0
    checkpoint, found = tmp_path / "checkpoint_last.pt", {}
    for device in ("cpu", "cuda"):
        on(device)
        found[device] = read_generated(runs.generate(data, checkpoint, tmp_path / device, "valid"))
    found["graphs"] = read_generated(runs.generate(data, checkpoint, tmp_path / "graphs", "valid", "--cuda-graphs"))
    for device, row in itertools.product(("cuda", "graphs"), found["cpu"]):
        assert found[device][row] == (found["cpu"][row][0], pytest.approx(found["cpu"][row][1], abs=1e-3))
    model, images = from_checkpoint(checkpoint), sorted(map(str, (data / "images").glob("valid*.png")))
    texts = model.caption(images)
    assert model.to("cuda").caption(images) == texts
    assert model.caption(images, cuda_graphs=True) == texts
    assert main(["run", "--path", str(checkpoint), "--device", "cuda", images[0]]) == 0


@pytest.mark.parametrize("inference", ["search", "graphs", "candidates"])
def test_candidate_answers_are_those_of_the_cpu(data, tmp_path, on, inference, monkeypatch):
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)
    on("cuda")
    closed = [*CLOSED, "--closed-set", str(data / "answers.txt")]
    extra = ["--no-repeat-ngram-size", "0", *(["--inference", "candidates"] if inference == "candidates" else [])]
    assert runs.train(data, tmp_path, *closed, "--disable-validation", "--batch-size", "4", "--max-update", "10", "--lr", "3e-3") == 0
    found = []
    for device in ("cpu", "cuda"):
        on(device)
        checkpoint = tmp_path / "checkpoint_last.pt"
        graphs = ["--cuda-graphs"] if (inference, device) == ("graphs", "cuda") else []
        found.append(read_generated(runs.generate(data, checkpoint, tmp_path / device, "valid", *closed, *extra, *graphs)))
    assert [text for text, _ in found[0].values()] == [text for text, _ in found[1].values()]
    assert {text for text, _ in found[1].values()} <= set(tiny.WORDS)


@pytest.mark.parametrize("precision", [[], ["--fp16", "--fp16-init-scale", "4"], ["--bf16"]], ids=lambda flags: " ".join(flags) or "fp32")
@pytest.mark.parametrize("backend", ["legacy_ddp", "pytorch_ddp"])
def test_two_processes_make_the_updates_of_one(data, tmp_path, on, precision, backend):
    """They share the GPU, which gloo allows; media that a batch of one rank does not have need ``--find-unused-parameters``."""
    on("cuda")
    same = [*flags("groups"), *EXACT, *precision, "--freeze-batchnorm", "--optimizer", "sgd", "--lr", "0.1", "--batch-size", "2"]
    wrapper = ["--ddp-backend", backend, *(["--find-unused-parameters"] if backend == "pytorch_ddp" else [])]
    two = [*runs.train_flags(data, tmp_path / "two", *same, "--max-epoch", "2"), *wrapper]
    assert runs.train(data, tmp_path / "one", *same, "--update-freq", "2", "--max-epoch", "2") == 0
    (tmp_path / "two").mkdir()
    run_on_two_ranks(tmp_path, two)
    assert len(losses(tmp_path / "two")) == 4
    assert losses(tmp_path / "two") == pytest.approx(losses(tmp_path / "one"), rel=2e-3 if not precision else 3e-2)


class Collecting(torch.utils.data.Dataset):
    """A garbage collection comes with every row."""

    def __getitem__(self, row):
        gc.collect()
        return torch.tensor(row)


def test_workers_do_not_free_tensors_of_the_gpu():
    gc.disable()
    try:
        cycle = [torch.ones(1, device="cuda")]
        cycle.append(cycle)
        del cycle
        assert len(list(Reader(Collecting(), torch.stack, [[0], [1], [2]], workers=2, pin_memory=True))) == 3
    finally:
        gc.enable()


def test_epochs_and_validations_with_workers(data, tmp_path, on):
    on("cuda")
    options = ["--num-workers", "2", "--fp16", "--eval-metrics", "exact_match", "--best-checkpoint-metric", "exact_match"]
    assert runs.train(data, tmp_path, *flags("groups"), *options, "--max-epoch", "6") == 0
    assert len(runs.log_lines(tmp_path, "valid_exact_match")) == 6


def test_self_critical_training_on_half_precision(data, tmp_path, on):
    on("cuda")
    options = ["--criterion", "unival_scst", "--scst-args", '{"sampling": true, "beam": 3, "nbest": 3, "max_len_b": 5}']
    assert runs.train(data, tmp_path, *flags("image"), *EXACT, *options, "--fp16", "--max-update", "2") == 0
    assert all(map(math.isfinite, losses(tmp_path)))
