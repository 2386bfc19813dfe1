"""What modules keep for inference beside their weights: forms of them that a CPU multiplies faster.

A prepared module has the same parameters, buffers and checkpoint keys as before.  What it keeps is made when it is first of use, and used
where no gradients are computed.  It is dropped when the weights change: in training mode, by loading, by another device or type, in place;
copies and pickles do not have it.
"""

import itertools
import warnings
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

PACKED_ROWS = 32  # a hint for the layout; products of any number of rows are right
STEPS = 63  # of a quantised input, on either side of 0
TINY = torch.finfo(torch.float32).tiny
FEW_ROWS = 256  # with more of them, torch's own product of float32 is as fast


class Prepared(nn.Module):
    """A module that can be prepared for inference; subclasses define :meth:`prepared_form`."""

    asked: bool | None = None  # for which form: int8 or not; None: the module is not prepared
    prepared: Any = None  # the form, once it was of use
    made_of: list[tuple[int, int]] = []  # what :meth:`versions` gave when the module was prepared

    def prepared_form(self, int8: bool) -> Any:
        """What to keep for inference, made from the current weights (``int8``: of matrices, quantised); None where that is of no use."""
        raise NotImplementedError

    def prepare(self, int8: bool = False) -> None:
        """Keep a form of the weights from its first use on; what is kept already stays if the weights are the same."""
        if not self.training and (self.asked is None or self.made_of != self.versions()):
            self.asked, self.prepared, self.made_of = int8, None, self.versions()

    def sources(self) -> Iterable[Tensor]:
        """The tensors that the prepared form is made of."""
        return itertools.chain(self.parameters(), self.buffers())

    def versions(self) -> list[tuple[int, int]]:
        """What :func:`version` gives for every source."""
        return [version(each) for each in self.sources()]

    def ready(self, x: Tensor) -> Any:
        """What is kept for inference; None where it is of no use for an input, weights have changed since, or gradients are computed."""
        if self.asked is None or torch.is_grad_enabled() or not self.is_of_use(x):
            return None
        if self.made_of != self.versions():
            self.drop()
        elif self.prepared is None:
            self.prepared = self.prepared_form(self.asked)
            if self.prepared is None:
                self.drop()
        return self.prepared

    def is_of_use(self, x: Tensor) -> bool:
        """Whether the form is better than the weights for an input."""
        return True

    def drop(self) -> None:
        """Drop what is kept; the module is as if it had not been prepared."""
        self.asked = self.prepared = None

    def train(self, mode: bool = True) -> "Prepared":
        """Set the mode; training drops what is kept."""
        if mode:
            self.drop()
        return super().train(mode)

    def _apply(self, *args: Any, **kwargs: Any) -> "Prepared":
        self.drop()
        return super()._apply(*args, **kwargs)

    def _load_from_state_dict(self, *args: Any, **kwargs: Any) -> None:
        self.drop()
        super()._load_from_state_dict(*args, **kwargs)

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name not in ("asked", "prepared")}


def version(tensor: Tensor) -> tuple[int, int]:
    """The place of a tensor, and how often it was changed in place (not through ``.data``, which torch does not count)."""
    return tensor.data_ptr(), 0 if tensor.is_inference() else tensor._version


def prepare(module: nn.Module, int8: bool = False) -> None:
    """Prepare all parts of a module, which must be in evaluation mode; with ``int8``, matrices are quantised."""
    for part in module.modules():
        if isinstance(part, Prepared):
            part.prepare(int8)


class PackedWeight:
    """A matrix in the layout of oneDNN's products.  With few rows to multiply, torch's own product on CPUs takes twice as long.

    Args:
        weight: ``out x in``.
    """

    def __init__(self, weight: Tensor):
        self.dtype = weight.dtype
        self.packed = torch.ops.mkldnn._reorder_linear_weight(weight.to(compute_type(weight.dtype)), PACKED_ROWS)

    def fits(self, x: Tensor) -> bool:
        """Whether inputs ``… x in`` can be multiplied: they are not under autocast, and not empty."""
        return x.dtype == self.dtype and x.numel() > 0

    def multiply(self, x: Tensor, bias: Tensor | None = None) -> Tensor:
        """``… x in`` -> ``… x out``, as ``F.linear``."""
        compute = compute_type(self.dtype)
        bias = None if bias is None else bias.to(compute)
        return torch.ops.mkldnn._linear_pointwise(x.to(compute), self.packed, bias, "none", [], "").to(self.dtype)


