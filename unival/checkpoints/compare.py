"""Compare two checkpoints: keys, shapes, types, values, options and training state."""

import pathlib
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from unival.checkpoints import files
from unival.checkpoints.architecture import identify
from unival.checkpoints.names.published import rename_published
from unival.checkpoints.summary import Difference, changed_values, difference, part_of, tied_keys, type_name

STATE_SHOWN = 60  # most characters of a value in the result


def compare(first: str, second: str, weights_only: bool = False) -> dict[str, Any]:
    """Compare the checkpoints in two files.

    If one has the published keys and the other ours, the published keys are translated first.

    Args:
        first: path of a file.
        second: path of the other.
        weights_only: leave out options and training state.

    Returns:
        ``equal``; ``identical`` (the files are equal byte by byte); ``translated`` (whose keys were); ``only`` (keys of one alone);
        ``reshaped``, ``retyped`` (key -> both); ``keys`` and ``parts`` (-> values, changed, largest, relative, cosine); ``options`` and
        ``state`` (path -> both values, as text).

    Raises:
        UserError: a file cannot be read.
    """
    containers = [files.read(first), files.read(second)]
    for path in (first, second):
        files.check_sums(path)
    weights = [files.weights(container, path) for container, path in zip(containers, (first, second), strict=True)]
    states, translated = _same_names(weights, containers)
    a, b = states
    both = [key for key in a if key in b]
    reshaped = {key: (list(a[key].shape), list(b[key].shape)) for key in both if a[key].shape != b[key].shape}
    retyped = {key: (type_name(a[key]), type_name(b[key])) for key in both if a[key].dtype != b[key].dtype}
    keys = _differences(a, b, [key for key in both if key not in reshaped])
    tied = tied_keys(a)
    parts: dict[str, Difference] = {}
    for key, found in keys.items():
        if key not in tied:
            parts[part_of(key)] = parts.get(part_of(key), Difference()) + found
    rest = {"options": {}, "state": {}} if weights_only else _rest(*containers)
    only = [[key for key in a if key not in b], [key for key in b if key not in a]]
    changed = any(found.changed for found in keys.values())
    return {
        "files": [first, second],
        "identical": _same_bytes(first, second),
        "equal": not (changed or any(only) or reshaped or retyped or any(rest.values())),
        "weights_only": weights_only,
        "translated": translated,
        "only": only,
        "reshaped": reshaped,
        "retyped": retyped,
        **rest,
        "parts": {part: as_dict(found) for part, found in parts.items()},
        "keys": {key: as_dict(found) for key, found in keys.items()},
    }


def as_dict(found: Difference) -> dict[str, Any]:
    """Convert a difference to a dict for JSON and tables."""
    return {
        "values": found.values,
        "changed": found.changed,
        "largest": found.largest,
        "relative": found.relative,
        "cosine": found.cosine,
    }


def _differences(a: Mapping[str, Tensor], b: Mapping[str, Tensor], keys: list[str]) -> dict[str, Difference]:
    """The differences by key; tied weights are compared once."""
    seen: dict[tuple[Any, ...], Difference] = {}
    found = {}
    for key in keys:
        place = (a[key].data_ptr(), b[key].data_ptr(), a[key].shape, a[key].stride(), b[key].stride())
        if place not in seen or not all(place[:2]):
            seen[place] = difference(a[key], b[key])
        found[key] = seen[place]
    return found


def _same_names(
    states: list[dict[str, Tensor]], containers: list[dict[str, Any]]
) -> tuple[list[dict[str, Tensor]], str | None]:
    """Rename published keys to ours if the other state has ours; also returns which one was renamed (``a``, ``b`` or None)."""
    kinds = [identify(container, state).kind for container, state in zip(containers, states, strict=True)]
    if "unival" not in kinds or not {"published", "ofa"} & set(kinds):
        return states, None
    which = 1 - kinds.index("unival")
    copy = dict(states[which])
    rename_published(copy)
    return [copy, states[1]] if which == 0 else [states[0], copy], "ab"[which]


def _rest(a: Mapping[str, Any], b: Mapping[str, Any]) -> dict[str, dict[str, tuple[str, str]]]:
    """Differences other than those of weights: options and training state."""
    both = [{key: value for key, value in c.items() if key not in files.WEIGHT_KEYS} for c in (a, b)]
    if files.weights(a) and not any(key in a for key in files.WEIGHT_KEYS):
        both[0] = {}
    if files.weights(b) and not any(key in b for key in files.WEIGHT_KEYS):
        both[1] = {}
    changes = changed_values(*both)
    shown = {path: (_text(x), _text(y)) for path, (x, y) in changes.items()}
    options = {path.removeprefix("cfg."): pair for path, pair in shown.items() if path.startswith(("cfg.", "args."))}
    return {"options": options, "state": {p: pair for p, pair in shown.items() if not p.startswith(("cfg.", "args."))}}


def _text(value: Any) -> str:
    if isinstance(value, Tensor):
        return f"{type_name(value)} {tuple(value.shape)}"
    text = repr(value)
    return text if len(text) <= STATE_SHOWN else text[: STATE_SHOWN - 1] + "…"


def _same_bytes(first: str, second: str) -> bool:
    """Whether two files are equal byte by byte (folders: no)."""
    a, b = pathlib.Path(first), pathlib.Path(second)
    if not a.is_file() or not b.is_file() or a.stat().st_size != b.stat().st_size:
        return False
    if a.samefile(b):
        return True
    with a.open("rb") as x, b.open("rb") as y:
        while block := x.read(1 << 20):
            if block != y.read(1 << 20):
                return False
    return True
