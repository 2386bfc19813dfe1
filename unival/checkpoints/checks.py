"""Checks of a container before it is used: types of its parts, and options without interpolation."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from unival.checkpoints.namespace import Namespace, unwrapped
from unival.errors import UserError

INTERPOLATION = "${"  # OmegaConf replaces what follows when the option is read, by an environment variable, say


def check_container(container: Mapping[str, Any]) -> None:
    """Refuse parts of a wrong type, and options that would be interpolated.

    Raises:
        UserError: a part is refused; names it (``cfg.task.instruction``) and its type.
    """
    cfg, task_state = container.get("cfg"), container.get("task_state")
    _expect("cfg", cfg, dict)
    for section in ("model", "task"):
        _expect(f"cfg.{section}", (cfg or {}).get(section), dict, Namespace)
    _expect("task_state", task_state, dict)
    kept = (task_state or {}).get("vocabulary_files")
    _expect("task_state.vocabulary_files", kept, dict)
    for name, text in (kept or {}).items():
        if not isinstance(name, str) or not isinstance(text, str):
            raise UserError(f"task_state.vocabulary_files maps {name!r} to a {type(text).__name__}, expected text")
    for part in ("cfg", "args"):
        place = interpolated(container.get(part), part)
        if place is not None:
            raise UserError(f"the option {place} holds {INTERPOLATION!r}, which would be replaced when it is read")


def interpolated(options: Any, name: str) -> str | None:
    """The place of a string with ``${`` in nested options, such as ``name.key.0``; None if there is none."""
    todo: list[tuple[str, Any]] = [(name, options)]
    seen: set[int] = set()
    while todo:
        place, value = todo.pop()
        if isinstance(value, str) and INTERPOLATION in value:
            return place
        value = unwrapped(value)
        if not isinstance(value, dict | list | tuple | set | frozenset) or id(value) in seen:
            continue
        seen.add(id(value))
        items = value.items() if isinstance(value, dict) else enumerate(value)
        for key, item in items:
            if isinstance(key, str) and INTERPOLATION in key:
                return f"{place}.{key}"
            todo.append((f"{place}.{key}", item))
    return None


def check_tensor(key: str, value: Tensor) -> None:
    """Refuse tensors that are not dense arrays of values.

    Raises:
        UserError: the tensor is sparse, quantised or without values; names the key.
    """
    what = None
    if value.layout != torch.strided:
        what = str(value.layout).removeprefix("torch.").replace("_", " ")
        what = what if "sparse" in what else f"of layout {what}"
    elif value.is_quantized:
        what = f"quantised ({str(value.dtype).removeprefix('torch.')})"
    elif value.is_meta:
        what = "a shape without values (on torch's meta device)"
    if what is not None:
        raise UserError(f"{key} is {what}; only plain tensors are read: save it as one (to_dense, dequantize)")


def _expect(name: str, value: Any, *types: type) -> None:
    if value is not None and not isinstance(value, types):
        raise UserError(f"{name} is of type {type(value).__name__}, expected {' or '.join(kind.__name__ for kind in types)}")
