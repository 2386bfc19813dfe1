"""A hostile file runs nothing, whatever it hides code in and whoever reads it.

Every gadget leaves a mark when it runs; the first tests show that each of them does so where files are trusted.
"""

import argparse
import collections
import contextlib
import io
import json
import os
import pickle
import struct
import subprocess
import zipfile

import numpy as np
import pytest
import torch
from omegaconf import OmegaConf

from tests.checkpoints.samples import own_container
from unival import hub
from unival.checkpoints import files
from unival.checkpoints.backbones import backbone_weights
from unival.commands import convert, inspect
from unival.errors import UserError


class Call:
    """Pickles as a call of a function: what runs when the file is read without care."""

    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


class Evil(argparse.Namespace):
    """An allowed class's child with a hook."""

    def __setstate__(self, state):
        open(state["mark"], "w").close()


def gadgets(mark):
    """Name -> an object that makes the file ``mark`` when it is unpickled."""
    code = f"open({str(mark)!r}, 'w').close()"
    evaluate = Call(eval, code)
    nested = io.BytesIO()
    torch.save(Call(eval, code), nested)
    storage = torch.zeros(1).untyped_storage()
    typed = torch.storage.TypedStorage(wrap_storage=storage, dtype=torch.float32, _internal=True)
    hooks = collections.OrderedDict({0: evaluate})
    return {
        "os.system": Call(os.system, f"touch {mark}"),
        "eval": evaluate,
        "exec": Call(exec, code),
        "Popen": Call(subprocess.check_call, ["touch", str(mark)]),
        "child of an allowed class": Evil(mark=str(mark)),
        "torch inside torch": Call(torch.storage._load_from_bytes, nested.getvalue()),
        "type of a tensor": Call(torch._tensor._rebuild_from_type_v2, eval, torch.Tensor, (code,), {}),
        "hooks of a tensor": Call(torch._utils._rebuild_tensor_v2, typed, 0, (1,), (1,), False, hooks),
        "state of a parameter": Call(torch._utils._rebuild_parameter_with_state, torch.zeros(1), False, {}, {"x": evaluate}),
        "numpy array of objects": np.array([evaluate], dtype=object),
        "namespace": argparse.Namespace(deep=[argparse.Namespace(x={"y": evaluate})]),
    }


GADGETS = tuple(gadgets("unused"))


def place(container, where, gadget):
    """Put a gadget somewhere into a checkpoint."""
    if where == "whole file":
        return gadget
    if where == "model key":
        container["model"] = {**container["model"], gadget: torch.zeros(1)}
    elif where == "model value":
        container["model"]["encoder.pos_ln.bias"] = gadget
    elif where == "cfg":
        container["cfg"]["model"] = argparse.Namespace(**container["cfg"]["model"], arch=[gadget])
    else:
        container[where] = {"more": [{"deep": gadget}]}
    return container


PLACES = ("whole file", "model key", "model value", "cfg", "task_state", "extra_state", "last_optimizer_state")


def save_zip(value, path):
    torch.save(value, path)


def save_legacy(value, path):
    torch.save(value, path, _use_new_zipfile_serialization=False)


def save_pickle(value, path):
    with path.open("wb") as file:
        pickle.dump(value, file, protocol=2)


FORMATS = {"zip": save_zip, "legacy": save_legacy, "pickle": save_pickle}


def read_backbone(path):
    backbone_weights(path, "image", {"conv1.weight": (64, 3, 7, 7)})


def run_command(module, *arguments):
    parser = argparse.ArgumentParser()
    parser.add_argument("--traceback", action="store_true")
    module.add_arguments(parser)
    return module.run(parser.parse_args(list(map(str, arguments))))


def load_with_fairseq(path):
    """As fairseq's commands do with ``--user-dir unival``."""
    from fairseq.checkpoint_utils import load_checkpoint_to_cpu

    import unival.tasks.user_dir  # noqa: F401

    load_checkpoint_to_cpu(str(path))


ENTRIES = {
    "files.read": files.read,
    "inspect": lambda path: run_command(inspect, path),
    "backbone_weights": read_backbone,
    "convert": lambda path: run_command(convert, path, path.with_name("out.pt")),
    "convert BART": lambda path: run_command(convert, "--from", "bart", path, path.with_name("out.pt")),
    "hub.from_checkpoint": hub.from_checkpoint,
    "fairseq": load_with_fairseq,
}
OURS = [name for name in ENTRIES if name not in ("hub.from_checkpoint", "fairseq")]  # these leave the reading to fairseq


@pytest.fixture(scope="module")
def container(tmp_path_factory):
    return own_container(tmp_path_factory.mktemp("vocab"))


@pytest.fixture
def mark(tmp_path):
    return tmp_path / "mark"


def fresh(container):
    """A copy whose dicts may be changed."""
    return {key: dict(value) if isinstance(value, dict) else value for key, value in container.items()}


