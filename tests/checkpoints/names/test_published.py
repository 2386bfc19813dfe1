"""Every key of the published base model has a place in ours, with the same shape, and the way there and back changes no bit."""

import hashlib
from dataclasses import asdict
from types import SimpleNamespace

import pytest
import torch
from fairseq.data import Dictionary
from omegaconf import OmegaConf

from tests import golden, tiny
from unival.checkpoints.names import published
from unival.checkpoints.shapes import options_from_weights
from unival.errors import UserError
from unival.models.config import UnivalConfig
from unival.models.published_buffers import published_buffers, published_kernels
from unival.models.unival import UnivalModel

ALL = "image,video,audio"


def base_model():
    """unival_base with all media, without memory for its weights."""
    dictionary = Dictionary()
    while len(dictionary) < 59457:
        dictionary.add_symbol(f"s{len(dictionary)}")
    with torch.device("meta"):
        return UnivalModel.build_model(
            OmegaConf.structured(UnivalConfig(modalities=ALL)), SimpleNamespace(source_dictionary=dictionary)
        )


def base_state():
    return {key: torch.empty(shape, device="meta") for key, shape in golden.numbers("model")["base"].items()}


def shapes_of(state):
    return {key: tuple(value.shape) for key, value in state.items()}


@pytest.fixture
def vocab(tmp_path):
    return tiny.vocabulary(tmp_path / "vocab")


def test_all_published_keys_of_the_base_model_fit():
    state = base_state()
    assert published.is_published(state) and len(state) == 1739
    conversion = published.from_published(state)
    assert shapes_of(conversion.state) == shapes_of(base_model().state_dict())
    explained = {kind: len(conversion.report.keys(kind)) for kind in ("kept", "renamed", "dropped")}
    assert explained == {"kept": 392, "renamed": 1114, "dropped": 233}
    published.rename_published(state)
    assert shapes_of(state) == shapes_of(conversion.state)


def test_the_base_model_has_the_published_number_of_parameters():
    counts = golden.numbers("model")["base_parameters"]
    unused = 2048 * 1000 + 1000 + 2 * 513 * 1024 + 513 * 64  # an image classifier, Fourier kernels, mel filters
    assert sum(parameter.numel() for parameter in base_model().parameters()) == sum(counts.values()) - unused


def test_sizes_are_read_off_the_weights():
    cfg = asdict(UnivalConfig(modalities=ALL))
    options = options_from_weights(published.from_published(base_state()).state)
    assert {key: value for key, value in options.items() if cfg[key] != value} == {}
    assert {"encoder_layers", "image_backbone", "video_backbone", "audio_backbone", "token_bucket_size"} <= options.keys()


def test_ours_to_published_and_back(vocab):
    model = tiny.model(vocab, modalities=ALL)
    state = model.state_dict()
    there = published.to_published(state, published_buffers(asdict(UnivalConfig())))
    assert published.is_published(there.state) and not any(".media." in key for key in there.state)
    back = published.from_published(there.state, published_kernels(1024))
    assert back.state.keys() == state.keys() and back.report.notes == []
    assert all(torch.equal(back.state[key], state[key]) for key in state)


def test_published_to_ours_and_back():
    """All keys come back as they were, but for the unused classifier and counters."""
    state, reference = golden.golden_state(), golden.numbers("model")
    ours = published.from_published(state).state
    back = published.to_published(ours, published_buffers({**golden.golden_config()})).state
    assert {key: list(back[key].shape) for key in reference["tiny"]} == reference["tiny"]
    assert all(torch.equal(back[key], state[key]) for key in state)
    for key, (shape, dtype, digest) in reference["buffers"].items():
        assert list(back[key].shape) == shape and str(back[key].dtype) == dtype
        assert hashlib.sha256(back[key].contiguous().numpy().tobytes()).hexdigest() == digest


def test_published_shapes_come_back():
    """Names and shapes of the whole base model, with position buckets, counters, kernels and classifier."""
    buffers = published_buffers(asdict(UnivalConfig()))
    state = published.to_published(base_model().state_dict(), buffers).state
    assert shapes_of(state) == shapes_of(base_state())


@pytest.mark.parametrize("left", [0, 1, 2])
def test_one_copy_of_the_token_embeddings_is_enough(vocab, left):
    state = published.to_published(tiny.model(vocab).state_dict(), {}).state
    names = (published.TOKENS, *published.TIED)
    for name in names[:left] + names[left + 1 :]:
        del state[name]
    ours = published.from_published(state).state
    assert ours.keys() == tiny.model(vocab).state_dict().keys()
    published.rename_published(state)
    assert state.keys() == ours.keys()


def test_untied_token_embeddings_are_refused(vocab):
    state = published.to_published(tiny.model(vocab).state_dict(), {}).state
    state["decoder.embed_tokens.weight"] = state["decoder.embed_tokens.weight"] + 1
    with pytest.raises(UserError, match="differ; in this model they are one"):
        published.from_published(state)


def test_kernels_that_follow_no_formula_are_reported(vocab):
    state = published.to_published(tiny.model(vocab, modalities=ALL).state_dict(), published_kernels(1024)).state
    kernels = published_kernels(1024)
    half = {key: value.half() if value.is_floating_point() else value for key, value in state.items()}
    assert published.from_published(half, kernels).report.notes == []
    state[f"{published.STFT}conv_imag.weight"] = torch.zeros(513, 1, 1024)
    (note,) = published.from_published(state, kernels).report.notes
    assert "conv_imag.weight" in note and "conv_real" not in note


def test_media_can_be_left_out(vocab):
    state = published.to_published(tiny.model(vocab, modalities=ALL).state_dict(), {}).state
    conversion = published.without_media(published.from_published(state), ("video", "audio"))
    assert conversion.state.keys() == tiny.model(vocab).state_dict().keys()
    assert "encoder.video_proj.weight" in conversion.report.keys("dropped")
    with pytest.raises(UserError, match="--without video: the checkpoint has image"):
        published.without_media(conversion, ("video",))


def test_what_does_not_fit_is_named(vocab):
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
