"""The README's own code blocks, run as they stand on tiny data."""

import os
import pathlib
import re
import shutil
import subprocess
import sys

import pytest

from tests import runs, tiny
from unival.cli import main

ROOT = pathlib.Path(__file__).resolve().parents[1]
SMALL = "--num-codes 0 --num-bins 0 --cpu --num-workers 0"  # argparse: the last one wins


def blocks(language: str) -> list[str]:
    """The README's code blocks of a language."""
    return re.findall(rf"```{language}\n(.*?)```", (ROOT / "README.md").read_text(encoding="utf-8"), flags=re.S)


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A working directory as after the quickstart: data, a vocabulary, a trained model."""
    folder = tmp_path_factory.mktemp("readme")
    data = folder / "quickstart" / "data"
    data.mkdir(parents=True)
    for seed, split in enumerate(("train", "valid", "test")):
        tiny.write_table(data, rows=4, name=f"{split}.jsonl", seed=seed)
    (data / "images" / "test").mkdir()
    (data / "images" / "test.jsonl-0.png").rename(data / "images" / "test" / "000000.jpg")
    table = (data / "test.jsonl").read_text().replace("images/test.jsonl-0.png", "images/test/000000.jpg")
    (data / "test.jsonl").write_text(table)
    tiny.vocabulary(data / "vocab", num_codes=0, num_bins=0)
    assert runs.train(data, folder / "quickstart" / "model", "--batch-size", "4", "--max-update", "1") == 0
    return folder


def shell(command: str, folder: pathlib.Path) -> str:
    """Run a command in a shell with this interpreter's scripts first; it must succeed."""
    path = f"{pathlib.Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    result = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", command],
        cwd=folder,
        env={**os.environ, "PATH": path},
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert result.returncode == 0, f"{command}\n{result.stdout[-2000:]}\n{result.stderr[-2000:]}"
    return result.stdout


def with_paths(command: str) -> str:
    """The placeholders filled in."""
    paths = {"VOCABULARY": "quickstart/data/vocab", "CHECKPOINT": "quickstart/model/checkpoint_best.pt"}
    paths.update(DATA="quickstart/data", OUT="out")
    for name, path in paths.items():
        command = re.sub(rf"\b{name}\b", path, command)
    return command.replace("--user-dir unival", f"--user-dir {ROOT / 'unival'}")


@pytest.mark.slow
def test_training_generating_and_scoring(place):
    block = next(block for block in blocks("bash") if "fairseq-train" in block)
    commands = re.findall(r"^\S.*?(?<!\\)$", block, flags=re.S | re.M)
    assert [command.split()[0] for command in commands] == ["fairseq-train", "fairseq-generate", "unival"]
    smaller = f"{SMALL} {' '.join(runs.MODEL)} --patch-image-size 32 --batch-size 2 --max-update 2"
    log = shell(f"mkdir -p out; {with_paths(commands[0])} {smaller}", place)
    assert "loading pretrained model from quickstart/model/checkpoint_best.pt" in log
    assert sorted(path.name for path in (place / "out").glob("*.pt")) == ["checkpoint_best.pt", "checkpoint_last.pt"]
    shell(f"{with_paths(commands[1])} {SMALL}", place)
    assert "cider" in shell(with_paths(commands[2]), place).lower()


def test_running_a_trained_model(place):
    block = next(block for block in blocks("bash") if "unival run" in block)
    assert "quickstart/data/images/test/000000.jpg\t" in shell(block, place)


def test_inspecting_and_converting(place):
    block = next(block for block in blocks("bash") if "unival inspect" in block)
    shown = shell(block, place)
    assert "image CNN" in shown or "image" in shown
    converted = shell("unival run --path model.safetensors quickstart/data/images/test/000000.jpg", place)
    original = shell(
        "unival run --path quickstart/model/checkpoint_best.pt quickstart/data/images/test/000000.jpg", place
    )
    assert converted == original


def test_merging(place, monkeypatch, capsys):
    monkeypatch.chdir(place)
    for name in "ABC":
        shutil.copy("quickstart/model/checkpoint_best.pt", f"{name}.pt")
    (block,) = (block for block in blocks("bash") if "unival sweep" in block)
    sweep, barrier, select = re.findall(r"^unival (\S.*?)(?<!\\)$", with_paths(block), flags=re.S | re.M)
    smaller = "--points 0,1 --set captions.eval_args={\"beam\":1,\"max_len_b\":3} --set answers.eval_metrics="
    for command in (f"{sweep} {smaller}", f"{barrier} --points 0,1", f"{select} --set eval_metrics="):
        assert main(command.replace("\\\n", " ").split()) == 0, capsys.readouterr().err
    said = capsys.readouterr().out
    assert "chosen for all tables: lambda 0" in said and "\nbarrier 0.0000 [" in said and "selected 2 models of 3: A.pt, B.pt" in said
    assert (place / "out" / "curves.png").is_file() and (place / "experts.pt").is_file()


def test_the_python_api(place, monkeypatch):
    monkeypatch.chdir(place)
    (block,) = blocks("python")
    names: dict = {}
    exec(compile(block, "README.md", "exec"), names)  # the README's own lines
    assert names["model"].caption(["quickstart/data/images/test/000000.jpg"])


def test_the_small_vocabulary(place):
    (command,) = re.findall(r"`(unival train-vocab [^`]*)`", (ROOT / "README.md").read_text(encoding="utf-8"))
    shell(with_paths(command).replace("quickstart/data/vocab", "small-vocabulary"), place)
    assert (place / "small-vocabulary" / "dict.txt").is_file()


def test_validating_a_table(place, capsys, monkeypatch):
    monkeypatch.chdir(place)
    (command,) = re.findall(r"`unival (validate-data DATA[^`]*)`", (ROOT / "README.md").read_text(encoding="utf-8"))
    assert main(with_paths(command).split()) == 0
    assert capsys.readouterr().out == "quickstart/data/train.jsonl: 4 rows can be read\n"


def test_another_task(place):
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    (flags,) = re.findall(r"`(--task unival --instruction [^`]*)`", text)
    data = place / "colours"
    path = tiny.write_table(data, rows=4, name="train.jsonl")
    lines = [
        line.replace('"image"', '"photo"').replace('"caption"', '"answer"')[:-1] + ', "thing": "square"}'
        for line in path.read_text().splitlines()
    ]
    for split in ("train", "valid"):
        (data / f"{split}.jsonl").write_text("\n".join(lines) + "\n")
    command = f"unival train {data} {flags} --vocab-dir quickstart/data/vocab --arch unival_tiny --criterion unival_label_smoothed {SMALL}"
    log = shell(
        f"{command} --patch-image-size 32 --batch-size 2 --max-update 1 --optimizer adam --lr 1e-3 --no-save", place
    )
    assert "exact_match" in log
