"""Statistics of state dicts: parameters per part, values that are not finite, and differences between two of them.

Tensors are processed a few million values at a time, so that a mapped file is never copied to memory as a whole.
"""

import fnmatch
import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from unival.checkpoints.namespace import Namespace, unwrapped
from unival.errors import UserError
from unival.modalities import with_media

CHUNK = 1 << 22  # values per step (32 MB in float64)
MAX_DEPTH = 64

BUFFERS = re.compile(
    r"(^|\.)(running_mean|running_var|num_batches_tracked|version|token_rp_bucket|image_rp_bucket|image_position_idx|mel_filters)$"
)
# Keys of weights that are tied to the token embeddings; some programs save them as copies.
TOKEN_NAMES = (
    "encoder.embed_tokens.weight",
    "decoder.embed_tokens.weight",
    "decoder.output_projection.weight",
    "shared.weight",
    "lm_head.weight",
)
WRAPPERS = ("module.", "model.")  # prefixes that training programs add to all keys

# label -> pattern of its parts (see part_of) by our keys, the published ones and BART's; those of CNNs are in group_patterns
PART_LABELS: dict[str, str] = {
    "projections": r"encoder\.(media\.\w+\.(proj|norm)|(image|video|audio)_proj|layernorm_(image|video|audio)_embedding)",
    "position tables": r"encoder\.media\.\w+\.positions|(en|de)coder\.embed_(\w+_)?positions",
    "token embeddings": r"(en|de)coder\.embed_tokens|decoder\.output_projection|shared|lm_head",
    "encoder layers": r"encoder\.layers",
    "decoder layers": r"decoder\.layers",
    "position projections": r"(en|de)coder\.(self_|cross_)?pos_[qk]_linear",
    "relative tables": r"(en|de)coder\.(token|image)_rel_pos_table_list",
}
OTHER_PARTS = "others (norms, types)"


def group_patterns() -> dict[str, str]:
    """Label -> pattern of its parts, those of the modalities' CNNs first."""
    return {**{f"{name} CNN": rf"encoder\.(media\.{name}\.backbone|embed_{name}s)" for name in with_media()}, **PART_LABELS}


def part_of(key: str) -> str:
    """The part of the model that a key belongs to: ``encoder.layers``, ``encoder.media.image.backbone``, ``layer1``, …"""
    wrapper = next((start for start in WRAPPERS if key.startswith(start)), "")
    names = key[len(wrapper) :].split(".")
    depth = 1
    if names[0] in ("encoder", "decoder"):
        depth = 4 if names[1:2] == ["media"] else 2
    return wrapper + ".".join(names[:depth])


def group_of(part: str) -> str:
    """The label of a part in a table: image CNN, position tables, …"""
    for start in WRAPPERS:
        part = part.removeprefix(start)
    return next((label for label, pattern in group_patterns().items() if re.fullmatch(pattern, part)), OTHER_PARTS)


def is_buffer(key: str) -> bool:
    """Whether a key is that of statistics, counters or constants instead of a parameter."""
    return BUFFERS.search(key) is not None


@dataclass
class Count:
    """Numbers of a part: parameters, values in buffers, and keys."""

    parameters: int = 0
    buffers: int = 0
    keys: int = 0


def count_parts(state: Mapping[str, Tensor], tied: Mapping[str, str] | None = None) -> dict[str, Count]:
    """Count by part; tied weights (``tied`` as from :func:`tied_keys`, the default) are counted once, under their first key."""
    tied = tied_keys(state) if tied is None else tied
    counts: dict[str, Count] = {}
    for key, value in state.items():
        count = counts.setdefault(part_of(key), Count())
        count.keys += 1
        if key in tied:
            continue
        if is_buffer(key):
            count.buffers += value.numel()
        else:
            count.parameters += value.numel()
    return counts


