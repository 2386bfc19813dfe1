"""What bad input gets: one line that names the thing and the alternatives, exit code 1, no traceback."""

import json
import pathlib
import shutil

import pytest
import torch

from tests import runs, tiny
from unival.cli import main


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return tiny.write_data(tmp_path_factory.mktemp("data"), train=4, valid=2)


@pytest.fixture(scope="module")
def checkpoint(data, tmp_path_factory):
    out = tmp_path_factory.mktemp("trained")
    assert runs.train(data, out, "--batch-size", "4", "--max-update", "1", "--disable-validation") == 0
    return out / "checkpoint_last.pt"


@pytest.fixture
def own_data(data, tmp_path):
    """A copy that a test may break."""
    return shutil.copytree(data, tmp_path / "data")


def error_of(capsys, *arguments):
    """Run a command that must fail; returns its one line."""
    assert main([str(argument) for argument in arguments]) == 1
    captured = capsys.readouterr()
    last = captured.err[captured.err.rindex("unival: error: ") :]
    assert "Traceback" not in last
    return last


def train_error(capsys, data, tmp_path, *flags):
    (tmp_path / "out").mkdir(exist_ok=True)
    return error_of(
        capsys, "train", *runs.train_flags(data, tmp_path / "out", "--batch-size", "2", "--max-update", "1", *flags)
    )


def test_wrong_column(capsys, data, tmp_path):
    line = train_error(capsys, data, tmp_path, "--instruction", "[IMAGE:image] what? -> [TEXT:captoin]")
    assert "'captoin'" in line and "caption" in line
    assert line.startswith(f"unival: error: {data / 'train.jsonl'}: ") and line.count("\n") == 1


def test_a_column_that_one_split_lacks(capsys, own_data, tmp_path):
    (own_data / "mute.jsonl").write_text(json.dumps({"image": "images/valid.jsonl-0.png"}) + "\n")
    line = train_error(capsys, own_data, tmp_path, "--valid-subset", "mute")
    assert line.startswith(f"unival: error: {own_data / 'mute.jsonl'}: no column 'caption'; there are image; in the")
    assert "instruction '[IMAGE:image]" in line
    assert line.count("\n") == 1 and line.endswith("'\n")


@pytest.mark.parametrize(
    ("instruction", "named"),
    [
        ("[IMAG:image] what? -> [TEXT:caption]", ["IMAG", "IMAGE"]),
        ("[CODE:image] what? -> [TEXT:caption]", ["CODE", "TEXT, IMAGE, VIDEO, AUDIO"]),
        ("[IMAGE:image] where? -> [BOX:caption]", ["location bins", "--num-bins"]),
        ("[IMAGE:image] what? -> [TEXT:caption,max_lenght=3]", ["max_lenght", "max_length"]),
        ("[IMAGE:image] what?", ["->"]),
    ],
)
def test_wrong_instruction(capsys, data, tmp_path, instruction, named):
    line = train_error(capsys, data, tmp_path, "--instruction", instruction)
    assert all(name in line for name in named) and line.count("\n") == 1, line


def test_no_batch_size(capsys, data, tmp_path):
    line = error_of(capsys, "train", *runs.train_flags(data, tmp_path, "--max-tokens", "4096", "--max-update", "1"))
    assert "--batch-size" in line


def test_unknown_split_folder_and_metric(capsys, data, tmp_path):
    assert "train.jsonl, valid.jsonl" in train_error(capsys, data, tmp_path, "--train-subset", "trian")
    assert "nowhere" in train_error(capsys, tmp_path / "nowhere", tmp_path)
    line = train_error(capsys, data, tmp_path, "--eval-metrics", "cidre")
    assert "'cidre'" in line and "cider" in line
    assert "--eval-args" in train_error(capsys, data, tmp_path, "--eval-args", "{beam: 5}")


def test_empty_table(capsys, own_data, tmp_path):
    (own_data / "train.jsonl").write_text("")
    line = train_error(capsys, own_data, tmp_path)
    assert "train.jsonl" in line and "no rows" in line


