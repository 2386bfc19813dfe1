"""Adapters: what a run with ``--peft`` or ``--trainable`` has trained, as a file of its own for the base that it was trained on.

A container with the trained weights under ``model``, options and state of the task as in a checkpoint, and, under ``adapter``, a
fingerprint of the base: for every weight that was not trained its type and a hash of its values.
"""

import hashlib
import pathlib
import re
from collections.abc import Collection, Mapping
from typing import Any

import torch
from torch import Tensor

from unival.checkpoints.convert import new_container
from unival.checkpoints.files import weights
from unival.checkpoints.names.published import is_published, rename_published
from unival.checkpoints.namespace import unwrapped
from unival.checkpoints.shapes import MEDIA_PREFIX
from unival.errors import UserError, counted
from unival.text import split_names

# Method of --peft -> its options of the model
METHODS: dict[str, tuple[str, ...]] = {
    "lora": ("lora_rank", "lora_alpha", "lora_dropout", "lora_layers"),
    "adapters": ("adapter_width", "adapter_after"),
    "prefix": ("prefix_length",),
    "bitfit": (),
}
NEW_PARTS = {"lora": "lora", "adapter": "adapters", "prefix": "prefix"}  # name of a new part in keys -> method
SHOWN = 3  # most keys in a message
MARK = "adapter"  # key of a container
TYPES = {str(value).removeprefix("torch."): value for value in vars(torch).values() if isinstance(value, torch.dtype)}
BITS = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}  # bytes of a value -> type that numpy has, too


def method_of(key: str) -> str | None:
    """The method of ``--peft`` that a key belongs to; None for those of the model itself."""
    found = re.search(rf"\.({'|'.join(NEW_PARTS)})\.", key)
    return None if found is None else NEW_PARTS[found[1]]


def stamp(value: Tensor) -> str:
    """Type and hash of a tensor's values."""
    bits = value.detach().cpu().contiguous().view(-1).view(BITS[value.element_size()])
    return f"{str(value.dtype).removeprefix('torch.')} {hashlib.blake2b(bits.numpy().data, digest_size=8).hexdigest()}"


def extract(container: Mapping[str, Any], trained: Collection[str], values: Mapping[str, Tensor], path: str) -> dict[str, Any]:
    """Make an adapter of a checkpoint.

    Args:
        container: the checkpoint.
        trained: keys of the weights that the run trained.
        values: the weights to take, those of the checkpoint or their moving average.
        path: path of the checkpoint, for messages.

    Raises:
        UserError: the run trained all weights.
    """
    options = unwrapped(container["cfg"]["model"])
    new = tuple(f"{MEDIA_PREFIX}{name}." for name in split_names(options.get("new_modalities") or ""))
    state = weights(container, path)
    kept = {key: value for key, value in values.items() if key in trained or (new and key.startswith(new))}
    base = {key: stamp(value) for key, value in state.items() if key not in kept}
    if not base:
        raise UserError(f"{path}: all of its weights were trained (no --peft, --trainable or --freeze): it is no adapter of a base")
    task = container.get("task_state") or {}
    return {"model": kept, "cfg": container["cfg"], "task_state": task, MARK: {"base": base}}


def stack(base: Mapping[str, Any], adapter: Mapping[str, Any], base_path: str, adapter_path: str) -> dict[str, Any]:
    """Make the checkpoint that an adapter was extracted from, of its base and the adapter.

    Raises:
        UserError: the file is no adapter, or was trained on another base.
    """
    expected = _base_of(adapter, adapter_path)
    if MARK in base:
        raise UserError(f"{base_path}: is an adapter, expected the checkpoint of its base")
    state = dict(weights(base, base_path))
    if is_published(state):
        rename_published(state)
    kept: dict[str, Tensor] = {}
    wrong = []
    for key, mark in expected.items():
        if key in state:
            kept[key] = state[key].to(TYPES[mark.split()[0]])
        if key not in state or stamp(kept[key]) != mark:
            wrong.append(f"{key} {'differs' if key in state else 'is missing'}")
    if wrong:
        raise UserError(
            f"{adapter_path}: was trained on another base than {base_path} ({len(wrong)} of {counted(len(expected), 'weight')}):"
            f" {', '.join(wrong[:SHOWN])}"
        )
    state = {**kept, **weights(adapter, adapter_path)}
    made_from = {"base": pathlib.Path(base_path).name, "adapter": pathlib.Path(adapter_path).name}
    return new_container(state, adapter["cfg"], adapter["task_state"], made_from)


def _base_of(adapter: Mapping[str, Any], path: str) -> Mapping[str, str]:
    """The fingerprint of an adapter's base: key -> :func:`stamp`."""
    mark = adapter.get(MARK)
    base = mark.get("base") if isinstance(mark, Mapping) else None
    if not isinstance(base, Mapping):
        raise UserError(f"{path}: is no adapter; `unival adapter extract` makes one of a checkpoint")
    strange = [key for key, value in base.items() if not isinstance(value, str) or value.split(" ")[0] not in TYPES]
    lacking = [name for name in ("cfg", "task_state") if not isinstance(adapter.get(name), Mapping)]
    if strange or lacking:
        raise UserError(f"{path}: is a damaged adapter: {', '.join([*lacking, *map(str, strange)][:SHOWN])}")
    return base


def merge(container: Mapping[str, Any], path: str) -> dict[str, Any]:
    """Add the new parts of a checkpoint to its weights: the same model without them.

    Args:
        container: the checkpoint, as from :func:`stack`.
        path: path of the adapter, for messages.

    Raises:
        UserError: adapters and prefixes are no change of weights.
    """
    options = dict(unwrapped(container["cfg"]["model"]))
    state = dict(container["model"])
    methods = {method_of(key) for key in state}
    for method in ("adapters", "prefix"):
        if method in methods:
            raise UserError(f"{path}: --peft {method} cannot be merged: no weights of the model compute the same; use it beside its base")
    for key in [key for key in state if key.endswith(".lora.a")]:
        layer = key.removesuffix(".lora.a")
        a, b = state.pop(key).double(), state.pop(f"{layer}.lora.b").double()
        weight = state[f"{layer}.weight"]
        state[f"{layer}.weight"] = (weight.double() + options["lora_alpha"] / len(a) * b @ a).to(weight.dtype)
    for name in ("peft", "trainable", "freeze", *(name for names in METHODS.values() for name in names)):
        options.pop(name, None)  # these are the defaults from now on
    return {**container, "cfg": {**container["cfg"], "model": options}, "model": state}
