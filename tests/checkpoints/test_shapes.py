"""Which backbone a checkpoint has is read off its weights: every name that the backbones know comes back, in every command."""

import json
from dataclasses import asdict

import pytest
import torch

from unival.backbones.pann import PANNS
from unival.backbones.resnet import RESNETS
from unival.backbones.resnext3d import RESNETS3D
from unival.checkpoints import files
from unival.checkpoints.backbones import networks
from unival.checkpoints.shapes import options_from_weights
from unival.cli import main
from unival.errors import UserError
from unival.models.build import build_model
from unival.models.config import UnivalConfig

WIDTH32 = {"encoder_embed_dim": 32, "encoder_ffn_embed_dim": 64, "encoder_layers": 1, "encoder_attention_heads": 2}
WIDTH32.update(decoder_ffn_embed_dim=64, decoder_layers=1, decoder_attention_heads=2, image_bucket_size=8, token_bucket_size=16)
IMAGES = [{"modalities": "image", "image_backbone": name, "image_backbone_stages": n} for name in RESNETS for n in (3, 4)]
VIDEOS = [{"modalities": "video", "video_backbone": name} for name in RESNETS3D]
SOUNDS = [{"modalities": "audio", "audio_backbone": name, "audio_window_size": 64, "audio_mel_bins": 32} for name in PANNS]


def built(options, device="meta"):
    """A small model of these options, without memory for its weights unless asked for."""
    return build_model({**asdict(UnivalConfig()), **WIDTH32, **options}, 50, 1, device)


def test_the_names_are_those_of_the_backbones():
    choices = {kind: set(network.choices) for kind, network in networks().items()}
    assert choices == {"image": {*RESNETS}, "video": {*RESNETS3D}, "audio": {*PANNS}}


@pytest.mark.parametrize("options", [*IMAGES, *VIDEOS, *SOUNDS], ids=lambda options: "-".join(map(str, options.values())))
def test_every_backbone_comes_back(options):
    found = options_from_weights(built(options).state_dict())
    assert {key: found[key] for key in options} == options


def test_convert_and_inspect_take_a_3d_resnet(tmp_path, capsys):
    """The file says nothing of its options, so that all of them are read off the weights; so it is with the smallest of each kind."""
    options = {"modalities": "audio,image,video", "image_backbone": "resnet10", "video_backbone": "resnet3d50", "audio_backbone": "cnn6"}
    files.write(tmp_path / "a.safetensors", {"model": built(options, "cpu").state_dict()})
    assert main(["convert", str(tmp_path / "a.safetensors"), str(tmp_path / "b.pt")]) == 0
    capsys.readouterr()
    model = files.read(tmp_path / "b.pt")["cfg"]["model"]
    assert {key: model[key] for key in ("image_backbone", "video_backbone", "audio_backbone")} == {
        "image_backbone": "resnet10",
        "video_backbone": "resnet3d50",
        "audio_backbone": "cnn6",
    }
    assert main(["inspect", "--json", str(tmp_path / "b.pt")]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["media"] == {"image": "resnet10", "video": "resnet3d50", "audio": "cnn6"}
    assert found["fit"] == {"missing": [], "unexpected": [], "reshaped": {}}


@pytest.mark.parametrize(
    "name, change, message",
    [
        ("image", {"layer1.0.conv2.weight": (128, 4, 3, 3)}, "looks like a resnext50_32x4d and has (3, 4, 6, 3) blocks; there are"),
        ("video", {"layer4.0.conv2.weight": None}, "the video CNN looks like a resnet3d50 and has (3, 4, 6) blocks; there are resnext3d14"),
        ("audio", {"conv_block4.conv1.weight": None}, "the audio CNN has unknown keys; there are cnn6, cnn10"),
    ],
)
def test_other_networks_are_refused(name, change, message):
    options = {"image": "resnet50", "video": "resnet3d50", "audio": "cnn10"}
    state = built({"modalities": name, f"{name}_backbone": options[name]}).state_dict()
    prefix = f"encoder.media.{name}.backbone."
    for key, shape in change.items():
        if shape is None:  # the whole stage
            state = {k: v for k, v in state.items() if not k.startswith(prefix + key.split(".")[0] + ".")}
        else:
            state[prefix + key] = torch.empty(shape, device="meta")
    with pytest.raises(UserError) as error:
        options_from_weights(state)
    assert message in str(error.value)