# The gadgets work ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", GADGETS)
def test_where_files_are_trusted_the_gadget_runs(mark, tmp_path, name):
    path = tmp_path / "evil.pt"
    torch.save({"model": gadgets(mark)[name]}, path)
    with contextlib.suppress(AttributeError):  # of what comes after the call
        torch.load(path, weights_only=False)
    assert mark.exists()


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize("where", PLACES)
def test_where_files_are_trusted_every_place_runs(container, mark, tmp_path, where, form):
    path = tmp_path / "evil.pt"
    FORMATS[form](place(fresh(container), where, gadgets(mark)["eval"]), path)
    if form == "pickle":
        pickle.loads(path.read_bytes())
    else:
        torch.load(path, weights_only=False)
    assert mark.exists()


# and are refused ----------------------------------------------------------------------------------------------------------------


def refused(entry, path):
    """The message of the refusal."""
    expected = UserError if entry in OURS else (UserError, pickle.UnpicklingError)
    with pytest.raises(expected) as error:
        ENTRIES[entry](path)
    return str(error.value)


@pytest.mark.parametrize("entry", ENTRIES)
@pytest.mark.parametrize("name", GADGETS)
def test_every_gadget_is_refused_by_everybody(container, mark, tmp_path, name, entry):
    path = tmp_path / "evil.pt"
    torch.save(place(fresh(container), "extra_state", gadgets(mark)[name]), path)
    message = refused(entry, path)
    assert not mark.exists()
    if entry in OURS:
        assert message.startswith(f"{path}: refused, nothing in it was run: ") and "\n" not in message


@pytest.mark.parametrize("entry", ["files.read", "inspect", "fairseq"])
@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize("where", PLACES)
def test_every_place_in_every_format_is_refused(container, mark, tmp_path, where, form, entry):
    path = tmp_path / "evil.pt"
    FORMATS[form](place(fresh(container), where, gadgets(mark)["eval"]), path)
    message = refused(entry, path)
    assert not mark.exists()
    if entry in OURS:
        assert message.startswith(str(path)) and "\n" not in message
        assert "eval" in message or form == "pickle"


@pytest.mark.parametrize("suffix", [".pt", ".pth", ".bin", ".ckpt", ".safetensors"])
@pytest.mark.parametrize("protocol", [0, 2, 4])
def test_a_plain_pickle_is_refused_under_any_name(mark, tmp_path, suffix, protocol):
    path = tmp_path / f"model{suffix}"
    path.write_bytes(pickle.dumps(gadgets(mark)["os.system"], protocol=protocol))
    with pytest.raises(UserError) as error:
        files.read(path)
    assert not mark.exists() and "\n" not in str(error.value)


def test_a_backbone_file_with_code_is_refused(mark, tmp_path):
    for form, save in FORMATS.items():
        path = tmp_path / f"resnet-{form}.pth"
        save({"state_dict": {"conv1.weight": torch.zeros(64, 3, 7, 7)}, "optimizer": gadgets(mark)["eval"]}, path)
        with pytest.raises(UserError, match=str(path)):
            read_backbone(path)
    assert not mark.exists()


def test_a_shard_with_code_is_refused(mark, tmp_path):
    torch.save({"a": gadgets(mark)["eval"]}, tmp_path / "pytorch_model-1.bin")
    index = {"weight_map": {"a": "pytorch_model-1.bin"}}
    (tmp_path / "pytorch_model.bin.index.json").write_text(json.dumps(index))
    with pytest.raises(UserError, match="refused"):
        files.read(tmp_path)
    (tmp_path / "pytorch_model.bin.index.json").write_text(json.dumps({"weight_map": {"a": "../elsewhere.bin"}}))
    with pytest.raises(UserError, match="not a file in the folder of the index"):
        files.read(tmp_path)
    assert not mark.exists()


# Files that are hostile in other ways -------------------------------------------------------------------------------------------


def test_names_in_a_zip_write_nothing_outside(tmp_path):
    inside = tmp_path / "inside"
    inside.mkdir()
    path = inside / "evil.pt"
    torch.save({"a": torch.zeros(3)}, path)
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("../escaped", "x")
        archive.writestr("evil/../../escaped2", "x")
    before = sorted(tmp_path.rglob("*"))
    try:
        assert torch.equal(files.read(path)["a"], torch.zeros(3))
    except UserError as error:
        assert str(path) in str(error)
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize("entry", ["torchscript", "no data"])
def test_other_zips_are_refused(tmp_path, entry):
    path = tmp_path / "model.pt"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("model/constants.pkl" if entry == "torchscript" else "readme.txt", b"\x80\x02).")
        archive.writestr("model/version", "3\n")
    with pytest.raises(UserError, match=str(path)):
        files.read(path)


def safetensors_with(header, data=b"\0" * 16):
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + data


ENTRY = {"dtype": "F32", "shape": [2, 2], "data_offsets": [0, 16]}


