"""What a model keeps for inference: packed weights and folded CNNs give the same numbers, and are dropped when weights may change."""

import argparse
import copy
import pickle

import pytest
import torch
from torch.nn.modules.batchnorm import _BatchNorm

from tests import tiny
from unival.backbones import prepared
from unival.backbones.folding import Folded
from unival.backbones.prepared import Linear, PackedWeight, Prepared, QuantizedWeight, prepare
from unival.errors import UserError
from unival.generation.search import build_generator
from unival.models.inference import TYPES, check_type

SHAPES = {"image": (3, 64, 64), "video": (3, 4, 64, 64), "audio": (40000,)}


@pytest.fixture(scope="module")
def vocab(tmp_path_factory):
    return tiny.vocabulary(tmp_path_factory.mktemp("vocab"))


@pytest.fixture
def model(vocab):
    """A model of all media, whose batch norms do something."""
    built = tiny.model(vocab, modalities="image,video,audio")
    generator = torch.Generator().manual_seed(3)
    for norm in [module for module in built.modules() if isinstance(module, _BatchNorm)]:
        for tensor in (norm.weight.data, norm.running_var):
            tensor.copy_(torch.rand(tensor.shape, generator=generator) + 0.5)
        for tensor in (norm.bias.data, norm.running_mean):
            tensor.copy_(torch.randn(tensor.shape, generator=generator) / 4)
    return built


def inputs(vocab, dtype=torch.float32):
    generator = torch.Generator().manual_seed(1)
    src, prev = (torch.randint(4, len(vocab), (2, length), generator=generator) for length in (5, 4))
    prev[:, 0] = vocab.bos
    media = [
        {"modality": name, "values": torch.randn((2, *shape), generator=generator).to(dtype), "rows": torch.arange(2)}
        for name, shape in SHAPES.items()
    ]
    return {"src_tokens": src, "src_lengths": torch.full((2,), 5), "prev_output_tokens": prev, "media": media}


@torch.no_grad()
def logits(model, vocab, dtype=torch.float32):
    return model.forward_group(**inputs(vocab, dtype))[0]


def parts(model):
    return [module for module in model.modules() if isinstance(module, Prepared)]


def is_prepared(model):
    """Whether all parts are, and nothing is kept before it is of use."""
    return all(part.asked is not None for part in parts(model))


def keeps_nothing(model):
    return all(part.asked is None and part.prepared is None for part in parts(model))


def forms(model, vocab, dtype=torch.float32):
    """What is kept once everything was used."""
    logits(model, vocab, dtype)
    return [part.prepared for part in parts(model)]


def test_prepared_models_give_the_same(vocab, model, monkeypatch):
    """Logits and features of every CNN within 1e-5, from the packed weights and folded CNNs alone; the weights stay as they are."""
    before, state = logits(model, vocab), copy.deepcopy(model.state_dict())
    backbones = {name: media.backbone for name, media in model.encoder.media.items()}
    with torch.no_grad():
        features = {name: backbones[name](torch.randn(2, *SHAPES[name], generator=torch.Generator().manual_seed(2))) for name in backbones}
    prepare(model)
    assert is_prepared(model) and all(part.prepared is None for part in parts(model)) and len(parts(model)) > 30
    assert None not in forms(model, vocab)
    with torch.no_grad():
        for name, expected in features.items():
            found = backbones[name](torch.randn(2, *SHAPES[name], generator=torch.Generator().manual_seed(2)))
            torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5 * float(expected.abs().max()))
            assert not torch.equal(found, expected)
            left = [module for module in backbones[name].prepared.network.modules() if isinstance(module, _BatchNorm)]
            assert len(left) == (1 if name == "audio" else 0)  # that of the spectrogram
    torch.testing.assert_close(logits(model, vocab), before, rtol=1e-5, atol=1e-5 * float(before.abs().max()))
    assert state.keys() == model.state_dict().keys() and all(torch.equal(state[key], value) for key, value in model.state_dict().items())
    used = []
    multiply = PackedWeight.multiply
    monkeypatch.setattr(PackedWeight, "multiply", lambda self, *args: used.append(self) or multiply(self, *args))
    logits(model, vocab)
    assert len(set(map(id, used))) == len([part for part in parts(model) if isinstance(part.prepared, PackedWeight)])
    used.clear()
    with torch.enable_grad():
        model.forward_group(**inputs(vocab))[0].sum().backward()
    assert not used and all(part.weight.grad is not None for part in parts(model) if isinstance(part, Linear))


