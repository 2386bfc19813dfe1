"""Sizes of a model, read off its weights: what a state dict in our layout says about the configuration that it belongs to."""

import math
import re
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from unival.errors import UserError

# blocks per stage -> depth; basic blocks and bottlenecks apart (He et al. 2016, table 1)
BASIC = {(1, 1, 1, 1): 10, (2, 2, 2, 2): 18, (3, 4, 6, 3): 34}
BOTTLENECK = {(3, 4, 6, 3): 50, (3, 4, 23, 3): 101, (3, 8, 36, 3): 152}
BOTTLENECK_3D = {(1, 1, 1, 1): 14, **BOTTLENECK}
MEDIA = "encoder.media."
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
    """Fields of ``UnivalConfig`` that the shapes of a whole model's weights decide.

    Raises:
        UserError: parts that every model has are missing, or a CNN is none that is known here.
    """
    absent = next((key for key in ESSENTIAL if key not in state), None)
    if absent is not None:
        raise UserError(f"the checkpoint has no {absent}: it is no whole UnIVAL or OFA model")
    shape = {key: tuple(value.shape) for key, value in state.items()}
    options: dict[str, Any] = {
        "encoder_embed_dim": shape["encoder.embed_tokens.weight"][1],
        "max_source_positions": shape["encoder.embed_positions.weight"][0] - 2,
        "max_target_positions": shape["decoder.embed_positions.weight"][0] - 2,
        "token_bucket_size": (shape["encoder.token_rel_pos_table_list.0.weight"][0] + 1) // 2,
        "image_bucket_size": math.isqrt(shape["decoder.embed_image_positions.weight"][0] - 1),
        "add_mm_type_embedding": shape["encoder.type_embedding.weight"][0] == 4,
        "qk_norm": "encoder.layers.0.self_attn.q_norm.weight" in shape,
        "scale_resids": "encoder.layers.0.w_resid" in shape,
        "modality_layernorm": any(re.fullmatch(r"encoder\.media\.\w+\.norm\.weight", key) for key in shape),
    }
    for side in ("encoder", "decoder"):
        options[f"{side}_layers"] = count_layers(state, f"{side}.layers.")
        options[f"{side}_attention_heads"] = shape[f"{side}.layers.0.self_attn.c_attn"][0]
        options[f"{side}_ffn_embed_dim"] = shape[f"{side}.layers.0.fc1.weight"][0]
    return {**options, **_media_options(shape)}


def count_layers(state: Mapping[str, Any], prefix: str) -> int:
    """How many layers ``prefix0…``, ``prefix1…`` there are."""
    found = {int(match[1]) for key in state if (match := re.match(re.escape(prefix) + r"(\d+)\.", key))}
    return max(found, default=-1) + 1


def _media_options(shape: Mapping[str, tuple[int, ...]]) -> dict[str, Any]:
    media = [name for name in ("image", "video", "audio") if any(key.startswith(f"{MEDIA}{name}.") for key in shape)]
    options: dict[str, Any] = {"modalities": ",".join(media)}
    if "image" in media:
        stages, name = _resnet(shape, f"{MEDIA}image.backbone.")
        options.update(image_backbone=name, image_backbone_stages=stages)
    if "video" in media:
        blocks = _blocks(shape, f"{MEDIA}video.backbone.")
        if blocks not in BOTTLENECK_3D:
            raise UserError(f"the video CNN has {blocks} blocks; there are {', '.join(map(str, BOTTLENECK_3D))}")
        options["video_backbone"] = f"resnext3d{BOTTLENECK_3D[blocks]}"
    if "audio" in media:
        prefix = f"{MEDIA}audio.backbone."
        deep = f"{prefix}conv_block6.conv1.weight" in shape
        wide = f"{prefix}conv_block1.conv2.weight" in shape
        options["audio_backbone"] = "cnn14" if deep else "cnn10" if wide else "cnn6"
        if f"{prefix}mel_filters" in shape:
            frequencies, bins = shape[f"{prefix}mel_filters"]
            options.update(audio_window_size=2 * (frequencies - 1), audio_mel_bins=bins)
    return options


def _blocks(shape: Mapping[str, Any], prefix: str) -> tuple[int, ...]:
    counts = (count_layers(shape, f"{prefix}layer{stage}.") for stage in range(1, 5))
    return tuple(count for count in counts if count)


def _resnet(shape: Mapping[str, Any], prefix: str) -> tuple[int, str]:
    blocks = _blocks(shape, prefix)
    table = BOTTLENECK if f"{prefix}layer1.0.conv3.weight" in shape else BASIC
    for known, depth in table.items():
        if len(blocks) in (3, 4) and known[: len(blocks)] == blocks:
            return len(blocks), f"resnet{depth}"
    raise UserError(f"the image CNN has {blocks} blocks; there are {', '.join(map(str, table))}, whole or without the last")
