"""Every key of the published base model has a place in ours, with the same shape."""

import json
from types import SimpleNamespace

import pytest
import torch
from fairseq.data import Dictionary
from omegaconf import OmegaConf

from tests import tiny
from unival.checkpoints.published import is_published, rename_published
from unival.errors import UserError
from unival.models.config import UnivalConfig
from unival.models.unival import UnivalModel

NOT_YET = ("encoder.embed_video", "encoder.video_proj", "encoder.embed_audio", "encoder.audio_proj")


def base_model():
    """unival_base without memory for its weights."""
    dictionary = Dictionary()
    while len(dictionary) < 59457:
        dictionary.add_symbol(f"s{len(dictionary)}")
    with torch.device("meta"):
        return UnivalModel.build_model(
            OmegaConf.structured(UnivalConfig()), SimpleNamespace(source_dictionary=dictionary)
        )


def test_all_published_keys_of_the_base_model_fit(shared):
    published = json.loads((shared / "reference" / "base_state_dict_shapes.json").read_text())
    state = {
        key: torch.empty(info["shape"], device="meta") for key, info in published.items() if not key.startswith(NOT_YET)
    }
    assert is_published(state)
    rename_published(state)
    ours = {key: tuple(value.shape) for key, value in base_model().state_dict().items()}
    assert {key: tuple(value.shape) for key, value in state.items()} == ours


def test_the_base_model_has_the_published_number_of_parameters(shared):
    counts = json.loads((shared / "reference" / "base_param_counts.json").read_text())["params"]
    classifier = 2048 * 1000 + 1000  # the published image CNN carries an unused one
    expected = sum(count for key, count in counts.items() if not key.startswith(NOT_YET)) - classifier
    assert sum(parameter.numel() for parameter in base_model().parameters()) == expected


def test_what_does_not_fit_is_named(tmp_path):
    vocab = tiny.vocabulary(tmp_path)
    model = tiny.model(vocab)
    state = model.state_dict()
    del state["encoder.pos_ln.bias"]
    state["encoder.extra"] = torch.zeros(1)
    state["decoder.pos_ln.weight"] = torch.zeros(7)
    with pytest.raises(UserError) as error:
        tiny.model(vocab).load_state_dict(state)
    message = str(error.value)
    assert "(3 keys)" in message and "\n" not in message
    assert "missing encoder.pos_ln.bias" in message and "unexpected encoder.extra" in message
    assert "decoder.pos_ln.weight is (7,), the model's is (32,)" in message
