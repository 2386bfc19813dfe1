"""Recognise the model of a checkpoint by its keys and shapes; its options are only used for the name."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from unival.checkpoints.backbones import looks_like, parts, recognise, shapes_of
from unival.checkpoints.names.bart import is_bart
from unival.checkpoints.names.hf_bart import is_hf_bart
from unival.checkpoints.names.hf_ofa import is_hf_ofa
from unival.checkpoints.names.ofa import is_ofa
from unival.checkpoints.names.published import is_published
from unival.checkpoints.namespace import unwrapped
from unival.errors import UserError, counted

ARCHITECTURES: dict[str, str] = {
    "unival": "unival",
    "published": "published UnIVAL",
    "ofa": "OFA (fairseq)",
    "hf-ofa": "OFA (Hugging Face)",
    "bart": "BART (fairseq)",
    "hf-bart": "BART (Hugging Face)",
    "backbone": "a backbone's weights",
    "other": "not recognised",
}
CONVERTIBLE = ("published", "ofa", "hf-ofa", "bart", "hf-bart")


@dataclass(frozen=True)
class Architecture:
    """The architecture of a checkpoint.

    Attributes:
        kind: key of :data:`ARCHITECTURES`.
        name: name of the architecture, as the checkpoint's options give it.
        sizes: ``width``, ``symbols`` (vocabulary size), ``encoder_layers``, ``encoder_ffn``, ``encoder_heads``, ``decoder_…``, as far as
            shapes tell.
        media: modality -> CNN.
    """

    kind: str
    name: str | None = None
    sizes: dict[str, int] = field(default_factory=dict)
    media: dict[str, str] = field(default_factory=dict)


def identify(container: Mapping[str, Any], state: Mapping[str, Tensor]) -> Architecture:
    """Recognise the model of a container with these weights."""
    bare = _unwrapped(state)
    name = option(container, "model", "_name", "arch")
    kind = _kind(bare, name or "")
    if kind == "other":
        network = recognise(state)
        return Architecture("other") if network is None else Architecture("backbone", network)
    media = {name: _cnn(bare, prefixes) for name, prefixes in parts().items() if any(key.startswith(prefixes) for key in bare)}
    return Architecture(kind, name, _sizes(bare), media)


def check_ours(container: Mapping[str, Any], state: Mapping[str, Tensor], where: str) -> None:
    """Check that a checkpoint is one of this package, with its keys.

    Args:
        container: the checkpoint.
        state: its weights.
        where: what a message begins with.

    Raises:
        UserError: it is another one; if it can be converted, the message says so.
    """
    kind = identify(container, state).kind
    if kind in CONVERTIBLE:
        raise UserError(f"{where}: is {ARCHITECTURES[kind]}; `unival convert` makes a checkpoint of ours of it")
    if kind != "unival":
        raise UserError(f"{where}: expected a checkpoint of `unival train` (fairseq-train --user-dir unival)")


def options(container: Mapping[str, Any], section: str) -> dict[str, Any]:
    """A section of a checkpoint's options (``model``, ``task``, …) as a dict; ``args`` of old checkpoints for every section."""
    cfg = container.get("cfg") or {}
    found = cfg.get(section) if isinstance(cfg, Mapping) else None
    if found is None:
        found = container.get("args")
    found = unwrapped(found)
    return {str(key): value for key, value in found.items()} if isinstance(found, Mapping) else {}


def option(container: Mapping[str, Any], section: str, *names: str) -> str | None:
    """The first of the options ``names`` that a section has, as text; None if it has none of them."""
    given = options(container, section)
    return next((str(given[name]) for name in names if given.get(name) is not None), None)


def _unwrapped(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {re.sub(r"^(module\.|model\.)+", "", key): value for key, value in state.items()}


def _kind(state: Mapping[str, Tensor], name: str) -> str:
    if "encoder.layers.0.self_attn.k_proj.weight" not in state or "decoder.layers.0.self_attn.k_proj.weight" not in state:
        return "other"
    if is_hf_ofa(state):
        return "hf-ofa"
    if any(key.startswith("encoder.media.") for key in state):
        return "unival"
    if is_published(state) and "encoder.pos_q_linear.weight" in state:
        return "ofa" if is_ofa(state) and not name.startswith("unival") else "published"
    if "encoder.pos_q_linear.weight" in state:
        return "unival"  # of text only
    return "hf-bart" if is_hf_bart(state) else "bart" if is_bart(state) else "other"


def _sizes(state: Mapping[str, Tensor]) -> dict[str, int]:
    sizes: dict[str, int] = {}
    for key in ("encoder.embed_tokens.weight", "shared.weight"):
        if key in state and state[key].dim() == 2:
            sizes["symbols"], sizes["width"] = state[key].shape
            break
    for side in ("encoder", "decoder"):
        layers = {match[1] for key in state if (match := re.match(rf"{side}\.layers\.(\d+)\.", key))}
        sizes[f"{side}_layers"] = len(layers)
        for name, key in (("ffn", "fc1.weight"), ("heads", "self_attn.c_attn")):
            value = state.get(f"{side}.layers.0.{key}")
            if value is not None and value.dim():
                sizes[f"{side}_{name}"] = value.shape[0]
    return sizes


def _cnn(state: Mapping[str, Tensor], prefixes: tuple[str, ...]) -> str:
    prefix = next(start for start in prefixes if any(key.startswith(start) for key in state))
    inner = shapes_of({key[len(prefix) :]: value for key, value in state.items() if key.startswith(prefix)})
    stages = {match[1] for key in inner if (match := re.match(r"layer(\d+)\.", key))}
    name = looks_like(inner) or "of unknown layout"
    return f"{name}, {counted(len(stages), 'stage')}" if stages and len(stages) != 4 else name
