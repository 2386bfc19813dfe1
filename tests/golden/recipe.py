"""Weights and inputs of the reference model, by formula: every tensor is drawn from a generator seeded by its name.

The reference values were measured with these tensors in the original implementation, so no weights need to be stored. numpy
keeps the streams of ``RandomState`` the same in all its versions.
"""

import math
import zlib
from collections.abc import Iterable

import numpy as np
import torch
from torch import Tensor

SALT = "unival-tiny"
# what the model builds by formula, or holds twice
LEFT_AS_BUILT = ("version", "rp_bucket", "image_position_idx", "num_batches_tracked", "spectrogram_extractor", "logmel_extractor")
TIED = ("decoder.embed_tokens.weight", "decoder.output_projection.weight")  # to encoder.embed_tokens.weight


def generator(salt: str, name: str) -> np.random.RandomState:
    """The generator of one tensor."""
    return np.random.RandomState(zlib.crc32(f"{salt}:{name}".encode()))


def is_drawn(key: str) -> bool:
    """Whether a published key's values come from :func:`weight`."""
    return key not in TIED and not any(part in key for part in LEFT_AS_BUILT)


def weight(key: str, shape: Iterable[int]) -> Tensor:
    """The float32 values of a published key."""
    shape, rng, name = tuple(shape), generator(SALT, key), key.rpartition(".")[2]
    if name in ("running_var", "c_attn", "w_resid") or (name == "weight" and len(shape) == 1):  # scales, between 1/2 and 3/2
        values = 0.5 + rng.random_sample(shape)
        if key.endswith("bn3.weight"):  # the last norm of a residual block: keeps 33 blocks in a row bounded
            values = values / 4
    elif len(shape) == 1:  # biases and running means
        values = rng.standard_normal(shape) * 0.1
    elif len(shape) > 2:  # convolutions
        values = rng.standard_normal(shape) * math.sqrt(2 / math.prod(shape[1:]))
    elif any(part in key for part in ("embed_tokens", "positions", "rel_pos_table", "type_embedding")):  # tables
        values = rng.standard_normal(shape) * 0.5
    else:  # linear layers
        values = rng.standard_normal(shape) / math.sqrt(shape[1])
    return torch.from_numpy(np.asarray(values, dtype=np.float32))


def fill_(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Write the drawn values into the floating-point tensors of a state dict with published keys; returns it."""
    with torch.no_grad():
        for key, tensor in state.items():
            if tensor.is_floating_point() and is_drawn(key):
                tensor.copy_(weight(key, tensor.shape))
    return state


def _half(values: np.ndarray) -> Tensor:
    """Inputs have the precision of float16, in float32."""
    return torch.from_numpy(values.astype(np.float16).astype(np.float32))


def images(count: int, height: int, width: int) -> Tensor:
    """``n x 3 x h x w``."""
    return _half(generator("img", f"{count},{height},{width}").standard_normal((count, 3, height, width))) / 2


def videos(count: int, frames: int, height: int, width: int) -> Tensor:
    """``n x 3 x t x h x w``."""
    shape = (count, 3, frames, height, width)
    return _half(generator("vid", f"{count},{frames},{height},{width}").standard_normal(shape)) / 2


def sounds(count: int, samples: int) -> Tensor:
    """``n x samples`` at 48 kHz: noise and four tones each."""
    seconds, rows = np.arange(samples) / 48000, []
    for i in range(count):
        rng = generator("aud", f"{i},{samples}")
        wave = 0.05 * rng.standard_normal(samples)
        for _ in range(4):
            volume, pitch, phase = 0.2 * rng.random_sample(), 200 + 6000 * rng.random_sample(), rng.random_sample()
            wave += volume * np.sin(2 * np.pi * pitch * seconds + phase)
        rows.append(wave)
    return _half(np.stack(rows))


MEDIA = {"image": images, "video": videos, "audio": sounds}
