"""Infer the sizes of a model from its weights: the fields of the configuration that a state dict in our layout determines."""

import math
import re
from collections.abc import Iterable, Mapping
from typing import Any

from torch import Tensor

from unival.checkpoints.backbones import MEDIA_PREFIX, looks_like, networks
from unival.errors import UserError
from unival.modalities import with_media
from unival.modalities.base import Network

ESSENTIAL = (
    "encoder.embed_tokens.weight",
    "encoder.embed_positions.weight",
    "decoder.embed_positions.weight",
    "encoder.layers.0.self_attn.c_attn",
    "decoder.layers.0.self_attn.c_attn",
    "encoder.layers.0.fc1.weight",
    "decoder.layers.0.fc1.weight",
    "encoder.token_rel_pos_table_list.0.weight",
    "decoder.embed_image_positions.weight",
    "encoder.type_embedding.weight",
)


def options_from_weights(state: Mapping[str, Tensor]) -> dict[str, Any]:
    """Infer the fields of ``UnivalConfig`` that the shapes of a whole model's weights determine.

    Raises:
        UserError: a part that every model has is missing, or a CNN is unknown.
    """
    absent = next((key for key in ESSENTIAL if key not in state), None)
    if absent is not None:
        raise UserError(f"the checkpoint has no {absent}: it is not a whole UnIVAL or OFA model")
    shape = {key: tuple(value.shape) for key, value in state.items()}
    options: dict[str, Any] = {
        "encoder_embed_dim": shape["encoder.embed_tokens.weight"][1],
        "max_source_positions": shape["encoder.embed_positions.weight"][0] - 2,
        "max_target_positions": shape["decoder.embed_positions.weight"][0] - 2,
        "token_bucket_size": (shape["encoder.token_rel_pos_table_list.0.weight"][0] + 1) // 2,
        "image_bucket_size": math.isqrt(shape["decoder.embed_image_positions.weight"][0] - 1),
        "add_mm_type_embedding": shape["encoder.type_embedding.weight"][0] > 2,
        "qk_norm": "encoder.layers.0.self_attn.q_norm.weight" in shape,
        "scale_resids": "encoder.layers.0.w_resid" in shape,
        "attention_input_norm": "encoder.layers.0.self_attn.input_norm.weight" in shape,
    }
    for side in ("encoder", "decoder"):
        options[f"{side}_layers"] = count_layers(state, f"{side}.layers.")
        options[f"{side}_attention_heads"] = shape[f"{side}.layers.0.self_attn.c_attn"][0]
        options[f"{side}_ffn_embed_dim"] = shape[f"{side}.layers.0.fc1.weight"][0]
    return {**options, **_media_options(shape)}


def norm_options(media: Iterable[str], normed: Iterable[str]) -> dict[str, Any]:
    """Fields of ``UnivalConfig`` for a model with ``media``, of which those in ``normed`` have a layer norm of their own."""
    media = list(media)
    having = [name for name in media if name in set(normed)]
    return {
        "modality_layernorm": bool(having),
        "modality_layernorm_media": None if having in ([], media) else ",".join(having),
    }


def count_layers(state: Mapping[str, Any], prefix: str) -> int:
    """Number of layers ``prefix0…``, ``prefix1…`` of a state dict."""
    found = {int(match[1]) for key in state if (match := re.match(re.escape(prefix) + r"(\d+)\.", key))}
    return max(found, default=-1) + 1


def media_of_weights(keys: Iterable[str]) -> set[str]:
    """The media that keys in our layout are parts of."""
    return {key.split(".")[2] for key in keys if key.startswith(MEDIA_PREFIX)}


def media_in(keys: Iterable[str]) -> tuple[str, ...]:
    """The media that keys in our layout have a backbone for; a norm alone, which would not be used, is not enough."""
    found = media_of_weights(key for key in keys if not re.fullmatch(r".*\.norm\.(weight|bias)", key))
    return tuple(name for name in with_media() if name in found)


def _media_options(shape: Mapping[str, tuple[int, ...]]) -> dict[str, Any]:
    media = media_in(shape)
    normed = [name for name in media if f"{MEDIA_PREFIX}{name}.norm.weight" in shape]
    options: dict[str, Any] = {"modalities": ",".join(media), **norm_options(media, normed)}
    for name, network in networks().items():
        if name not in media:
            continue
        prefix = f"{MEDIA_PREFIX}{name}.backbone."
        inner = {key.removeprefix(prefix): value for key, value in shape.items() if key.startswith(prefix)}
        options |= {network.option: _backbone(name, network, inner), **network.options_of(inner)}
    return options


def _blocks(shape: Mapping[str, Any]) -> tuple[int, ...]:
    counts = (count_layers(shape, f"layer{stage}.") for stage in range(1, 5))
    return tuple(count for count in counts if count)


def _backbone(kind: str, network: Network, shape: Mapping[str, tuple[int, ...]]) -> str:
    """Recognise a CNN by its keys and shapes: the value of the option that chooses it.

    Raises:
        UserError: the network is unknown.
    """
    name = looks_like(shape)
    blocks = _blocks(shape)
    whole = not network.stages or len(blocks) in network.stages
    if name in network.choices and whole:
        assert name is not None
        return name
    about = [f"looks like a {name}"] if name else []
    about += [f"has {blocks} blocks"] if network.stages else []
    raise UserError(f"the {kind} CNN {' and '.join(about) or 'has unknown keys'}; there are {', '.join(network.choices)}")
