"""Values measured on the original implementation, the tiny model that they belong to, and its batches as ours.

Everything is in this folder (see ``extract.py`` for how it was made) but weights, images, videos and sounds, which follow from a
formula (``recipe.py``). Float32 results are compared with the float64 ones: the original's own differ by at most 1e-5.
"""

import argparse
import copy
import functools
import json
from types import SimpleNamespace
from typing import Any

import torch
from fairseq.data import Dictionary
from omegaconf import OmegaConf
from safetensors import safe_open
from torch import Tensor

from tests.golden import recipe
from tests.golden.extract import CASES, CHANNELS, FOLDER
from unival.models.config import UnivalConfig
from unival.models.fitting import fit_to_checkpoint
from unival.models.unival import UnivalModel

__all__ = ["CASES", "CHANNELS", "recipe"]


@functools.lru_cache
def numbers(name: str) -> dict[str, Any]:
    """A JSON file of this folder, e.g. ``beams``."""
    return json.loads((FOLDER / f"{name}.json").read_text(encoding="utf-8"))


@functools.lru_cache
def tensors(name: str) -> dict[str, Tensor]:
    """A file of tensors of this folder, e.g. ``cases/image``."""
    with safe_open(FOLDER / f"{name}.safetensors", framework="pt") as file:
        return {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118  no dictionary


def case(name: str) -> dict[str, Any]:
    """Inputs and float64 results of a case: tensors by name, its media (``medium``, ``values``) where it has some."""
    with safe_open(FOLDER / "cases" / f"{name}.safetensors", framework="pt") as file:
        notes = file.metadata()
    found: dict[str, Any] = dict(tensors(f"cases/{name}"))
    if "medium" in notes:
        found |= {"medium": notes["medium"], "values": recipe.MEDIA[notes["medium"]](*json.loads(notes["shape"]))}
    if "orig_patch_image_size" in notes:
        found["orig_patch_image_size"] = int(notes["orig_patch_image_size"])
    return found


def published_cfg() -> dict[str, Any]:
    """The configuration in the published base checkpoint; its model's options are a Namespace."""
    cfg = {key: copy.deepcopy(value) for key, value in numbers("published_cfg").items() if key != "provenance"}  # the caller's own
    return {**cfg, "model": argparse.Namespace(**cfg["model"]["__Namespace__"])}


def loss_case(name: str) -> dict[str, Any]:
    """Loss, sample size, gradient norms by published key, some gradients in full, and statistics afterwards."""
    every = numbers("losses")
    norms = zip(every["parameters"], every["cases"][name]["grad_norms"], strict=True)
    own = {key.removeprefix(f"{name}/"): value for key, value in tensors("losses").items() if key.startswith(f"{name}/")}
    return {
        **every["cases"][name],
        "grad_norms": {key: norm for key, norm in norms if norm is not None},
        "grads": {key: value for key, value in own.items() if not key.startswith("after/")},
        "running_after": {key.removeprefix("after/"): value for key, value in own.items() if key.startswith("after/")},
    }


# The model ------------------------------------------------------------------------------------------------------------


def golden_dictionary() -> Dictionary:
    """The 157 symbols of the tiny model."""
    dictionary = Dictionary()
    for symbol in numbers("model")["dictionary"][len(dictionary) :]:
        dictionary.add_symbol(symbol)
    return dictionary


def golden_config(**changes: Any) -> Any:
    """Configuration of the tiny model."""
    return OmegaConf.structured(
        UnivalConfig(
            **{
                "encoder_embed_dim": 64,
                "encoder_ffn_embed_dim": 128,
                "encoder_layers": 2,
                "encoder_attention_heads": 4,
                "decoder_ffn_embed_dim": 128,
                "decoder_layers": 2,
                "decoder_attention_heads": 4,
                "dropout": 0.0,
                "encoder_drop_path_rate": 0.0,
                "decoder_drop_path_rate": 0.0,
                "modalities": "image",
                "audio_hop_size": 200,
                "code_image_size": 32,
                **changes,
            }
        )
    )


def golden_state(*media: str) -> dict[str, Tensor]:
    """Published state dict of the tiny model with the CNNs of these media; what the model makes by formula is left out."""
    model = numbers("model")
    shapes = {key: shape for key, shape in model["tiny"].items() if recipe.is_drawn(key)}
    shapes |= {
        key: model["base"][key]
        for key in model["cnn"]
        if recipe.is_drawn(key) and any(f".embed_{name}s." in key for name in media)
    }
    state = {key: recipe.weight(key, shape) for key, shape in shapes.items()}
    return {**state, **dict.fromkeys(recipe.TIED, state["encoder.embed_tokens.weight"])}


def build_golden_model(dtype: torch.dtype = torch.float32, **changes: Any) -> UnivalModel:
    """The tiny reference model in eval mode, weights loaded through the published key names.

    Its CNNs have their real depth: it takes images only, unless ``modalities`` says otherwise.
    """
    model = UnivalModel.build_model(golden_config(**changes), SimpleNamespace(source_dictionary=golden_dictionary()))
    state = golden_state(*model.encoder.media)
    if "audio" in model.encoder.media:
        state["encoder.embed_audios.logmel_extractor.melW"] = model.encoder.media["audio"].backbone.mel_filters
    model.load_state_dict(fit_to_checkpoint(model, state))  # it names all media
    return model.to(dtype).eval()


@functools.lru_cache(maxsize=3)  # they are large
def golden_model(dtype: torch.dtype = torch.float32, modalities: str = "image") -> UnivalModel:
    """:func:`build_golden_model`, kept for the next test: do not change it."""
    return build_golden_model(dtype, modalities=modalities)


def golden_groups(case: dict[str, Any], dtype: torch.dtype = torch.float32) -> list[dict[str, Any]]:
    """A golden case's inputs as our groups: the rows with the medium, then those without."""
    has_medium = case["patch_masks"] if "medium" in case else torch.zeros(len(case["src_tokens"]), dtype=torch.bool)
    groups = []
    for rows in (has_medium.nonzero().flatten(), (~has_medium).nonzero().flatten()):
        group = {"src_tokens": case["src_tokens"][rows], "src_lengths": None, "prev_output_tokens": case["prev_output_tokens"][rows]}
        if "code_masks" in case:
            group["code_masks"] = case["code_masks"][rows]
        if has_medium[rows].any():
            item = {"modality": case["medium"], "values": case["values"].to(dtype)[rows], "rows": torch.arange(len(rows))}
            group["media"] = [{**item, "order": case["patch_orders"][rows]} if "patch_orders" in case else item]
        if len(rows):
            groups.append(group)
    return groups


def golden_group(case: dict[str, Any], dtype: torch.dtype = torch.float32) -> dict[str, Any]:
    """The inputs of a golden case whose rows all have the same kinds of media."""
    (group,) = golden_groups(case, dtype)
    return group