@pytest.mark.parametrize("change", ["train", "load", "convert", "copy", "pickle"])
def test_what_may_change_weights_drops_what_was_kept(vocab, change):
    model = tiny.model(vocab, modalities="image,video,audio")
    prepare(model)
    assert None not in forms(model, vocab)
    if change == "train":
        model = model.train().eval()
    elif change == "load":
        model.load_state_dict({key: value + 1 for key, value in model.state_dict().items()})
    elif change == "convert":
        model.double()
    else:
        model = copy.deepcopy(model) if change == "copy" else pickle.loads(pickle.dumps(model))
    assert keeps_nothing(model)
    model.train()
    prepare(model)
    assert keeps_nothing(model)  # a model in training is never prepared


@torch.no_grad()
def test_weights_that_change_in_place_are_noticed(vocab, model):
    """As those of a model whose weights are swapped: batch norms of a folded CNN, matrices, the output projection."""
    prepare(model)
    assert None not in forms(model, vocab)
    generator = torch.Generator().manual_seed(5)
    for value in model.state_dict().values():
        if value.is_floating_point():
            value.mul_(1 + torch.rand(value.shape, generator=generator) / 4)
    found = logits(model, vocab)
    expected = logits(copy.deepcopy(model), vocab)
    assert torch.equal(found, expected) and keeps_nothing(model)
    linear, x = next(part for part in parts(model) if isinstance(part, Linear)), torch.ones(1, 1)
    prepare(model)
    before = linear.ready(x)
    prepare(model)
    assert linear.ready(x) is before is not None
    linear.weight.add_(1)
    assert linear.ready(x) is None and keeps_nothing(linear)
    prepare(model)
    linear.weight.add_(1)  # before the first use
    assert linear.ready(x) is None and keeps_nothing(linear)


@torch.no_grad()
def test_many_rows_of_float32_take_the_weights():
    """A long source is multiplied as fast by torch; packed weights would only take memory."""
    linear = Linear(3, 2).eval()
    prepare(linear)
    assert linear.ready(torch.ones(1, prepared.FEW_ROWS + 1, 3)) is None and linear.prepared is None
    assert linear.ready(torch.ones(1, prepared.FEW_ROWS, 3)) is linear.prepared is not None
    linear.prepare(int8=True)  # the weights are the same: what is kept stays
    assert isinstance(linear.prepared, PackedWeight)
    for other in (Linear(3, 2).eval(), Linear(3, 2).eval().bfloat16()):
        other.prepare(int8=other.weight.dtype == torch.float32)
        assert other.ready(torch.ones(1, prepared.FEW_ROWS + 1, 3, dtype=other.weight.dtype)) is not None


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_other_types(vocab, model, dtype):
    """Half precision is as close as without preparation; float64 as exact."""
    exact = logits(model.double(), vocab, torch.float64)
    model.to(dtype)
    prepare(model)
    found = logits(model, vocab, dtype)
    assert found.dtype == dtype
    error = float((found.double() - exact).abs().max() / exact.abs().max())
    assert error < {torch.bfloat16: 0.1, torch.float16: 0.01, torch.float64: 1e-9}[dtype]


def test_fairseq_generate_prepares(vocab, model):
    options = argparse.Namespace(beam=3, min_len=2, max_len_b=6)
    group = inputs(vocab)
    sample = {"net_input": {"groups": [{key: value for key, value in group.items() if key != "prev_output_tokens"}]}}
    expected = build_generator([model], vocab.dictionary, options).generate([model], sample)
    model.prepare_for_inference_(argparse.Namespace(generation=options))
    assert is_prepared(model)
    found = build_generator([model], vocab.dictionary, options).generate([model], sample)
    for ours, theirs in zip(found, expected, strict=True):
        assert [beam["tokens"].tolist() for beam in ours] == [beam["tokens"].tolist() for beam in theirs]
        assert [float(beam["score"]) for beam in ours] == pytest.approx([float(beam["score"]) for beam in theirs], abs=1e-5)


