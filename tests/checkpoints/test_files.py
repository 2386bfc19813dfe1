"""Containers are read safely and mapped, weights are found in them, and what is written comes back."""

import argparse
import json
import pickle
import zipfile

import numpy as np
import pytest
import torch

from unival.checkpoints import files
from unival.errors import UserError


class Gadget:
    """Runs a function when it is unpickled."""

    def __reduce__(self):
        return eval, ("1 + 1",)


def container():
    table = torch.arange(12.0).reshape(4, 3)
    return {
        "args": None,
        "cfg": {"model": argparse.Namespace(width=3), "task": {"_name": "caption"}},
        "model": {"a": table, "b": table, "half": table.half(), "row": table[1:2], "turned": table.t()},
        "extra_state": {"epoch": 2},
    }


@pytest.mark.parametrize("name", ["new/deep/c.pt", "c.safetensors"])
def test_what_is_written_comes_back(tmp_path, name):
    files.write(tmp_path / name, container())
    found = files.read(tmp_path / name)
    for key, value in container()["model"].items():
        assert found["model"][key].dtype == value.dtype and torch.equal(found["model"][key], value)
    assert found["model"]["a"].data_ptr() == found["model"]["b"].data_ptr()  # tied tensors are stored once and stay tied
    assert found["cfg"] == container()["cfg"] and found["extra_state"] == {"epoch": 2}
    assert [path.name for path in (tmp_path / name).parent.iterdir()] == [(tmp_path / name).name]


def test_a_view_does_not_drag_its_storage_along(tmp_path):
    files.write(tmp_path / "c.pt", {"model": {"row": torch.zeros(1000, 1000)[3]}})
    assert (tmp_path / "c.pt").stat().st_size < 20_000


def test_a_failed_write_leaves_the_old_file(tmp_path):
    files.write(tmp_path / "c.safetensors", container())
    with pytest.raises(UserError, match="a set cannot be kept in a safetensors file"):
        files.write(tmp_path / "c.safetensors", {**container(), "odd": {1, 2}})
    assert files.read(tmp_path / "c.safetensors")["extra_state"] == {"epoch": 2}
    assert len(list(tmp_path.iterdir())) == 1


@pytest.mark.parametrize("zipped", [True, False])
def test_numbers_of_numpy_become_plain_ones(tmp_path, zipped):
    meters = {"scalar": np.float64(2.5), "count": np.int32(7), "yes": np.bool_(True), "table": np.asfortranarray([[1, 2], [3, 4]])}
    torch.save({"model": {"a": torch.ones(1)}, "meters": meters}, tmp_path / "c.pt", _use_new_zipfile_serialization=zipped)
    found = files.read(tmp_path / "c.pt")["meters"]
    assert found == {"scalar": 2.5, "count": 7, "yes": True, "table": [[1, 2], [3, 4]]}
    assert {type(value) for value in found.values()} <= {float, int, bool, files.STAND_INS[1][0]}


def test_reading_changes_nothing_for_others(tmp_path):
    torch.save(container(), tmp_path / "c.pt")
    for allowed in ([], [argparse.Namespace]):  # with the latter as the plugin allows it, for fairseq's own reading
        new = [item for item in allowed if item not in torch.serialization.get_safe_globals()]  # the others stay allowed
        with torch.serialization.safe_globals(new):
            before = set(torch.serialization.get_safe_globals())
            files.read(tmp_path / "c.pt")
            assert set(torch.serialization.get_safe_globals()) == before


@pytest.mark.parametrize(
    "content, named",
    [
        ({"model": {"a": torch.ones(1)}, "extra_state": Gadget()}, "it names builtins.eval;"),
        ({"model": {"a": torch.ones(1)}, "cfg": {"model": argparse.Namespace(x=Gadget())}}, "it names builtins.eval;"),
        ({"objects": np.array([object()])}, "numpy value of kind 'O8'"),
        ({"times": np.array(["2020-01-01"], dtype="datetime64[D]")}, "numpy value of kind 'M8'"),
    ],
)
@pytest.mark.parametrize("zipped", [True, False])
def test_more_than_plain_values_is_refused(tmp_path, content, named, zipped):
    torch.save(content, tmp_path / "c.pt", _use_new_zipfile_serialization=zipped)
    with pytest.raises(UserError) as error:
        files.read(tmp_path / "c.pt")
    message = str(error.value)
    assert "c.pt: refused, nothing in it was run: " in message and named in message and "\n" not in message