@pytest.mark.parametrize("workers", ["0", "1"])
def test_truncated_image(capsys, own_data, tmp_path, workers):
    for image in (own_data / "images").glob("train*.png"):
        image.write_bytes(image.read_bytes()[:300])
    line = train_error(capsys, own_data, tmp_path, "--num-workers", workers)
    assert "train.jsonl, row" in line and "column 'image'" in line and "cannot decode" in line
    assert len(line.strip().splitlines()) == 1


def test_broken_rows_can_be_skipped_and_are_counted(own_data, tmp_path):
    image = own_data / "images" / "train.jsonl-2.png"
    image.write_bytes(b"nothing")
    out = tmp_path / "out"
    assert (
        runs.train(
            own_data, out, "--batch-size", "4", "--max-update", "1", "--disable-validation", "--on-bad-sample", "skip"
        )
        == 0
    )
    assert float(runs.log_lines(out, "train_num_skipped")[-1]["train_num_skipped"]) == 1


@pytest.mark.parametrize("workers", ["0", "4"])
def test_skipped_rows_are_counted_even_when_batches_are_left_empty(capsys, own_data, tmp_path, workers):
    """With one row a batch, all rows but one broken: the first batch, the last and those between."""
    for bad in (0, 1, 3):
        (own_data / "images" / f"train.jsonl-{bad}.png").write_bytes(b"nothing")
    flags = ["--batch-size", "1", "--max-epoch", "2", "--on-bad-sample", "skip", "--num-workers", workers]
    assert runs.train(own_data, tmp_path, *flags, "--freeze-batchnorm", "--disable-validation") == 0
    lines = runs.log_lines(tmp_path, "train_num_skipped")
    assert [float(line["train_num_skipped"]) for line in lines] == [3, 3]
    assert "skipped: " in capsys.readouterr().out
    log = (tmp_path / "train.log").read_text()
    for bad in (0, 1, 3):
        assert log.count(f"skipped: {own_data / 'train.jsonl'}, row {bad} (line {bad + 1})") == 2  # once an epoch
    assert "Traceback" not in log


def test_an_epoch_of_nothing_but_bad_rows_is_an_error(capsys, own_data, tmp_path):
    for image in (own_data / "images").glob("train*.png"):
        image.write_bytes(b"nothing")
    line = train_error(capsys, own_data, tmp_path, "--on-bad-sample", "skip", "--max-update", "9", "--skip-checks")
    assert "no row can be used" in line and "train.jsonl, row" in line and "column 'image'" in line
    assert "@ 1 updates" not in line and not (tmp_path / "out" / "checkpoint_last.pt").exists()


def test_half_precision_on_a_cpu_points_to_autocast(capsys, data, tmp_path):
    for flag in ("--bf16", "--fp16"):
        assert "--autocast-bf16" in train_error(capsys, data, tmp_path, flag)


def test_too_many_patches(capsys, data, tmp_path):
    assert "--image-bucket-size" in train_error(capsys, data, tmp_path, "--image-bucket-size", "1")


def test_moving_averages_are_kept(data, tmp_path):
    flags = ["--batch-size", "2", "--max-update", "2", "--store-ema", "--ema-decay", "0.5"]
    assert runs.train(data, tmp_path, *flags, "--autocast-bf16") == 0
    state = torch.load(tmp_path / "checkpoint_last.pt", weights_only=True)
    ema, model = state["extra_state"]["ema"], state["model"]
    assert ema.keys() == model.keys()
    key = "encoder.media.image.backbone.bn1.running_mean"
    assert not torch.equal(ema[key], model[key])


def test_a_checkpoint_brings_its_instruction(data, tmp_path):
    """`--task unival` needs no --instruction to evaluate."""
    own = [
        "--task",
        "unival",
        "--instruction",
        "[IMAGE:image] say it -> [TEXT:caption]",
        "--eval-metrics",
        "exact_match",
    ]
    metric = ["--best-checkpoint-metric", "exact_match"]
    assert runs.train(data, tmp_path, *own, *metric, "--batch-size", "2", "--max-update", "1") == 0
    assert runs.generate(data, tmp_path / "checkpoint_last.pt", tmp_path, "valid", "--task", "unival").is_file()