def test_int8(vocab, model):
    """Quantised matrices are within their rounding of the others, and convolutions are not quantised."""
    before = logits(model, vocab)
    model.inference_type = "int8"
    model.prepare_for_inference_(argparse.Namespace(generation=argparse.Namespace()))
    kept = forms(model, vocab)
    assert {type(form) for form in kept} == {QuantizedWeight, Folded} and model.decoder.embed_tokens.weight.dtype == torch.float32
    error = (logits(model, vocab) - before).abs().max() / before.abs().max()
    assert 1e-4 < float(error) < 0.1
    linear = Linear(64, 48).eval()
    x = torch.randn(5, 64, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        expected = linear(x)
        linear.prepare(int8=True)
        inputs = x.abs().amax(1, keepdim=True) / 63  # a step of every row
        steps = inputs * linear.weight.abs().sum(1) + linear.weight.abs().amax(1) / 127 * x.abs().sum(1, keepdim=True)
        assert ((linear(x) - expected).abs() <= steps / 2).all() and not torch.equal(linear(x), expected)


@pytest.mark.parametrize("engine", [name for name in torch.backends.quantized.supported_engines if name != "none"])
def test_rows_of_int8_products_do_not_touch_each_other(engine, monkeypatch):
    """With every engine of torch, whatever the other rows are; a row of zeros stays one."""
    monkeypatch.setattr(torch.backends.quantized, "engine", engine)
    x = torch.randn(2, 3, 64, generator=torch.Generator().manual_seed(0)) * torch.tensor([1e-6, 1.0, 1e4]).view(3, 1)
    x[1, 1] = 0
    weight = torch.randn(48, 64, generator=torch.Generator().manual_seed(1))
    kept, bias = QuantizedWeight(weight), torch.arange(48.0)
    together = kept.multiply(x)
    assert torch.equal(together, torch.stack([torch.stack([kept.multiply(row) for row in rows]) for rows in x]))
    expected = x @ weight.T
    assert ((together - expected).norm(dim=-1) <= 0.05 * expected.norm(dim=-1)).all() and not together[1, 1].any()
    assert torch.equal(kept.multiply(x[:, 1], bias), together[:, 1] + bias)
    assert kept.multiply(x.bfloat16()).dtype == torch.bfloat16


@pytest.mark.parametrize("name", ["bf16", "fp16"])
def test_fairseq_generate_converts_once(vocab, model, name):
    model.inference_type = name
    model.prepare_for_inference_(argparse.Namespace(generation=argparse.Namespace()))
    assert {parameter.dtype for parameter in model.parameters()} == {TYPES[name]}
    assert None not in forms(model, vocab, TYPES[name]) and logits(model, vocab).dtype == TYPES[name]


def test_unknown_types_and_devices():
    with pytest.raises(UserError, match="unknown dtype 'int4'"):
        check_type("int4")
    with pytest.raises(UserError, match="'int8' is for CPUs"):
        check_type("int8", torch.device("meta"))


def test_without_onednn_nothing_is_packed(monkeypatch):
    monkeypatch.setattr(prepared.torch.backends.mkldnn, "is_available", lambda: False)
    linear = Linear(4, 3).eval()
    prepare(linear)
    with torch.no_grad():
        assert linear(torch.ones(1, 4)).shape == (1, 3) and linear.prepared is linear.asked is None


def test_folded_cnns_are_copies(model):
    backbone = model.encoder.media["image"].backbone
    kept = {key: value.clone() for key, value in backbone.state_dict().items()}
    Folded(backbone)
    assert all(torch.equal(kept[key], value) for key, value in backbone.state_dict().items())
