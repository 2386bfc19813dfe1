"""What training on CPUs does otherwise than on GPUs, to be faster."""

import functools
import logging

import torch

from unival.backbones.prepared import compute_type

logger = logging.getLogger(__name__)


@functools.cache
def is_slow(device: str, dtype: torch.dtype) -> bool:
    """Whether a kind of device takes longer in half precision than in float32; said once, in the log."""
    slow = device == "cpu" and compute_type(dtype) != dtype
    if slow:
        logger.warning("this CPU has no instructions for %s, and is several times as fast in float32, which is used instead", dtype)
    return slow