def tied_keys(state: Mapping[str, Tensor]) -> dict[str, str]:
    """Keys whose weights are those of an earlier key (key -> earlier key): the same memory, or a copy of the token embeddings."""
    tied: dict[str, str] = {}
    first: dict[tuple[Any, ...], str] = {}
    embeddings: str | None = None
    for key, value in state.items():
        place = (value.data_ptr(), value.shape, value.stride(), value.dtype)
        if value.numel() and place[0] and place in first:  # without memory there is only a shape
            tied[key] = first[place]
            continue
        first[place] = key
        bare = key
        for start in WRAPPERS:
            bare = bare.removeprefix(start)
        if bare in TOKEN_NAMES:
            if embeddings is not None and same_values(state[embeddings], value):
                tied[key] = embeddings
            embeddings = embeddings or key
    return tied


def precisions(state: Mapping[str, Tensor]) -> dict[str, int]:
    """Number of values per type, most frequent first: ``{"float32": 329979120, "int64": 626}``."""
    found: dict[str, int] = {}
    for value in state.values():
        name = type_name(value)
        found[name] = found.get(name, 0) + value.numel()
    return dict(sorted(found.items(), key=lambda item: -item[1]))


def type_name(value: Tensor) -> str:
    """Name of a tensor's type: ``float32``, ``int64``, …"""
    return str(value.dtype).removeprefix("torch.")


def non_finite(state: Mapping[str, Tensor]) -> dict[str, int]:
    """Number of values that are infinite or NaN, for every key with such values."""
    found = {}
    for key, value in state.items():
        if value.is_floating_point() or value.is_complex():
            bad = sum(chunk.numel() - int(torch.isfinite(chunk).sum()) for chunk in chunks(value) if not has_finite_sum(chunk))
            if bad:
                found[key] = bad
    return found


def has_finite_sum(value: Tensor) -> bool:
    """Whether a tensor has a finite sum, and so neither infinite values nor NaN: 30 times as fast as a look at every value."""
    summed = {torch.float64: torch.float64, torch.float32: torch.float32, torch.bfloat16: torch.float32, torch.float16: torch.float32}
    return value.dtype in summed and math.isfinite(float(value.sum(dtype=summed[value.dtype])))


def chunks(value: Tensor) -> Iterator[Tensor]:
    """Split a tensor into flat pieces of at most ``CHUNK`` values."""
    yield from value.detach().reshape(-1).split(CHUNK)


def same_values(a: Tensor, b: Tensor) -> bool:
    """Whether two tensors have the same type, shape and values; a NaN equals a NaN."""
    if a.dtype != b.dtype or a.shape != b.shape:
        return False
    return all(bool(((x == y) | ((x != x) & (y != y))).all()) for x, y in zip(chunks(a), chunks(b), strict=True))


# --- differences ----------------------------------------------------------------------------------------------------------------


@dataclass
class Difference:
    """Difference between values ``a`` and ``b``; differences of several tensors can be added.

    ``changed`` of ``values`` differ, by at most ``largest``; ``squares`` are the sums of (a - b)^2, a^2, b^2 and a b over the values
    that are finite in both.
    """

    values: int = 0
    changed: int = 0
    largest: float = 0.0
    squares: tuple[float, float, float, float] = (0.0, 0.0, 0.0, 0.0)

    def __add__(self, other: "Difference") -> "Difference":
        sums = tuple(x + y for x, y in zip(self.squares, other.squares, strict=True))
        return Difference(
            self.values + other.values,
            self.changed + other.changed,
            max(self.largest, other.largest),
            (sums[0], sums[1], sums[2], sums[3]),
        )

    @property
    def relative(self) -> float:
        """``|a - b| / |a|``; infinite when a is zero and b is not."""
        apart, a, _, _ = self.squares
        return math.sqrt(apart / a) if a else (math.inf if apart else 0.0)

    @property
    def cosine(self) -> float:
        """Cosine of the angle between a and b; NaN when one is zero and the other is not."""
        apart, a, b, product = self.squares
        if a and b:
            return max(-1.0, min(1.0, product / math.sqrt(a) / math.sqrt(b)))
        return math.nan if apart else 1.0


