"""The types of numbers that a model can compute in when it is loaded for inference."""

from collections.abc import Mapping

import torch
from torch import nn

from unival.backbones.prepared import prepare
from unival.errors import UserError, unknown

TYPES: Mapping[str, torch.dtype] = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16, "int8": torch.float32}


def check_type(dtype: str, device: torch.device | None = None) -> None:
    """Check a type by its name, and whether a device has it, if given.

    Raises:
        UserError: there is no such type, or the device lacks it.
    """
    if dtype not in TYPES:
        raise UserError(unknown("dtype", dtype, TYPES))
    if dtype == "int8" and (torch.backends.quantized.engine == "none" or (device is not None and device.type != "cpu")):
        raise UserError(f"dtype 'int8' is for CPUs with a quantised engine of torch: use fp32, bf16 or fp16 on {device or 'this machine'}")


def convert(model: nn.Module, dtype: str) -> None:
    """Convert a model's weights, once, to a type of :data:`TYPES`, and prepare it: with int8, linear layers are kept quantised.

    Raises:
        UserError: the model's device lacks the type.
    """
    check_type(dtype, next(model.parameters()).device)
    model.to(TYPES[dtype])
    prepare(model, int8=dtype == "int8")
