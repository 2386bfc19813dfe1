"""3-D ResNeXts against the published network, and what their users rely on."""

import pytest
import torch
from torch import nn

from tests import golden
from unival.backbones.resnext3d import RESNETS3D, Bottleneck3D, ResNeXt3D
from unival.errors import UserError

PREFIX = "encoder.embed_videos."


@pytest.fixture(scope="module")
def published():
    """ResNeXt3D-101 with the reference's weights."""
    model = ResNeXt3D("resnext3d101").eval()
    named = {PREFIX + key: value for key, value in model.state_dict().items()}  # filled in place
    golden.recipe.fill_(named)
    return model


def test_keys_and_shapes_are_the_published_ones():
    theirs = {
        key.removeprefix(PREFIX): tuple(shape)
        for key, shape in golden.numbers("model")["base"].items()
        if key.startswith(PREFIX) and not key.endswith("num_batches_tracked")
    }
    with torch.device("meta"):
        ours = ResNeXt3D("resnext3d101").state_dict()
    assert len(ours) == 520 and {key: tuple(value.shape) for key, value in ours.items()} == theirs


def test_every_stage_has_the_published_values(published):
    model, stages, kept = published, golden.numbers("cnn")["videos"], golden.tensors("cnn")
    outputs = {}
    handles = [model.maxpool.register_forward_pre_hook(lambda module, args: outputs.update(bn1=args[0].clone()))]
    for name in list(stages)[1:]:
        keep = lambda module, args, output, name=name: outputs.update({name: output.clone()})  # noqa: E731
        handles.append(model.get_submodule(name).register_forward_hook(keep))
    with torch.no_grad():
        features = model(golden.case("video")["values"])
    for handle in handles:
        handle.remove()
    torch.testing.assert_close(features[:, golden.CHANNELS], kept["features/videos"], rtol=1e-4, atol=1e-4)
    assert list(outputs) == list(stages)
    for name, expected in stages.items():
        values = outputs[name].contiguous().flatten()
        assert list(outputs[name].shape) == expected["shape"]
        torch.testing.assert_close(values[:: values.numel() // 64][:64], kept[f"videos/{name}"], rtol=1e-4, atol=1e-4)
        assert outputs[name].mean().item() == pytest.approx(expected["mean"], rel=1e-5)


def test_features_in_float64_are_the_published_ones_to_the_last_bit_kept(published):
    """The original's float64 features are stored as float32."""
    clip = golden.case("video")["values"][:1].double()
    with torch.no_grad():
        features = published.double()(clip)
    published.float()
    expected = golden.tensors("cnn")["features/videos"][:1]
    torch.testing.assert_close(features.float()[:, golden.CHANNELS], expected, rtol=1.2e-7, atol=0)


@pytest.mark.parametrize("name", RESNETS3D)
def test_published_sizes(name):
    """Parameters by the formulas of Hara et al. 2018; 47.5 million in the published model's."""
    with torch.device("meta"):
        model = ResNeXt3D(name)
    layout, channels, count = RESNETS3D[name], 64, 64 * 3 * 7**3 + 128
    for depth, width, out in zip(layout.blocks, (layout.width * n for n in (1, 2, 4, 8)), (256, 512, 1024, 2048), strict=True):
        count += channels * out + 2 * out  # shortcut
        for _ in range(depth):
            count += channels * width + 27 * width * width // layout.groups + width * out + 4 * width + 2 * out
            channels = out
    assert sum(p.numel() for p in model.parameters()) == count
    assert model.out_channels == 2048
    assert name != "resnext3d101" or count == 47_521_216


@pytest.mark.parametrize("size", [(1, 1, 1), (3, 33, 31), (8, 64, 64), (17, 32, 65)])
def test_cells_are_strides_rounded_up(size):
    model = ResNeXt3D("resnext3d14").eval()
    with torch.no_grad():
        features = model(torch.randn(2, 3, *size))
    expected = [-(-n // stride) for n, stride in zip(size, (16, 32, 32), strict=True)]
    assert list(features.shape) == [2, model.out_channels, *expected]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_gradients_reach_everything(dtype):
    torch.manual_seed(0)
    model = ResNeXt3D("resnext3d14").to(dtype)
    for module in model.modules():  # blocks start as their shortcuts, which keeps gradients from what is beside them
        if isinstance(module, nn.BatchNorm3d):
            nn.init.uniform_(module.weight, 0.5, 1)
    x = torch.randn(2, 3, 4, 64, 64, dtype=dtype, requires_grad=True)
    model(x).square().mean().backward()
    assert [name for name, p in model.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0] == []
    assert x.grad.abs().sum() > 0


def test_untrained_features_stay_bounded_at_any_depth():
    """Also in eval mode, where nothing normalises: what frozen batch norms would be trained with."""
    torch.manual_seed(0)
    with torch.no_grad():
        features = ResNeXt3D("resnext3d50").eval()(torch.randn(1, 3, 4, 64, 64))
    assert 1e-2 < features.std() < 1e2


def test_clips_of_a_batch_do_not_touch_each_other():
    torch.manual_seed(0)
    model = ResNeXt3D("resnext3d14").eval()
    clips = torch.randn(3, 3, 5, 40, 40)
    with torch.no_grad():
        single = torch.cat([model(clip[None]) for clip in clips])
        torch.testing.assert_close(model(clips), single, rtol=1e-5, atol=1e-5)


def test_unknown_names_are_refused():
    with pytest.raises(UserError, match="unknown video backbone 'resnet3d18', did you mean 'resnext3d14'. There are .*resnet3d101"):
        ResNeXt3D("resnet3d18")


@pytest.mark.parametrize("frames", [1, 2, 4])
def test_gradients_under_bfloat16_autocast_are_those_of_float32(frames):
    """Within the rounding of bfloat16; torch's own gradients of 3-D weights are NaN on some CPUs for two frames."""
    torch.manual_seed(0)
    network = ResNeXt3D("resnext3d14").eval()
    for module in network.modules():
        if isinstance(module, Bottleneck3D):
            torch.nn.init.constant_(module.bn3.weight, 0.5)  # no branch is 0, as at the start of training
    x = torch.randn(2, 3, frames, 64, 64)
    gradients = []
    for enabled in (False, True):
        network.zero_grad()
        with torch.autocast("cpu", torch.bfloat16, enabled=enabled):
            y = network(x)
        assert y.dtype == (torch.bfloat16 if enabled else torch.float32)
        y.float().square().mean().backward()
        gradients.append([p.grad.clone() for p in network.parameters() if p.grad is not None])
    for plain, autocast in zip(*gradients, strict=True):
        assert float((autocast - plain).norm()) <= 0.2 * float(plain.norm())  # up to 0.14; up to 0.10 in a 2-D ResNet