@pytest.mark.parametrize(
    "name, content, message",
    [
        ("a.pt", b"", "the file is empty"),
        ("a.pt", b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "git lfs pull"),
        ("a.pt", b"<!DOCTYPE html><html></html>", "is a web page"),
        ("a.pt", b"PK\x03\x04 not really", "damaged, or not a checkpoint"),
        ("a.pt", pickle.dumps({"a": 1}, 2), "damaged, or not a checkpoint"),
        ("a.safetensors", b"\x10\0\0\0\0\0\0\0{broken", "damaged, or not a safetensors file"),
        ("renamed.bin", b"\x10\0\0\0\0\0\0\0{broken", "damaged, or not a safetensors file"),
    ],
)
def test_damaged_files_are_named(tmp_path, name, content, message):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError, match=message) as error:
        files.read(tmp_path / name)
    assert str(error.value).startswith(str(tmp_path / name)) and "\n" not in str(error.value)


def test_truncated_file(tmp_path):
    torch.save(container(), tmp_path / "c.pt")
    content = (tmp_path / "c.pt").read_bytes()
    (tmp_path / "c.pt").write_bytes(content[: len(content) // 2])
    with pytest.raises(UserError, match="damaged"):
        files.read(tmp_path / "c.pt")


@pytest.mark.parametrize("key", ["model", "state_dict", None])
def test_weights_are_found(key):
    state = {"conv1.weight": torch.ones(2), "fc.bias": torch.ones(1)}
    found = files.weights({key: state, "epoch": 3} if key else state)
    assert found.keys() == state.keys()


def test_no_weights():
    with pytest.raises(UserError, match="has no weights in it .keys: epoch, arch"):
        files.weights({"epoch": 3, "arch": "resnet"})


def test_ema():
    extra = {"ema": {"a": torch.ones(1).half()}, "ema_fp32_params": {"a": torch.full((1,), 1.5)}}
    assert files.ema_weights({"extra_state": extra})["a"].dtype == torch.float32
    with pytest.raises(UserError, match="no EMA weights"):
        files.ema_weights({"extra_state": {}})


def test_sharded_folder(tmp_path):
    from safetensors.torch import save_file

    save_file({"a": torch.ones(2)}, tmp_path / "model-00001-of-00002.safetensors")
    save_file({"b": torch.zeros(3)}, tmp_path / "model-00002-of-00002.safetensors")
    index = tmp_path / "model.safetensors.index.json"
    places = {"a": "model-00001-of-00002.safetensors", "b": "model-00002-of-00002.safetensors"}
    index.write_text(json.dumps({"weight_map": places}))
    for path in (tmp_path, index):
        assert {key: len(value) for key, value in files.read(path).items()} == {"a": 2, "b": 3}
    index.write_text(json.dumps({"weight_map": {**places, "c": places["b"]}}))
    with pytest.raises(UserError, match="no shard has 1 key of the index, the first is c"):
        files.read(tmp_path)
    index.write_text(json.dumps({"weight_map": {"a": "../elsewhere.bin"}}))
    with pytest.raises(UserError, match="is not a file in the folder of the index"):
        files.read(tmp_path)


def test_missing_files(tmp_path):
    with pytest.raises(UserError, match="no such checkpoint"):
        files.read(tmp_path / "none.pt")
    with pytest.raises(UserError, match="is a folder without"):
        files.read(tmp_path)


def test_check_sums(tmp_path):
    path = tmp_path / "c.pt"
    torch.save({"a": torch.arange(64.0)}, path)
    files.check_sums(path)
    data = path.read_bytes()
    place = data.index(torch.arange(64.0).numpy().tobytes())
    path.write_bytes(data[:place] + b"!" + data[place + 1 :])
    assert files.read(path)["a"][0] != 0  # mapped reading does not notice
    with pytest.raises(UserError, match=f"{path}: damaged: .*c/data/0"):
        files.check_sums(path)
    (tmp_path / "pytorch_model.bin.index.json").write_text(json.dumps({"weight_map": {"a": "c.pt"}}))
    with pytest.raises(UserError, match="damaged"):
        files.check_sums(tmp_path)
    torch.serialization.set_crc32_options(False)  # leaves the sums out
    try:
        torch.save({"a": torch.arange(64.0)}, path)
    finally:
        torch.serialization.set_crc32_options(True)
    files.check_sums(path)
    with zipfile.ZipFile(path, "a", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("c/data/1", b"x" * 99)
    with pytest.raises(UserError, match="c/data/1 is compressed"):
        files.check_sums(path)
    torch.save({"a": torch.ones(1)}, path, _use_new_zipfile_serialization=False)
    files.check_sums(path)  # has none
