"""Public backbone files become complete states of our backbones, and what does not fit is explained."""

import pytest
import torch
from safetensors.torch import save_file
from torch import nn
from torchvision.models.resnet import BasicBlock, Bottleneck
from torchvision.models.resnet import ResNet as TorchvisionResNet

from unival.backbones.pann import PANNS, Pann
from unival.backbones.resnet import RESNETS, ResNet
from unival.backbones.resnext3d import RESNETS3D, ResNeXt3D
from unival.checkpoints.backbones import backbone_weights, looks_like, networks, recognise, shapes_of
from unival.errors import UserError


def randomised(module, seed=0):
    """Weights and statistics that differ from every initial value."""
    generator = torch.Generator().manual_seed(seed)
    for value in module.state_dict().values():
        if value.is_floating_point():
            value.copy_(torch.rand(value.shape, generator=generator) * 0.2 + 0.1)
    return module.eval()


@pytest.fixture(scope="module")
def torchvision_net():
    return randomised(TorchvisionResNet(BasicBlock, [1, 1, 1, 1], num_classes=7))


def saved(path, container):
    torch.save(container, path)
    return path


def load(path, kind, module, **options):
    state, lines = backbone_weights(path, kind, shapes_of(module.state_dict()), **options)
    module.load_state_dict(state)  # strict
    return module.eval(), lines


def torchvision_features(net, x, stages=4):
    x = net.maxpool(net.relu(net.bn1(net.conv1(x))))
    for stage in (net.layer1, net.layer2, net.layer3, net.layer4)[:stages]:
        x = stage(x)
    return x


@pytest.mark.parametrize("stages", [3, 4])
def test_torchvision_features_are_ours(torchvision_net, tmp_path, stages):
    path = saved(tmp_path / "resnet10.pth", torchvision_net.state_dict())
    ours, lines = load(path, "image", ResNet("resnet10", stages))
    x = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(ours(x), torchvision_features(torchvision_net, x, stages), rtol=1e-4, atol=1e-4)
    text = "\n".join(lines)
    assert "fc.weight, fc.bias: the classifier" in text and "counters" in text
    assert ("3 stages, layer4.* is beyond them" in text) == (stages == 3)


@pytest.mark.parametrize("prefix", ["", "module.", "backbone.", "model.", "module.model.", "net.visual."])
@pytest.mark.parametrize("wrapper", [None, "state_dict", "model"])
def test_what_training_programs_put_around(torchvision_net, tmp_path, prefix, wrapper):
    state = {prefix + key: value for key, value in torchvision_net.state_dict().items()}
    path = saved(tmp_path / "net.pth", state if wrapper is None else {wrapper: state, "epoch": 3, "arch": "resnet10"})
    ours, lines = load(path, "image", ResNet("resnet10"))
    assert torch.equal(ours.state_dict()["layer4.0.bn2.running_var"], torchvision_net.layer4[0].bn2.running_var)
    assert (f"taken from {prefix}*" in lines) == bool(prefix)


def test_safetensors_and_half_precision(torchvision_net, tmp_path):
    state = {key: value.half() if value.is_floating_point() else value for key, value in torchvision_net.state_dict().items()}
    save_file(state, str(tmp_path / "model.safetensors"))
    ours, _ = load(tmp_path / "model.safetensors", "image", ResNet("resnet10"))
    assert torch.equal(ours.conv1.weight, torchvision_net.conv1.weight.half().float())


def test_a_detector_gives_its_backbone(torchvision_net, tmp_path):
    state = {f"backbone.{key}": value for key, value in torchvision_net.state_dict().items()}
    state.update({"neck.conv1.weight": torch.zeros(1), "head.bias": torch.zeros(1)})
    _, lines = load(saved(tmp_path / "detector.pth", state), "image", ResNet("resnet10"))
    assert "left out 2 keys outside backbone.*: head.bias, neck.conv1.weight" in lines


