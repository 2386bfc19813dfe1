"""A modality from outside of the package: depth maps, in a plugin that ``--user-dir`` names."""

import json
import subprocess

import numpy as np
import pytest
import torch
from PIL import Image

from tests import runs, tiny
from unival.cli import main
from unival.errors import MISSING_PLUGIN, UserError
from unival.modalities import IMAGE, MODALITIES, register
from unival.modalities.base import Media, Modality

PLUGIN = '''
"""Depth maps: a PNG of 16 bits, and a small CNN."""

import io
from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image
from torch import nn

from unival.instructions import AttributeSpec
from unival.modalities import register
from unival.modalities.base import Media, MediaEmbedding, Modality
from unival.modalities.geometry import Loaded
from unival.modalities.options import at_least, option


@dataclass(frozen=True)
class DepthOptions:
    OPTION: int = option(16, "pixels per side that depth maps are resized to", at_least(4))


@dataclass(frozen=True)
class DepthModelOptions:
    depth_channels: int = option(8, "channels of the CNN of depth maps")


class DepthLoader:
    def __init__(self, options):
        self.size = options.depth_size

    def __call__(self, data, rng, train):
        image = Image.open(io.BytesIO(data)).resize((self.size, self.size))
        return Loaded(torch.from_numpy(np.array(image, dtype=np.float32))[None] / 65535)


class DepthCnn(nn.Sequential):
    def __init__(self, channels):
        super().__init__(nn.Conv2d(1, channels, 3, stride=4, padding=1), nn.GELU())
        self.out_channels = channels


def as_png(array):
    file = io.BytesIO()
    Image.fromarray((np.asarray(array) * 1000).astype(np.uint16)).save(file, "png")
    return file.getvalue()


def embedding(cfg):
    return MediaEmbedding(DepthCnn(cfg.depth_channels), cfg.encoder_embed_dim, cfg.image_bucket_size)


register(
    Modality(
        "DEPTH",
        attributes={"note": AttributeSpec(str)},
        options=DepthOptions,
        model_options=DepthModelOptions,
        media=Media(DepthLoader, embedding, type_row=4, from_array=as_png, parts={"filters": "backbone", "proj": "proj"}),
    )
)

import unival.tasks
'''

RUNS = """
import io, json, sys, numpy as np, torch
from unival.cli import main
train, generate, path, image, converted = json.load(sys.stdin)
plugin = train[-2:]
refused = main(["convert", "nowhere.pt", converted, *plugin])  # first, as it composes options when it is imported
code = main(train) or main(generate) or main(["train", "--help", *plugin])
print("COMMANDS", flush=True)
code = code or main(["convert", path, converted, *plugin]) or main(["inspect", converted, "--json", *plugin])
print("ANSWER", flush=True)
code = code or main(["run", image, "--path", converted, "--max-len-b", "3", *plugin])
saved = torch.load(path, weights_only=False)
rows = saved["model"]["encoder.type_embedding.weight"].size(0)
cnn = saved["model"]["encoder.media.depth.backbone.0.weight"]
found = [refused, code, rows, list(cnn.shape), saved["cfg"]["model"]["modalities"], saved["task_state"]["media"]["depth_size"]]
from unival.hub import from_checkpoint
metres = np.linspace(0, 60, 20 * 24).reshape(20, 24)
ask, model = "[DEPTH:depth] what? -> [TEXT:caption]", from_checkpoint(path)
given = [{"depth": metres}, {"depth": torch.from_numpy(metres)}, {"depth": io.BytesIO(sys.modules["their_depth"].as_png(metres))}]
found += [len({output.score for output in model.run(ask, given, beam=1, max_len_b=3)})]
print("FOUND", json.dumps(found))
"""


def plugin(folder, name, option="depth_size"):
    (folder / name).mkdir()
    (folder / name / "__init__.py").write_text(PLUGIN.replace("OPTION", option))
    return str(folder / name)


