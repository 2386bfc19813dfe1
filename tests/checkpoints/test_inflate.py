"""Image networks become video networks that see a still video as its image."""

import logging

import pytest
import torch
from timm.models.resnet import Bottleneck
from timm.models.resnet import ResNet as TimmResNet
from torch import nn

from unival.backbones.resnext3d import ResNeXt3D
from unival.checkpoints.inflate import inflate
from unival.errors import UserError


def image_network(layers, **options):
    """A network of timm whose statistics and scales are not the initial ones."""
    torch.manual_seed(0)
    network = TimmResNet(Bottleneck, layers, num_classes=10, **options).eval()
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1)
            nn.init.normal_(module.bias, std=0.1)
            nn.init.normal_(module.running_mean, std=0.1)
            nn.init.uniform_(module.running_var, 0.5, 1.5)
    return network


def shapes(network):
    return {key: tuple(value.shape) for key, value in network.state_dict().items()}


def inflated(name, network):
    video = ResNeXt3D(name).eval()
    state = inflate(network.state_dict(), shapes(video))
    assert shapes(video) == {key: tuple(value.shape) for key, value in state.items()}
    video.load_state_dict(state, strict=False)  # the keys are all there: asserted above
    return video


# A cell of the last map sees so many frames: 2 x (3 of the stem + 1 of the pooling) + 1, then 2 x the stride for every block after it
# (the first of a stage still has the stride of the stage before).
def frames_seen(depths):
    seen, stride = 1 + 2 * 3 + 2 * 1, 2
    for stage, depth in enumerate(depths):
        seen += 2 * stride
        stride *= 2 if stage > 0 else 1
        seen += 2 * stride * (depth - 1)
    return seen


@pytest.mark.parametrize(
    "name, depths, options",
    [
        ("resnext3d14", (1, 1, 1, 1), {"cardinality": 32, "base_width": 4}),
        ("resnext3d50", (3, 4, 6, 3), {"cardinality": 32, "base_width": 4}),
        ("resnet3d50", (3, 4, 6, 3), {}),
    ],
)
def test_a_still_video_has_the_features_of_its_image(name, depths, options):
    """In the middle of a video that is longer than what the network sees: zeros beside the ends make the difference there."""
    network = image_network(depths, **options)
    video = inflated(name, network)
    frames = frames_seen(depths) + 1 + 16
    image = torch.randn(1, 3, 32, 32)
    with torch.no_grad():
        features = network.forward_features(image)
        clip = video(image[:, :, None].expand(-1, -1, frames, -1, -1))
    middle = clip.shape[2] // 2
    assert (clip[:, :, middle] - features).abs().max() < 1e-5 * features.abs().max()
    assert (clip[:, :, 0] - features).abs().max() > 1e-2 * features.abs().max()


def test_kernels_are_shared_out_evenly_over_time():
    kernel = torch.randn(8, 4, 3, 3)
    state = inflate({"conv.weight": kernel, "bn.weight": torch.ones(8)}, {"conv.weight": (8, 4, 7, 3, 3), "bn.weight": (8,)})
    torch.testing.assert_close(state["conv.weight"].sum(2), kernel)
    torch.testing.assert_close(state["conv.weight"][:, :, 2], kernel / 7)
    torch.testing.assert_close(state["bn.weight"], torch.ones(8))


def test_the_classifier_is_left_out_and_named(caplog):
    with caplog.at_level(logging.INFO):
        inflated("resnext3d14", image_network((1, 1, 1, 1), cardinality=32, base_width=4))
    assert "classifier is not used: fc.weight, fc.bias" in caplog.text


def test_what_does_not_fit_is_listed():
    network = image_network((1, 1, 1, 1))  # a ResNet, not a ResNeXt
    state = network.state_dict() | {"extra": torch.zeros(1)}
    del state["bn1.bias"]
    with pytest.raises(UserError) as error:
        inflate(state, shapes(ResNeXt3D("resnext3d14")))
    message = str(error.value)
    assert "\n" not in message and "missing bn1.bias" in message and "unexpected extra" in message
    assert "layer1.0.conv1.weight is (64, 64, 1, 1), the video network's is (128, 64, 1, 1, 1)" in message