def test_long_captions_are_counted(own_data, tmp_path):
    rows = [json.loads(line) for line in (own_data / "train.jsonl").read_text().splitlines()]
    rows[0]["caption"] = "red " * 50
    (own_data / "train.jsonl").write_text("\n".join(json.dumps(row) for row in rows))
    out = tmp_path / "out"
    assert runs.train(own_data, out, "--batch-size", "4", "--max-update", "1", "--disable-validation") == 0
    assert float(runs.log_lines(out, "train_num_truncated")[-1]["train_num_truncated"]) == 1


def test_vocabulary_of_another_run(capsys, own_data, checkpoint, tmp_path):
    shutil.rmtree(own_data / "vocab")
    from unival.vocab import train_vocabulary

    train_vocabulary([" something else entirely", " with other words"] * 4, 300, own_data / "vocab")
    line = error_of(
        capsys,
        "generate",
        own_data,
        *runs.TASK,
        *runs.CPU,
        "--path",
        checkpoint,
        "--gen-subset",
        "valid",
        "--batch-size",
        "2",
    )
    assert "another vocabulary" in line and "--vocab-dir" in line


def test_checkpoint_of_another_architecture(capsys, data, checkpoint, tmp_path):
    line = train_error(capsys, data, tmp_path, "--restore-file", str(checkpoint), "--encoder-embed-dim", "64")
    assert "does not fit" in line and "encoder.embed_tokens.weight" in line and "64" in line
    line = train_error(capsys, data, tmp_path, "--restore-file", str(checkpoint), "--encoder-layers", "3")
    assert "missing encoder.layers.2" in line


def test_files_that_are_no_checkpoint(capsys, data, tmp_path):
    assert "no such checkpoint" in error_of(capsys, "run", "--path", tmp_path / "none.pt", "a.png")


class Gadget:
    """Leaves a mark when it is unpickled."""

    def __init__(self, mark):
        self.mark = mark

    def __reduce__(self):
        return pathlib.Path.touch, (self.mark,)


@pytest.mark.parametrize("place", ["whole", "model", "extra_state", "cfg", "optimizer_history"])
@pytest.mark.parametrize("command", ["run", "generate", "train"])
def test_malicious_checkpoints_are_refused_without_running(capsys, data, checkpoint, tmp_path, command, place):
    mark, path = tmp_path / "mark", tmp_path / "evil.pt"
    state = torch.load(checkpoint, weights_only=True)
    gadget = Gadget(mark)
    if place == "model":
        state["model"]["encoder.pos_ln.bias"] = gadget
    else:
        state[place] = gadget
    torch.save(gadget if place == "whole" else state, path)
    if command == "run":
        line = error_of(capsys, "run", "--path", path, "a.png")
    elif command == "generate":
        line = error_of(
            capsys,
            "generate",
            data,
            *runs.TASK,
            *runs.CPU,
            "--path",
            path,
            "--gen-subset",
            "valid",
            "--batch-size",
            "2",
        )
    else:
        line = train_error(capsys, data, tmp_path, "--restore-file", str(path))
    assert "refused" in line and not mark.exists()


def test_run_names_missing_files(capsys, data, checkpoint):
    line = error_of(capsys, "run", "--path", checkpoint, "nowhere.png")
    assert "nowhere.png" in line or "row 0, column 'image'" in line


def test_run_describes_images(capsys, data, checkpoint):
    images = sorted(str(path) for path in (data / "images").glob("valid*.png"))
    assert main(["run", "--path", str(checkpoint), *images]) == 0
    lines = [line.split("\t") for line in capsys.readouterr().out.splitlines() if "\t" in line]
    assert [line[0] for line in lines] == images
