"""Buffers in the state dict of the published model, computed from formulas: position buckets, version numbers, Fourier kernels."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from unival.backbones.pann import fourier_kernels
from unival.checkpoints.names.published import STFT
from unival.models.bias import code_positions, image_bucket_rows, token_buckets

VERSION = 3.0  # of fairseq's transformers
TAIL = 769  # entries of image_position_idx after the grid


def published_kernels(window_size: int) -> dict[str, Tensor]:
    """The Fourier kernels of published checkpoints, by their keys there."""
    kernels = fourier_kernels(window_size)  # window x (real, imaginary)
    parts = zip(("real", "imag"), kernels.chunk(2, dim=1), strict=True)
    return {f"{STFT}conv_{name}.weight": part.T[:, None].contiguous() for name, part in parts}


def published_buffers(options: Mapping[str, Any]) -> dict[str, Tensor]:
    """All buffers of the published model with these options, by their keys there."""
    bucket = options["image_bucket_size"]
    ids = torch.arange(bucket**2 + 1)
    length = (options["code_image_size"] // 8) ** 2 + 1 + TAIL
    found = {"decoder.image_position_idx": code_positions(length, options["code_image_size"], bucket)}
    tokens, images = token_buckets(1024, options["token_bucket_size"]), image_bucket_rows(ids, ids, bucket)
    for side in ("encoder", "decoder"):
        found[f"{side}.version"] = torch.tensor([VERSION])
        found[f"{side}.token_rp_bucket"] = tokens
        found[f"{side}.image_rp_bucket"] = images
    return {**found, **published_kernels(options["audio_window_size"])}