@pytest.mark.parametrize(
    "content",
    [
        safetensors_with(b"{not json"),
        struct.pack("<Q", 1 << 60) + b"{}",
        safetensors_with({"a": {**ENTRY, "data_offsets": [0, 1 << 40]}}),
        safetensors_with({"a": {**ENTRY, "shape": [1 << 40, 1 << 40]}}),
        safetensors_with({"a": {**ENTRY, "data_offsets": [16, 0]}}),
        safetensors_with({"a": ENTRY}, b"\0" * 3),
        safetensors_with({"a": {**ENTRY, "dtype": "PICKLE"}}),
        safetensors_with({"__metadata__": {"unival": "{broken"}, "a": ENTRY}),
        safetensors_with({"__metadata__": {"unival": json.dumps({"tied": {"b": "nowhere"}})}, "a": ENTRY}),
        safetensors_with({"__metadata__": {"unival": json.dumps([1])}, "a": ENTRY}),
        b"",
    ],
)
def test_damaged_safetensors_are_refused(tmp_path, content):
    path = tmp_path / "model.safetensors"
    path.write_bytes(content)
    with pytest.raises(UserError) as error:
        files.read(path)
    assert str(path) in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize("form", ["zip", "legacy"])
def test_damaged_files_are_user_errors(tmp_path, form):
    """Cut off or with a few bytes changed, a file is read or refused; no other exception gets out."""
    path, rng = tmp_path / "model.pt", np.random.default_rng(0)
    FORMATS[form]({"cfg": {"model": argparse.Namespace(a=1)}, "model": {"x.weight": torch.arange(6.0), "b": torch.ones(2)}}, path)
    whole = path.read_bytes()
    refusals = 0
    for trial in range(300):
        data = bytearray(whole)
        if trial % 3 == 0:
            del data[int(rng.integers(len(data))) :]
        else:
            for position in rng.integers(min(len(data), 1024), size=3):
                data[position] = rng.integers(256)
        path.write_bytes(data)
        try:
            files.weights(files.read(path))
        except UserError as error:
            refusals += 1
            assert "\n" not in str(error)
    assert refusals > 100


def test_vocabulary_files_stay_in_their_folder(container, tmp_path):
    evil = fresh(container)
    kept = evil["task_state"]["vocabulary_files"]
    escape = tmp_path / "escaped"
    evil["task_state"] = {**evil["task_state"], "vocabulary_files": {**kept, str(escape): "x", "../escaped2": "x"}}
    torch.save(evil, tmp_path / "evil.pt")
    hub.from_checkpoint(tmp_path / "evil.pt")
    assert not escape.exists() and not (tmp_path.parent / "escaped2").exists()


@pytest.mark.parametrize(
    "name, options",
    [
        ("fconv", {"encoder_layers": "{} or [(8, 3)]", "dropout": 0.1, "encoder_embed_dim": 8, "encoder_embed_path": None}),
        ("wav2vec2", {"conv_feature_layers": "{} or [(8, 3, 1)]"}),
    ],
)
@pytest.mark.parametrize("layout", ["named", "nested"])
def test_options_are_never_evaluated(container, mark, tmp_path, name, options, layout):
    """Some of fairseq's own models evaluate their options: a checkpoint that names one of them needs no pickle to run code."""
    code = f"open({str(mark)!r}, 'w').close()"
    given = {key: value.format(code) if isinstance(value, str) else value for key, value in options.items()}
    evil = fresh(container)
    model = {"_name": name, "arch": name, **given, "max_source_positions": 9, "decoder_embed_path": None}
    evil["cfg"] = {**evil["cfg"], "model": model if layout == "named" else {name: given}}
    torch.save(evil, tmp_path / "evil.pt")
    with pytest.raises(UserError, match=name if layout == "named" else None):
        hub.from_checkpoint(tmp_path / "evil.pt")
    assert not mark.exists()


def test_criterions_that_evaluate_their_options_are_refused(container, mark, tmp_path):
    """fairseq-validate builds the criterion that a checkpoint names."""
    torch.save(container, tmp_path / "good.pt")
    task = hub.from_checkpoint(tmp_path / "good.pt").task
    options = {"_name": "ctc", "wer_args": f"open({str(mark)!r}, 'w').close() or (1, 2, 3, 4)", "post_process": "letter"}
    more = {"zero_infinity": False, "sentence_avg": False, "wer_kenlm_model": None, "wer_lexicon": None, "wer_lm_weight": 2.0}
    with pytest.raises(UserError, match="ctc"):
        task.build_criterion(OmegaConf.create({**options, **more, "wer_word_score": -1.0}))
    assert not mark.exists()


def test_fairseq_reads_safely_by_default_only(container, mark, tmp_path, monkeypatch):
    """fairseq leaves torch's default in force, so torch's own variable for old files opens it; what is read here stays closed."""
    path = tmp_path / "evil.pt"
    torch.save(place(fresh(container), "extra_state", gadgets(mark)["eval"]), path)
    monkeypatch.setenv("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", "1")
    for entry in OURS:
        assert "refused" in refused(entry, path)
    assert not mark.exists()
    with contextlib.suppress(AttributeError, TypeError):  # of what fairseq does with the rest
        load_with_fairseq(path)
    assert mark.exists()
