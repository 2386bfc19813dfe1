"""Builds the tiny reference model of the golden values and turns their batches into ours."""

import importlib.util
import pathlib
from types import SimpleNamespace
from typing import Any

import torch
from fairseq.data import Dictionary
from omegaconf import OmegaConf

from unival.models.config import UnivalConfig
from unival.models.unival import UnivalModel


def load(shared: pathlib.Path, name: str) -> Any:
    """A golden file, e.g. ``cases``."""
    return torch.load(shared / "reference" / "golden" / f"{name}.pt", weights_only=True)


def recipe(shared: pathlib.Path) -> Any:
    """The module that fills state dicts with the reference's deterministic values."""
    spec = importlib.util.spec_from_file_location("recipe", shared / "reference" / "recipe.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def golden_dictionary(state: dict[str, Any]) -> Dictionary:
    """The 157 symbols of the tiny model."""
    dictionary = Dictionary()
    for symbol in state["dictionary"][len(dictionary) :]:
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
                "image_backbone": "resnet101",
                "code_image_size": 32,
                **changes,
            }
        )
    )


def build_golden_model(shared: pathlib.Path, dtype: torch.dtype = torch.float32, **changes: Any) -> UnivalModel:
    """The tiny reference model in eval mode, weights loaded through the published key names."""
    golden = load(shared, "tiny_state")
    task = SimpleNamespace(source_dictionary=golden_dictionary(golden))
    model = UnivalModel.build_model(golden_config(**changes), task)
    ours = (
        {key: torch.zeros(shape) for key, shape in golden["cnn_keys"].items()}
        if isinstance(golden["cnn_keys"], dict)
        else None
    )
    state = dict(golden["state_dict"])
    state.update(cnn_weights(shared, model, golden))
    assert ours is None or set(ours)
    keep = ("embed_video", "video_proj", "embed_audio", "audio_proj")
    state = {key: value for key, value in state.items() if not any(part in key for part in keep)}
    model.load_state_dict(state)
    return model.to(dtype).eval()


def cnn_weights(shared: pathlib.Path, model: UnivalModel, golden: dict[str, Any]) -> dict[str, torch.Tensor]:
    """The image CNN's weights under their published names, from the recipe."""
    backbone = model.encoder.media["image"].backbone
    weights = {f"encoder.embed_images.{key}": value.clone() for key, value in backbone.state_dict().items()}
    return recipe(shared).fill_(weights, golden["recipe_salt"])


def golden_net(case: dict[str, Any], dtype: torch.dtype = torch.float32) -> dict[str, Any]:
    """A golden case's inputs as our ``net_input``."""
    net = case["net"]
    out = {"src_tokens": case["src_tokens"], "src_lengths": None, "prev_output_tokens": case["prev_output_tokens"]}
    if "patch_images" in net:
        rows = net["patch_masks"].nonzero().flatten()
        item = {"modality": "image", "values": net["patch_images"].to(dtype)[rows], "rows": rows}
        if "patch_orders" in case:
            item["order"] = torch.tensor(case["patch_orders"])[rows]
        out["media"] = [item]
    if "code_masks" in case:
        out["code_masks"] = case["code_masks"]
    return out
