"""3-D convolutions: gradients of weights by 2-D convolutions."""

import itertools

import pytest
import torch
from torch.nn import functional as F

from unival.backbones.convolution3d import Conv3d, weight_gradient

# kernel, stride, padding: those of the networks, and others
KINDS = [(1, 1, 0), (1, 2, 0), (3, 1, 1), (3, 2, 1), (7, (1, 2, 2), 3), (3, 3, 0), (5, 2, 1), (2, 1, 1)]


def tensors(kernel, stride, padding, frames, groups):
    torch.manual_seed(0)
    shape = (2, 4, frames, 9, 8)
    layer = Conv3d(4, 6, kernel, stride, padding, groups)
    x = torch.randn(shape).contiguous(memory_format=torch.channels_last_3d)
    return layer, x


@pytest.mark.parametrize(("kernel", "stride", "padding"), KINDS)
def test_weight_gradient_equals_that_of_autograd(kernel, stride, padding):
    seen = 0
    for frames, groups in itertools.product(range(1, 9), (1, 2)):
        layer, x = tensors(kernel, stride, padding, frames, groups)
        if frames + 2 * padding < kernel:
            continue
        x, weight = x.double(), layer.weight.detach().double().requires_grad_()
        y = F.conv3d(x, weight, None, layer.stride, layer.padding, 1, groups)
        gradient = torch.randn_like(y)
        y.backward(gradient)
        found = weight_gradient(x, gradient, weight, layer.stride, layer.padding, groups)
        torch.testing.assert_close(found, weight.grad)
        seen += 1
    assert seen >= 8


@pytest.mark.parametrize("frames", range(1, 7))
@pytest.mark.parametrize(("kernel", "stride", "padding"), KINDS[:5])
def test_bfloat16_gradients_are_right_for_every_number_of_frames(kernel, stride, padding, frames):
    for groups in (1, 2):
        layer, x = tensors(kernel, stride, padding, frames, groups)
        found = []
        for enabled in (False, True):
            layer.zero_grad()
            leaf = x.bfloat16().float().requires_grad_()
            with torch.autocast("cpu", torch.bfloat16, enabled=enabled):
                y = layer(leaf)
            assert y.dtype == (torch.bfloat16 if enabled else torch.float32)
            y.float().square().mean().backward()
            found.append((y.float(), leaf.grad, layer.weight.grad))
        for plain, autocast in zip(*found, strict=True):
            assert autocast.dtype == torch.float32
            assert float((autocast - plain).detach().norm()) <= 0.02 * float(plain.detach().norm())


def test_other_precisions_and_inference_are_torchs_own():
    layer, x = tensors(3, 1, 1, 4, 1)
    torch_own = torch.nn.Conv3d.forward
    assert torch.equal(layer(x), torch_own(layer, x))
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(layer(x), torch_own(layer, x))
    halves, inputs = layer.bfloat16(), x.bfloat16()  # weights in bfloat16 without autocast
    halves(inputs).float().sum().backward()
    assert halves.weight.grad.dtype == torch.bfloat16 and bool(halves.weight.grad.isfinite().all())
