"""Convert weights to another floating-point type without losing values."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from unival.errors import UserError, counted

SHOWN = 4  # most keys in a message


def cast(state: Mapping[str, Tensor], dtype: torch.dtype | None) -> dict[str, Tensor]:
    """Convert floating-point tensors to another type (None: keep theirs); tied tensors stay tied.

    Raises:
        UserError: finite values are beyond the range of the type.
    """
    done: dict[tuple[Any, ...], Tensor] = {}
    result: dict[str, Tensor] = {}
    beyond: dict[str, float] = {}
    for key, value in state.items():
        if dtype is not None and value.is_floating_point() and value.dtype != dtype:
            place = (value.data_ptr(), value.shape, value.stride())
            if place not in done:
                done[place] = value.to(dtype)
                largest = _largest_lost(value, done[place])
                if largest is not None:
                    beyond[key] = largest
            value = done[place]
        result[key] = value
    if beyond:
        shown = ", ".join(f"{key} (up to {value:g})" for key, value in list(beyond.items())[:SHOWN])
        more = f" and {len(beyond) - SHOWN} more" if len(beyond) > SHOWN else ""
        name, limit = str(dtype).removeprefix("torch."), torch.finfo(dtype or torch.float32).max
        raise UserError(f"{counted(len(beyond), 'key')} with values beyond {name}'s largest, {limit:g}: {shown}{more}")
    return result


def _largest_lost(before: Tensor, after: Tensor) -> float | None:
    """The largest magnitude of values that were finite and no longer are; None if there are none."""
    if bool(torch.isfinite(after).all()):
        return None
    lost = before[torch.isfinite(before) & ~torch.isfinite(after)]
    return float(lost.abs().max()) if lost.numel() else None
