"""``load_state_dict`` is torch's contract; a checkpoint that takes other media than the model is settled by a step with a name."""

import copy
import pickle
from types import SimpleNamespace

import pytest
import torch
from fairseq.dataclass.configs import EMAConfig
from fairseq.models.ema.ema import EMA

from tests import tiny
from unival.checkpoints.names import published
from unival.errors import UserError
from unival.models.fitting import fit_to_checkpoint, share_weights
from unival.models.uninitialised import Uninitialised
from unival.models.unival import UnivalModel


@pytest.fixture(scope="module")
def vocab(tmp_path_factory):
    return tiny.vocabulary(tmp_path_factory.mktemp("vocab"))


@pytest.fixture
def model(vocab):
    return tiny.model(vocab, modalities="image,audio")


@pytest.fixture(scope="module")
def other(vocab):
    """Other values of the same model."""
    return tiny.model(vocab, modalities="image,audio", seed=1).state_dict()


def modules(model):
    return {name: id(module) for name, module in model.named_modules()}


def equal(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[key], b[key]) for key in a)


def test_values_are_taken_and_nothing_else_changes(model, other):
    there, parameters = modules(model), {name: id(p) for name, p in model.named_parameters()}
    theirs = published.to_published(other, {}).state
    for state in (other, theirs):
        given = dict(state)
        for way in (lambda m: m, copy.deepcopy, lambda m: pickle.loads(pickle.dumps(m))):
            fresh = way(model)
            assert fresh.load_state_dict(given) == ([], [])
            assert equal(fresh.state_dict(), other) and given.keys() == state.keys()
            assert all(given[key] is state[key] for key in state)  # the caller's dict is not touched
    assert modules(model) == there and {name: id(p) for name, p in model.named_parameters()} == parameters
    assert model.encoder.embed_tokens.weight is model.decoder.embed_tokens.weight


@pytest.mark.parametrize("keeps", [False, True])
def test_what_does_not_fit_is_an_error_and_changes_nothing(vocab, model, other, keeps):
    """Also for a model that was built to use a checkpoint, and for media that the checkpoint lacks or has besides."""
    model.keeps_to_checkpoint = keeps
    there, before = modules(model), copy.deepcopy(model.state_dict())
    lacking = {key: value for key, value in other.items() if "media.audio" not in key}
    wider = tiny.model(vocab, modalities="image,audio,video").state_dict()
    for state, words in (
        (lacking, "missing encoder.media.audio."),
        (wider, "unexpected encoder.media.video."),
        ({**other, "encoder.pos_ln.bias": torch.zeros(7)}, r"encoder.pos_ln.bias is \(7,\), the model's is \(32,\)"),
    ):
        with pytest.raises(UserError, match=words) as error:
            model.load_state_dict(state)
        assert "\n" not in str(error.value)
    assert modules(model) == there and equal(model.state_dict(), before)


def test_weights_are_shared_where_they_are_the_same(model, other):
    """Tensors of another type, value or alignment stay the model's own; published names are known, tied weights stay tied."""
    model.load_state_dict(other)
    state = {key: value.clone() for key, value in published.to_published(other, {}).state.items()}
    whole, changed, shifted = (f"encoder.layers.0.fc{i}.{name}" for i, name in ((1, "weight"), (2, "bias"), (2, "weight")))
    state[whole] = state[whole].double()
    state[changed][0] += 1
    size = state[shifted].numel()
    state[shifted] = torch.empty(size + 1)[1:].view_as(state[shifted]).copy_(state[shifted])
    parameters = {name: id(value) for name, value in model.named_parameters()}
    share_weights(model, state)
    assert {name: id(value) for name, value in model.named_parameters()} == parameters and equal(model.state_dict(), other)
    places = {value.data_ptr() for value in state.values()}
    apart = {name for name, value in model.named_parameters() if value.data_ptr() not in places}
    assert apart == {whole, changed, shifted} and model.decoder.embed_tokens is model.encoder.embed_tokens