def test_a_modality_of_a_plugin_works_with_all_commands(tmp_path, capsys):
    """In a process of its own, as the modality must come before this package's options are composed."""
    data, out = tmp_path / "data", tmp_path / "out"
    data.mkdir(), out.mkdir()
    rng = np.random.default_rng(0)
    lines = []
    for i in range(4):
        Image.fromarray(rng.integers(0, 2**16, (20, 24), dtype=np.uint16)).save(data / f"{i}.png")
        lines.append(json.dumps({"depth": f"{i}.png", "caption": "a red square"}))
    for split in ("train", "valid"):
        (data / f"{split}.jsonl").write_text("\n".join(lines))
    tiny.vocabulary(data / "vocab", 0, 0)
    ours = ["--task", "unival", "--user-dir", plugin(tmp_path, "their_depth")]
    flags = ["--instruction", "[DEPTH:depth,note='far is white'] what? -> [TEXT:caption]", "--batch-size", "2", "--max-update", "2"]
    flags += ["--depth-size", "20", "--depth-channels", "6", "--add-mm-type-embedding", "--best-checkpoint-metric", "loss"]
    flags += ["--freeze", "depth_filters,decoder"]
    train = ["train", *[x for x in runs.train_flags(data, out) if x != "--maximize-best-checkpoint-metric"], *flags, *ours]
    path = out / "checkpoint_last.pt"
    generate = ["generate", str(data), *runs.CPU, "--num-codes", "0", "--num-bins", "0", "--path", str(path), "--gen-subset", "valid"]
    generate += ["--batch-size", "4", "--max-len-b", "3", "--beam", "2", "--results-path", str(out), *ours]
    given = [train, generate, str(path), str(data / "0.png"), str(out / "converted.pt")]
    done = subprocess.run(
        [runs.python(), "-c", RUNS], input=json.dumps(given), capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.split("FOUND")[1])
    assert found == [1, 0, 5, [6, 1, 3, 3], "depth", 20, 1], done.stderr
    assert "nowhere.pt: no such" in done.stderr
    trained = (out / "train.log").read_text().split("training ")[1].split("\n")[0]
    assert "depth_proj 224, depth 56,480)" in trained and "depth_filters" not in trained and "decoder" not in trained
    described, answer = done.stdout.split("COMMANDS")[1].split("FOUND")[0].split("ANSWER")
    fit = json.loads(described[described.index("{") :])["fit"]
    assert fit == {"missing": [], "unexpected": [], "reshaped": {}}
    assert answer.strip("\n").startswith(f"{data / '0.png'}\t")
    help_text = done.stdout.replace("\n", " ")
    assert "--depth-size N" in help_text and "--depth-channels N" in help_text and "checkpoint's, else 16)" in help_text
    assert (out / "generate-valid.txt").read_text().count("D-") == 4
    without_the_plugin(path, capsys)


def without_the_plugin(path, capsys):
    """In this process, where nothing registers the modality: each command says what may be missing."""

    def says(*arguments):
        code = main(list(arguments))
        shown = capsys.readouterr()
        assert MISSING_PLUGIN in shown.out + shown.err
        return code, shown.out + shown.err

    code, message = says("inspect", str(path))
    assert code == 0 and "'depth' is not a modality with media of its own" in message
    code, message = says("convert", str(path), f"{path}.converted")
    assert code == 1 and "unknown encoder.media.depth." in message and "unknown modality 'depth'" in message
    code, message = says("run", "0.png", "--path", str(path))
    assert code == 1 and "unknown modality 'DEPTH'" in message
    saved = torch.load(path, weights_only=False)
    saved["cfg"]["task"]["_name"] = "unival_cloud"
    torch.save(saved, path)
    code, message = says("run", "0.png", "--path", str(path))
    assert code == 1 and "is of task 'unival_cloud'; expected one of unival" in message
    assert main(["run", "0.png", "--path", str(path), "--user-dir", "nowhere"]) == 1
    assert capsys.readouterr().err == "unival: error: --user-dir nowhere: no such folder\n"


def test_options_that_clash_are_one_line(tmp_path, capsys):
    first, second = (plugin(tmp_path, f"their_clash_{i}", option="num_frames") for i in range(2))  # fairseq imports a plugin once
    assert main(["train", str(tmp_path), "--user-dir", first, "--task", "unival"]) == 1
    message = "modality VIDEO and modality DEPTH both have an option --num-frames"
    assert capsys.readouterr().err.splitlines() == [f"unival: error: {message}"]
    assert main(["train", "--help", "--user-dir", second]) == 1
    assert message in capsys.readouterr().err


def test_what_cannot_be_registered():
    def media(row):
        return Media(IMAGE.media.loader, IMAGE.media.embedding, type_row=row)

    for modality, message in (
        (Modality("IMAGE"), "modality IMAGE is there already"),
        (Modality("depth map"), "a name must consist of capital letters"),
        (Modality("DEPTH", media=media(2)), "type_row 2 is taken; 4 is free"),
        (Modality("DEPTH", media=media(4)), "comes too late: register it before unival.tasks is imported"),
    ):
        with pytest.raises(UserError, match=message):
            register(modality)
    assert "DEPTH" not in MODALITIES