def difference(a: Tensor, b: Tensor) -> Difference:
    """Compare two tensors of one shape, in float64; a NaN equals a NaN."""
    total = Difference()
    for x, y in zip(chunks(a), chunks(b), strict=True):
        total += _chunk_difference(x, y)
    return total


def _chunk_difference(x: Tensor, y: Tensor) -> Difference:
    if x.dtype == y.dtype and torch.equal(x, y):
        square = _squared_norm(x)
        return Difference(x.numel(), 0, 0.0, (0.0, square, square, square))
    x, y = x.double(), y.double()
    same = (x == y) | (x.isnan() & y.isnan())
    finite = x.isfinite() & y.isfinite()
    strange = bool((~same & ~finite).any())  # infinite or NaN on one side
    x, y = torch.where(finite, x, 0.0), torch.where(finite, y, 0.0)
    apart = x - y
    return Difference(
        x.numel(),
        int(x.numel() - same.sum()),
        math.inf if strange else float(apart.abs().max()) if x.numel() else 0.0,
        (float(apart.square().sum()), float(x.square().sum()), float(y.square().sum()), float((x * y).sum())),
    )


def _squared_norm(x: Tensor) -> float:
    if not x.is_floating_point():
        x = x.double()
    norm = float(torch.linalg.vector_norm(x, dtype=torch.float64))
    return norm**2 if math.isfinite(norm) else float(torch.where(x.isfinite(), x, 0.0).double().square().sum())


def select(keys: Mapping[str, Any], pattern: str) -> list[str]:
    """Keys that match a shell pattern (``encoder.layers.*``), in order."""
    return [key for key in keys if fnmatch.fnmatchcase(key, pattern)]


# --- everything but weights ---------------------------------------------------------------------------------------------------


def flatten(value: Any, path: str = "", depth: int = 0) -> dict[str, Any]:
    """Flatten nested dicts, namespaces and lists of them to one dict: ``{"model.dropout": 0.1, "optimization.lr": [0.001]}``.

    Raises:
        UserError: the nesting is deeper than that of any trainer, as in a list that contains itself.
    """
    if depth > MAX_DEPTH:
        raise UserError(f"{path[:60]}…: nested more than {MAX_DEPTH} levels deep")
    value = unwrapped(value)
    items: Iterator[tuple[Any, Any]]
    if isinstance(value, Mapping) and value:
        items = iter(value.items())
    elif isinstance(value, list | tuple) and any(isinstance(v, Mapping | Namespace | Tensor | list) for v in value):
        items = iter(enumerate(value))
    else:
        return {path: value}
    found: dict[str, Any] = {}
    for name, item in items:
        found.update(flatten(item, f"{path}.{name}" if path else str(name), depth + 1))
    return found


class Absent:
    """Placeholder for a value that one side does not have."""

    def __repr__(self) -> str:
        return "(absent)"


ABSENT = Absent()


def changed_values(a: Any, b: Any) -> dict[str, tuple[Any, Any]]:
    """Compare two nested structures: path -> both values, where they differ."""
    flat_a, flat_b = flatten(a), flatten(b)
    both = {path: (flat_a.get(path, ABSENT), flat_b.get(path, ABSENT)) for path in [*flat_a, *(p for p in flat_b if p not in flat_a)]}
    return {path: (x, y) for path, (x, y) in both.items() if not _equal(x, y)}


def _equal(x: Any, y: Any) -> bool:
    if isinstance(x, Tensor) or isinstance(y, Tensor):
        return isinstance(x, Tensor) and isinstance(y, Tensor) and same_values(x, y)
    both_nan = isinstance(x, float) and isinstance(y, float) and math.isnan(x) and math.isnan(y)
    return both_nan or (type(x) is type(y) and bool(x == y))