def test_kinetics_files(tmp_path):
    source = randomised(ResNeXt3D("resnext3d14"))
    state = {f"module.{key}": value for key, value in source.state_dict().items()}
    state.update({"module.fc.weight": torch.zeros(400, 2048), "module.fc.bias": torch.zeros(400)})
    state["module.bn1.num_batches_tracked"] = torch.tensor(5)
    container = {"epoch": 1, "arch": "resnext-101", "state_dict": state, "optimizer": {"state": {}, "param_groups": []}}
    ours, lines = load(saved(tmp_path / "kinetics.pth", container), "video", ResNeXt3D("resnext3d14"))
    for key, value in source.state_dict().items():
        assert torch.equal(ours.state_dict()[key], value), key
    assert any("module.fc.weight" in line or "fc.weight" in line for line in lines)


def pann_file(path, source, **more):
    state = {("logmel_extractor.melW" if key == "mel_filters" else key): v for key, v in source.state_dict().items()}
    for part in ("real", "imag"):
        state[f"spectrogram_extractor.stft.conv_{part}.weight"] = torch.zeros(513, 1, 1024)
    state.update({"fc1.weight": torch.zeros(4, 4), "fc_audioset.bias": torch.zeros(527), "bn0.num_batches_tracked": torch.tensor(1)})
    return saved(path, {"iteration": 600000, "model": {**state, **more}})


def test_pann_files_keep_their_own_mel_filters(tmp_path):
    source = randomised(Pann("cnn6", sample_rate=32000))
    ours, lines = load(pann_file(tmp_path / "Cnn6.pth", source), "audio", Pann("cnn6", sample_rate=48000))
    assert torch.equal(ours.mel_filters, source.mel_filters)
    assert torch.equal(ours.state_dict()["conv_block4.conv1.weight"], source.state_dict()["conv_block4.conv1.weight"])
    text = "\n".join(lines)
    assert "follow from the window size" in text and "fc1.weight, fc_audioset.bias" in text


@pytest.mark.parametrize("prefix", ["encoder.embed_images.", "encoder.media.image.backbone."])
def test_whole_checkpoints_give_their_part(torchvision_net, tmp_path, prefix):
    state = {prefix + key: value for key, value in torchvision_net.state_dict().items()}
    state["encoder.layers.0.fc1.weight"] = torch.zeros(3, 3)
    path = saved(tmp_path / "whole.pt", {"args": None, "model": state})
    ours, lines = load(path, "image", ResNet("resnet10"))
    assert torch.equal(ours.conv1.weight, torchvision_net.conv1.weight) and f"taken from {prefix}*" in lines
    with pytest.raises(UserError, match="without a part for video; it has image"):
        load(path, "video", ResNeXt3D("resnext3d14"))


def test_a_2d_network_inflates_to_the_video_backbone(tmp_path):
    """A kernel's sum over time is the 2-D kernel, so that still frames give the image's features."""
    from timm.models.resnet import Bottleneck
    from timm.models.resnet import ResNet as TimmResNet

    flat = randomised(TimmResNet(Bottleneck, [1, 1, 1, 1], cardinality=32, base_width=4, num_classes=5))
    path = saved(tmp_path / "resnext14.pth", flat.state_dict())
    ours, lines = load(path, "video", ResNeXt3D("resnext3d14"), inflate=True)
    torch.testing.assert_close(ours.conv1.weight.sum(dim=2), flat.conv1.weight)
    torch.testing.assert_close(ours.layer4[0].conv2.weight.sum(dim=2), flat.layer4[0].conv2.weight)
    assert any("inflation" in line for line in lines)
    with pytest.raises(UserError, match="2-D network.*--inflate-video-backbone") as error:
        load(path, "video", ResNeXt3D("resnext3d14"))
    assert "\n" not in str(error.value)
    with pytest.raises(UserError, match="only a video backbone is inflated"):
        load(path, "image", ResNet("resnet10"), inflate=True)
    with pytest.raises(UserError, match="3-D network: leave out --inflate"):
        load(saved(tmp_path / "3d.pth", ours.state_dict()), "video", ResNeXt3D("resnext3d14"), inflate=True)


# What does not fit -----------------------------------------------------------------------------------------------------------


