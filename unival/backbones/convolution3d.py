"""3-D convolutions whose gradients are right in bfloat16 on CPUs.

The gradient of the weights by torch's bfloat16 kernels (oneDNN) is wrong there for inputs of few frames, such as NaN for two frames and a
kernel of three.  It is computed here by 2-D convolutions: every frame of the kernel meets pairs of frames of the input and of the output,
which are the rows of a batch.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

Triple = tuple[int, int, int]


class Conv3d(nn.Conv3d):
    """torch's 3-D convolution with padding of zeros, without dilation and without a bias."""

    def __init__(self, channels: int, out_channels: int, kernel_size: int, stride: int | Triple = 1, padding: int = 0, groups: int = 1):
        super().__init__(channels, out_channels, kernel_size, stride, padding, groups=groups, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """``n x channels x time x height x width`` -> the same with ``out_channels``, and the last three by stride and padding."""
        if x.device.type != "cpu" or not torch.is_grad_enabled():
            return super().forward(x)
        if torch.is_autocast_enabled("cpu") and torch.get_autocast_dtype("cpu") == torch.bfloat16:
            x, weight = x.to(torch.bfloat16), self.weight.to(torch.bfloat16)
        else:
            weight = self.weight
        if weight.dtype != torch.bfloat16 or self.bias is not None:
            return super().forward(x)
        return _Convolution.apply(x, weight, self.stride, self.padding, self.groups)  # type: ignore[no-any-return, no-untyped-call]


class _Convolution(torch.autograd.Function):
    """A convolution in bfloat16 on a CPU."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, stride: Triple, padding: Triple, groups: int) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.options = stride, padding, groups
        with torch.autocast("cpu", enabled=False):
            return nn.functional.conv3d(x, weight, None, stride, padding, 1, groups)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        x, weight = ctx.saved_tensors
        stride, padding, groups = ctx.options
        gradient = gradient.contiguous(memory_format=torch.channels_last_3d)
        of_input = of_weight = None
        if ctx.needs_input_grad[0]:
            options = (None, stride, padding, (1, 1, 1), False, (0, 0, 0), groups)
            of_input = torch.ops.aten.convolution_backward(gradient, x, weight, *options, (True, False, False))[0]
        if ctx.needs_input_grad[1]:
            of_weight = weight_gradient(x, gradient, weight, stride, padding, groups)
        return of_input, of_weight, None, None, None


def weight_gradient(x: Tensor, gradient: Tensor, weight: Tensor, stride: Triple, padding: Triple, groups: int) -> Tensor:
    """The gradient of a 3-D convolution's weight, by a 2-D convolution for every frame of the kernel.

    Args:
        x: the convolution's input, ``n x channels x time x height x width``.
        gradient: the gradient of its output, ``n x out_channels x time' x height' x width'``.
        weight: ``out_channels x (channels / groups) x frames x rows x columns``; only its shape is used.
        stride, padding, groups: of the convolution.
    """
    kernel = weight[:, :, 0].contiguous(memory_format=torch.channels_last)
    options = (None, stride[1:], padding[1:], (1, 1), False, (0, 0), groups)
    frames = []
    for frame in range(weight.size(2)):
        shift = frame - padding[0]  # output t is computed from this frame of the kernel and input t * stride + shift
        first = max(0, -(shift // stride[0]))
        end = min(gradient.size(2), (x.size(2) - 1 - shift) // stride[0] + 1)
        if first >= end:  # only padding
            frames.append(torch.zeros_like(kernel))
            continue
        inputs = x[:, :, first * stride[0] + shift : (end - 1) * stride[0] + shift + 1 : stride[0]]
        rows = [part.transpose(1, 2).flatten(0, 1) for part in (gradient[:, :, first:end], inputs)]  # a row for every pair of frames
        frames.append(torch.ops.aten.convolution_backward(*rows, kernel, *options, (False, True, False))[1])
    return torch.stack(frames, 2)
