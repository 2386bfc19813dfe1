"""A batch twice in one forward pass, as R-Drop needs it."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor


def repeat_groups(net_input: Mapping[str, Any]) -> dict[str, Any]:
    """The model's input with every row twice: the rows of each group, then their copies."""
    return {**net_input, "groups": [_repeat_group(group) for group in net_input["groups"]]}


def _repeat_group(net_input: Mapping[str, Any]) -> dict[str, Any]:
    """One group's input twice: tensors are repeated along the batch, media item by item; other values stay as they are."""
    size = net_input["src_tokens"].size(0)
    repeated: dict[str, Any] = {}
    for key, value in net_input.items():
        if key == "media" and value is not None:
            repeated[key] = [_repeat_media(item) for item in value]
        elif isinstance(value, Tensor):
            assert value.size(0) == size, f"net_input[{key!r}] has {value.size(0)} rows, src_tokens has {size}"
            repeated[key] = torch.cat([value, value])
        else:
            repeated[key] = value
    return repeated


def _repeat_media(item: Mapping[str, Any]) -> dict[str, Any]:
    """One modality's items twice.  All tensors have one entry per item, except ``rows``: the index of each row's item."""
    repeated = {key: torch.cat([value, value]) if isinstance(value, Tensor) else value for key, value in item.items()}
    repeated["rows"] = torch.cat([item["rows"], item["rows"] + len(item["values"])])
    return repeated