def test_a_model_without_initial_values_has_all_others(vocab, model, other):
    """What is no weight, such as buckets of positions, is there; random numbers are neither drawn nor kept."""
    random = torch.get_rng_state()
    with Uninitialised():
        bare = UnivalModel.build_model(model.cfg, SimpleNamespace(source_dictionary=vocab.dictionary))
    assert torch.equal(torch.get_rng_state(), random)
    bare.load_state_dict(other, assign=True)
    assert equal(bare.state_dict(), other) and modules(bare).keys() == modules(model).keys()
    buffers = dict(bare.named_buffers())
    assert all(torch.equal(value, buffers[name]) for name, value in model.named_buffers() if name not in other)
    assert len(set(buffers) - set(other)) > 0


def test_not_strict_is_as_in_torch(model, other):
    state = {key: value for key, value in other.items() if key != "encoder.pos_ln.bias"}
    found = model.load_state_dict({**state, "encoder.extra": torch.zeros(1)}, strict=False)
    assert (found.missing_keys, found.unexpected_keys) == (["encoder.pos_ln.bias"], ["encoder.extra"])
    assert equal({key: model.state_dict()[key] for key in state}, state)
    with pytest.raises(UserError, match="encoder.pos_ln.bias is"):
        model.load_state_dict({"encoder.pos_ln.bias": torch.zeros(7)}, strict=False)


def test_the_step_with_a_name(vocab, model, other, caplog):
    """A model built for a checkpoint loses what that lacks; others keep their modules; fairseq's calls take the step by themselves."""
    caplog.set_level("INFO")
    lacking = {key: value for key, value in other.items() if "media.audio" not in key}
    wider = tiny.model(vocab, modalities="image,audio,video").state_dict()
    there = modules(model)
    assert model.load_state_dict(wider, strict=True, model_cfg=model.cfg) == ([], [])  # as fairseq's trainer does
    assert modules(model) == there and "left out of the checkpoint: video" in caplog.text
    with pytest.raises(UserError, match="the checkpoint has no audio: give --new-modalities audio"):
        model.load_state_dict(lacking, strict=True, model_cfg=model.cfg)
    own = copy.deepcopy(model)
    own.keeps_to_checkpoint = True  # as a task builds it for --path and the Python API
    by_hand = copy.deepcopy(own)
    own.load_state_dict(lacking, strict=True, model_cfg=own.cfg)
    by_hand.load_state_dict(fit_to_checkpoint(by_hand, published.to_published(lacking, {}).state))
    assert list(own.encoder.media) == list(by_hand.encoder.media) == ["image"] and "no audio, though its options" in caplog.text
    assert equal(own.state_dict(), lacking) and equal(by_hand.state_dict(), lacking)
    assert modules(model) == there


def test_moving_averages_take_published_names(model, other):
    """fairseq's EMA restores, steps and hands back, all by ``strict=False``."""
    average = EMA(model, EMAConfig(store_ema=True, ema_decay=0.5))
    average.restore(published.to_published(other, {}).state)
    assert equal(average.get_model().state_dict(), other)
    average.step(model)
    key = "decoder.layers.0.fc1.weight"
    torch.testing.assert_close(average.get_model().state_dict()[key], (other[key] + model.state_dict()[key]) / 2)
    average.reverse(model)
    assert equal(model.state_dict(), average.get_model().state_dict())


@pytest.mark.parametrize("option", ["attention_input_norm", "qk_norm", "modality_layernorm", "scale_resids"])
def test_options_that_the_checkpoint_has_and_the_model_not_are_named(vocab, option):
    """And the other way round."""
    with_it, without = tiny.model(vocab, modalities="image", **{option: True}), tiny.model(vocab, modalities="image")
    flag = f"--{option.replace('_', '-')}"
    with pytest.raises(UserError, match=f"trained with {flag}"):
        without.load_state_dict(with_it.state_dict())
    with pytest.raises(UserError, match=f"trained without {flag}"):
        with_it.load_state_dict(without.state_dict())


@pytest.mark.parametrize(
    "options, message",
    [
        ({"modality_layernorm_media": "image"}, "--modality-layernorm-media image: give --modality-layernorm, too"),
        ({"modality_layernorm": True, "modality_layernorm_media": "Image,video"}, "takes no video, it has image"),
    ],
)
def test_norms_of_media_that_the_model_lacks_are_refused(vocab, options, message):
    with pytest.raises(UserError, match=message):
        tiny.model(vocab, modalities="image", **options).load_backbones()