class QuantizedWeight:
    """A matrix as int8 with a scale for every row; inputs are quantised as they come, each row with a scale of its own (Yao et al. 2022,
    "ZeroQuant", token-wise), so that what is computed of a row does not depend on the others.

    Args:
        weight: ``out x in``, on a CPU.
    """

    def __init__(self, weight: Tensor):
        scales = weight.abs().amax(1).double().clamp(min=TINY) / 127
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch announces that its quantised tensors will move to a package of their own
            rounded = torch.quantize_per_channel(weight.float(), scales, torch.zeros(len(scales), dtype=torch.long), 0, torch.qint8)
            self.packed = torch.ops.quantized.linear_prepack(rounded, None)
        self.takes_scale = torch.backends.quantized.engine in ("x86", "fbgemm")

    def fits(self, x: Tensor) -> bool:
        """Whether inputs ``… x in`` can be multiplied: they are not empty."""
        return x.numel() > 0

    def multiply(self, x: Tensor, bias: Tensor | None = None) -> Tensor:
        """``… x in`` -> ``… x out``, as ``F.linear``."""
        rows = x.reshape(-1, x.size(-1)).float()
        scale = rows.abs().amax(1, keepdim=True).clamp(min=TINY)
        y = self.multiply_scaled(rows / scale).mul_(scale)
        return (y if bias is None else y.add_(bias)).to(x.dtype).view(*x.shape[:-1], -1)

    def multiply_scaled(self, rows: Tensor) -> Tensor:
        """Rows ``n x in`` of -1 to 1 -> ``n x out``; rounded to steps of 1 / 63, since sums of 8 bits overflow without VNNI."""
        if self.takes_scale:
            return torch.ops.quantized.linear_with_input_q_dq_qweight_dq_output_fp32(rows, 1 / STEPS, STEPS + 1, self.packed)
        bounds = rows.new_zeros(1, rows.size(1))  # the other engines look for the lowest and the highest number themselves
        bounds[0, 0], bounds[0, -1] = -1, 1
        return torch.ops.quantized.linear_dynamic(torch.cat([rows, bounds]), self.packed, True)[:-1]


def kept_matrix(weight: Tensor, int8: bool) -> PackedWeight | QuantizedWeight | None:
    """The form of a matrix ``out x in`` to keep for inference; None where torch has none."""
    if int8:
        return QuantizedWeight(weight.detach())
    return PackedWeight(weight.detach()) if is_packable(weight) else None


def is_packable(weight: Tensor) -> bool:
    """Whether torch has oneDNN, and packs weights of this type on their device."""
    known = weight.dtype in (torch.float32, torch.bfloat16, torch.float16)
    return known and weight.device.type == "cpu" and torch.backends.mkldnn.is_available() and bool(torch.backends.mkldnn.enabled)


def compute_type(dtype: torch.dtype) -> torch.dtype:
    """The type in which a CPU multiplies fastest values of some type: half precision only if it has instructions for it."""
    if dtype == torch.bfloat16 and torch.ops.mkldnn._is_mkldnn_bf16_supported():
        return dtype
    return torch.promote_types(dtype, torch.float32)


class Linear(Prepared, nn.Linear):
    """torch's linear layer, whose weight can be packed for inference."""

    def sources(self) -> Iterable[Tensor]:
        """The weight."""
        return (self.weight,)

    def prepared_form(self, int8: bool) -> PackedWeight | QuantizedWeight | None:
        """The packed or quantised weight."""
        return kept_matrix(self.weight, int8)

    def is_of_use(self, x: Tensor) -> bool:
        """Whether ``x`` has few rows, or is not multiplied as float32 with torch's own product."""
        return bool(self.asked) or x.dtype != torch.float32 or x.numel() <= FEW_ROWS * self.in_features

    def forward(self, x: Tensor) -> Tensor:
        """``… x in`` -> ``… x out``."""
        packed = self.ready(x)
        if packed is not None and packed.fits(x):
            return packed.multiply(x, self.bias)
        return F.linear(x, self.weight, self.bias)
