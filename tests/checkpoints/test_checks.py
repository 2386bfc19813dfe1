"""A container's parts have the right types, its options are plain text and its weights plain tensors; else its file is refused by name."""

import argparse

import pytest
import torch

from unival.checkpoints import files
from unival.checkpoints.backbones import backbone_weights
from unival.checkpoints.checks import interpolated
from unival.errors import UserError

SECRET = "${oc.env:SECRET}"


def refused(path, call=files.read):
    with pytest.raises(UserError) as error:
        call(path)
    message = str(error.value)
    assert message.startswith(f"{path}: ") and "\n" not in message and "SECRET" not in message.removeprefix(str(path))
    return message


@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
@pytest.mark.parametrize(
    "content, place",
    [
        ({"cfg": {"task": {"instruction": f"what is {SECRET}?"}}}, "cfg.task.instruction"),
        ({"cfg": {"model": argparse.Namespace(deep=[1, {"x": SECRET}])}}, "cfg.model.deep.1.x"),
        ({"cfg": {"common": {"${a}": 1}}}, "cfg.common.${a}"),
        ({"args": argparse.Namespace(data=SECRET)}, "args.data"),
    ],
)
def test_interpolations_are_refused(tmp_path, content, place, suffix):
    files.write(tmp_path / f"c{suffix}", {**content, "model": {"a": torch.ones(1)}})
    assert f"the option {place} holds '${{'" in refused(tmp_path / f"c{suffix}")


def test_what_refers_to_itself_ends():
    loop = ["plain"]
    loop.append({"again": loop, "price": "$ {5}"})
    assert interpolated(loop, "cfg") is None
    loop.append((SECRET,))
    assert interpolated(loop, "cfg") == "cfg.2.0"


@pytest.mark.parametrize(
    "content, message",
    [
        ({"cfg": "text"}, "cfg is of type str, expected dict"),
        ({"cfg": {"model": [1]}}, "cfg.model is of type list, expected dict or Namespace"),
        ({"cfg": {"model": {}, "task": 3}}, "cfg.task is of type int, expected dict or Namespace"),
        ({"task_state": ["a"]}, "task_state is of type list, expected dict"),
        ({"task_state": {"vocabulary_files": "a"}}, "task_state.vocabulary_files is of type str"),
        ({"task_state": {"vocabulary_files": {"dict.txt": 5}}}, "vocabulary_files maps 'dict.txt' to a int"),
        ({"extra_state": 5, "cfg": None, "task_state": None}, None),
    ],
)
def test_parts_of_other_types_are_named(tmp_path, content, message):
    torch.save({**content, "model": {"a": torch.ones(1)}}, tmp_path / "c.pt")
    if message is None:
        assert files.read(tmp_path / "c.pt")["extra_state"] == 5
    else:
        assert message in refused(tmp_path / "c.pt")


@pytest.mark.parametrize(
    "make, message",
    [
        (lambda x: x.to_sparse(), "a is sparse coo"),
        (lambda x: x.to_sparse_csr(), "a is sparse csr"),
        (lambda x: x.to("meta"), "a is a shape without values"),
        (lambda x: torch.quantize_per_tensor(x, 0.1, 0, torch.qint8), "a is quantised (qint8)"),
    ],
)
@pytest.mark.filterwarnings("ignore")
def test_odd_tensors_are_named(tmp_path, make, message):
    path = tmp_path / "c.pt"
    torch.save({"model": {"b": torch.ones(1), "a": make(torch.eye(3))}}, path)
    for call in (lambda path: files.weights(files.read(path), path), lambda path: backbone_weights(path, "image", {})):
        assert message in refused(path, call)
    with pytest.raises(UserError, match="^a is "):
        files.weights(files.read(path))
    torch.save({"extra_state": {"ema": {"a": torch.eye(3)}, "ema_fp32_params": [1]}}, path)
    assert "ema_fp32_params is a list" in refused(path, lambda path: files.ema_weights(files.read(path), path))
