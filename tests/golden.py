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
                "modalities": "image",
                "audio_hop_size": 200,
                "code_image_size": 32,
                **changes,
            }
        )
    )


def build_golden_model(shared: pathlib.Path, dtype: torch.dtype = torch.float32, **changes: Any) -> UnivalModel:
    """The tiny reference model in eval mode, weights loaded through the published key names.

    Its CNNs have their real depth: it takes images only, unless ``modalities`` says otherwise.
    """
    golden = load(shared, "tiny_state")
    task = SimpleNamespace(source_dictionary=golden_dictionary(golden))
    model = UnivalModel.build_model(golden_config(**changes), task)
    state = dict(golden["state_dict"])
    for name in model.encoder.media:
        state.update(cnn_weights(shared, model, name, golden["recipe_salt"]))
    assert all(state[key].shape == tuple(shape) for key, shape in golden["cnn_keys"].items() if key in state)
    model.load_state_dict(state)
    return model.to(dtype).eval()


def cnn_weights(shared: pathlib.Path, model: UnivalModel, name: str, salt: str) -> dict[str, torch.Tensor]:
    """A CNN's weights under their published names, from the recipe; what follows from formulas stays."""
    own = model.encoder.media[name].backbone.state_dict()
    weights = {f"encoder.embed_{name}s.{key}": value.clone() for key, value in own.items() if key != "mel_filters"}
    recipe(shared).fill_(weights, salt)
    if "mel_filters" in own:
        weights["encoder.embed_audios.logmel_extractor.melW"] = own["mel_filters"]
    return weights


def golden_net(case: dict[str, Any], dtype: torch.dtype = torch.float32) -> dict[str, Any]:
    """A golden case's inputs as our ``net_input``."""
    net = case["net"]
    out = {"src_tokens": case["src_tokens"], "src_lengths": None, "prev_output_tokens": case["prev_output_tokens"]}
    rows = net["patch_masks"].nonzero().flatten() if "patch_masks" in net else None
    for name, key in (("video", "patch_videos"), ("audio", "patch_audios"), ("image", "patch_images")):
        if key in net:  # batches of videos and sounds carry blank images
            item = {"modality": name, "values": net[key].to(dtype)[rows], "rows": rows}
            if "patch_orders" in case:
                item["order"] = torch.tensor(case["patch_orders"])[rows]
            out["media"] = [item]
            break
    if "code_masks" in case:
        out["code_masks"] = case["code_masks"]
    return out
