"""Checkpoint keys of OFA as its authors published it for Hugging Face's library (``OFA-Sys/ofa-*``, ``modeling_ofa.py``).

Except in the layers they are those of the fairseq checkpoints, to which they are renamed first.
"""

import re
from collections.abc import Mapping

from torch import Tensor

from unival.checkpoints.conversion import Conversion, KeyReport
from unival.checkpoints.names.published import from_published, our_name

# (pattern in Hugging Face's keys, replacement in fairseq's); the first match counts
LAYERS: tuple[tuple[str, str], ...] = (
    (r"(encoder\.layers\.\d+\.)self_attn_mid_layer_norm\.", r"\1attn_ln."),
    (r"(decoder\.layers\.\d+\.)self_attn_mid_layer_norm\.", r"\1self_attn_ln."),
    (r"(decoder\.layers\.\d+\.)cross_attn_mid_layer_norm\.", r"\1cross_attn_ln."),
    (r"(decoder\.layers\.\d+\.)cross_attn_layer_norm\.", r"\1encoder_attn_layer_norm."),
    (r"(decoder\.layers\.\d+\.)cross_attn\.", r"\1encoder_attn."),
    (r"((?:encoder|decoder)\.layers\.\d+\.)ffn_layer_norm\.", r"\1ffn_layernorm."),
)


def is_hf_ofa(state: Mapping[str, Tensor]) -> bool:
    """Whether a state dict has these keys."""
    return any(key.removeprefix("model.").startswith("decoder.layers.0.cross_attn_mid_layer_norm.") for key in state)


def fairseq_name(key: str) -> str:
    """The key in OFA's fairseq checkpoints for a Hugging Face key."""
    key = key.removeprefix("model.")
    for pattern, replacement in LAYERS:
        new, count = re.subn(rf"^{pattern}", replacement, key)
        if count:
            return new
    return key


def from_hf_ofa(state: Mapping[str, Tensor]) -> Conversion:
    """Convert Hugging Face's OFA weights to our keys; the tensors are not copied."""
    names = {key: fairseq_name(key) for key in state}
    conversion = from_published({names[key]: value for key, value in state.items()})
    back = {new: old for old, new in names.items()}
    report = KeyReport(notes=list(conversion.report.notes))
    for kind, key, detail in conversion.report.entries:
        source = back.get(key, key)
        if kind == "kept" and source != key:
            report.add("renamed", source, key)
        else:
            report.add(kind, source, our_name(key) or detail if kind == "renamed" else detail)
    return Conversion(conversion.state, report)
