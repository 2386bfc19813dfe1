"""OFA's checkpoints, in fairseq's and in Hugging Face's names."""

from dataclasses import asdict

import pytest
import torch

from tests import tiny
from unival.checkpoints.names import hf_ofa, ofa, published
from unival.checkpoints.shapes import options_from_weights
from unival.errors import UserError
from unival.models.config import UnivalConfig
from unival.models.published_buffers import published_buffers


@pytest.fixture
def state(tmp_path):
    """A tiny model with a three-stage CNN."""
    return tiny.model(tiny.vocabulary(tmp_path), image_backbone_stages=3).state_dict()


@pytest.fixture
def fairseq(state):
    return published.to_published(state, {}).state


def hugging_face(fairseq):
    """The keys as ``modeling_ofa.py`` has them."""
    renames = [
        ("encoder_attn_layer_norm", "cross_attn_layer_norm"),
        ("cross_attn_ln", "cross_attn_mid_layer_norm"),
        ("self_attn_ln", "self_attn_mid_layer_norm"),
        ("encoder_attn.", "cross_attn."),
        (".attn_ln", ".self_attn_mid_layer_norm"),
        ("ffn_layernorm", "ffn_layer_norm"),
    ]
    found = {}
    for key, value in fairseq.items():
        if ".layers." in key:
            for old, new in renames:
                key = key.replace(old, new)
        found[key] = value
    return found


def test_fairseq_names(state, fairseq):
    assert ofa.is_ofa(fairseq) and not ofa.is_ofa(state)
    found = ofa.from_ofa(fairseq).state
    assert found.keys() == state.keys() and all(torch.equal(found[key], state[key]) for key in state)
    options = options_from_weights(found)
    assert options["image_backbone_stages"] == 3 and options["image_backbone"] == "resnet10" and options["modalities"] == "image"


@pytest.mark.parametrize("prefix", ["", "model."])
def test_hugging_face_names(state, fairseq, prefix):
    theirs = {prefix + key: value for key, value in hugging_face(fairseq).items()}
    assert f"{prefix}decoder.layers.0.cross_attn.c_attn" in theirs
    assert f"{prefix}encoder.layers.1.self_attn_mid_layer_norm.bias" in theirs
    assert hf_ofa.is_hf_ofa(theirs) and not hf_ofa.is_hf_ofa(fairseq)
    conversion = hf_ofa.from_hf_ofa(theirs)
    assert conversion.state.keys() == state.keys()
    assert all(torch.equal(conversion.state[key], state[key]) for key in state)
    entries = {key: (kind, detail) for kind, key, detail in conversion.report.entries}
    assert sorted(entries) == sorted(theirs)
    assert entries[f"{prefix}decoder.layers.1.cross_attn_mid_layer_norm.bias"] == ("renamed", "decoder.layers.1.cross_attn_ln.bias")
    assert entries[f"{prefix}encoder.image_proj.bias"] == ("renamed", "encoder.media.image.proj.bias")


def test_other_checkpoints_are_refused(tmp_path, state):
    with pytest.raises(UserError, match="does not look like a checkpoint of OFA"):
        ofa.from_ofa(state)
    four_stages = published.to_published(tiny.model(tiny.vocabulary(tmp_path / "v")).state_dict(), {}).state
    with pytest.raises(UserError, match="is UnIVAL's, not OFA's"):
        ofa.from_ofa(four_stages)


def test_the_published_buffers_are_dropped(fairseq):
    buffers = published_buffers(asdict(UnivalConfig()))
    kept = {key: value for key, value in buffers.items() if "stft" not in key}
    report = ofa.from_ofa({**fairseq, **kept}).report
    assert set(kept) <= set(report.keys("dropped"))