def test_another_network_is_named(torchvision_net, tmp_path):
    path = saved(tmp_path / "resnet10.pth", torchvision_net.state_dict())
    with torch.device("meta"):
        other = ResNet("resnet50")
    with pytest.raises(UserError) as error:
        backbone_weights(path, "image", shapes_of(other.state_dict()))
    message = str(error.value)
    assert "\n" not in message and str(path) in message
    assert "looks like a resnet10; the backbone is a resnet50: choose with --image-backbone" in message
    assert "layer1.0.conv1.weight is (64, 64, 3, 3), the backbone's is (64, 64, 1, 1)" in message
    total = int(message.split(" keys)")[0].rsplit("(", 1)[1])
    assert len(message.split("keys): ")[1].split(" (looks")[0].split("; ")) == 9 and f"and {total - 8} more" in message


def test_mel_bands_of_another_window(tmp_path):
    path = pann_file(tmp_path / "Cnn6_16k.pth", Pann("cnn6", sample_rate=16000, window_size=512, fmax=8000.0))
    with pytest.raises(UserError, match="--audio-window-size 512 --audio-mel-bins 64"):
        load(path, "audio", Pann("cnn6"))


def test_missing_and_unexpected_keys(torchvision_net, tmp_path):
    state = dict(torchvision_net.state_dict())
    del state["layer2.0.bn1.bias"]
    state["layer1.0.attention.weight"] = torch.zeros(2)
    with pytest.raises(UserError, match=r"\(2 keys\): missing layer2.0.bn1.bias; unexpected layer1.0.attention.weight$"):
        load(saved(tmp_path / "net.pth", state), "image", ResNet("resnet10"))


def test_files_with_no_or_several_networks(torchvision_net, tmp_path):
    with pytest.raises(UserError, match="has no image backbone: none of its keys.*linear.bias, linear.weight"):
        load(saved(tmp_path / "a.pt", {"linear.weight": torch.zeros(1), "linear.bias": torch.zeros(1)}), "image", ResNet("resnet10"))
    twins = {f"encoder_{side}.{key}": value for side in "qk" for key, value in torchvision_net.state_dict().items()}
    with pytest.raises(UserError, match="several networks.*'encoder_k.', 'encoder_q.'"):
        load(saved(tmp_path / "moco.pt", twins), "image", ResNet("resnet10"))
    with pytest.raises(UserError, match="no such checkpoint"):
        load(tmp_path / "nowhere.pth", "image", ResNet("resnet10"))


@pytest.mark.parametrize("name", [*RESNETS, *RESNETS3D, *PANNS])
def test_our_networks_are_recognised(name):
    build = ResNet if name in RESNETS else ResNeXt3D if name in RESNETS3D else Pann
    with torch.device("meta"):
        module: nn.Module = build(name)
    state = {f"module.{key}": value for key, value in module.state_dict().items()}
    assert recognise(state) == name
    assert looks_like({}) is None and recognise({"module.conv1.weight": torch.zeros(1)}) is None


@pytest.mark.parametrize(
    "value, message",
    [
        (lambda x: x.to(torch.int8), r"1 key not of a floating-point type: conv1.weight \(int8\)"),
        (lambda x: x.to(torch.complex64), r"1 key not of a floating-point type: conv1.weight \(complex64\)"),
        (lambda x: x * float("nan"), "1 key with values that are infinite or not a number: conv1.weight"),
    ],
)
def test_values_that_are_no_weights_are_refused(torchvision_net, tmp_path, value, message):
    state = torchvision_net.state_dict()
    path = saved(tmp_path / "net.pth", {**state, "conv1.weight": value(state["conv1.weight"])})
    with pytest.raises(UserError, match=message):
        load(path, "image", ResNet("resnet10"))


def test_only_choices_are_proposed(tmp_path):
    """A wide ResNet is recognised, but no choice of the option."""
    choices = {kind: set(network.choices) for kind, network in networks().items()}
    assert choices == {"image": set(RESNETS), "video": set(RESNETS3D), "audio": set(PANNS)}
    with torch.device("meta"):
        wide = TorchvisionResNet(Bottleneck, [3, 4, 6, 3], width_per_group=128).state_dict()
    path = saved(tmp_path / "wide.pth", {key: torch.zeros(()).expand(value.shape) for key, value in wide.items()})
    with pytest.raises(UserError, match="looks like a wide_resnet50_2: there is no such image backbone here; choices are resnet10, "):
        load(path, "image", ResNet("resnet10"))
