"""Parameter-efficient tuning: what every method adds and trains, and that decoding, copies and checkpoints of the base go on as before."""

import copy
import pickle

import pytest
import torch
from torch.nn import functional as F

from tests import tiny
from tests.models.test_invariances import image_item, images, logits, text
from unival.checkpoints.adapters import METHODS, merge, method_of
from unival.errors import UserError
from unival.models.attention import MultiheadAttention
from unival.models.fitting import fit_to_checkpoint
from unival.models.peft import Lora, Prefix
from unival.models.trainable import choose_trainable, trained_keys

SOME = {"lora_rank": 2, "lora_layers": "q_proj,fc1", "adapter_width": 3, "prefix_length": 5}
ALL = "lora,adapters,prefix,bitfit"


@pytest.fixture(scope="module")
def vocab(tmp_path_factory):
    return tiny.vocabulary(tmp_path_factory.mktemp("vocab"))


def tuned(vocab, peft, **options):
    """A tiny model with new parts that are not as at the start, in float64."""
    chosen = {name: SOME[name] for method in peft.split(",") for name in METHODS[method] if name in SOME}
    model = tiny.model(vocab, peft=peft, **chosen, **options)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if method_of(name):
                parameter.normal_(std=0.3, generator=generator)
    return model.double()


def batch(vocab):
    return text(vocab, 7, 4), text(vocab, 5, 6, seed=1), [image_item(images(2), [0, 1])]


@pytest.mark.parametrize("peft", ["lora", "adapters", "bitfit"])
def test_the_start_is_the_base(vocab, peft):
    """Same weights from the same seed, same outputs; all keys of the base are there."""
    base, model = tiny.model(vocab).double(), tiny.model(vocab, peft=peft).double()
    for key, value in base.state_dict().items():
        assert torch.equal(model.state_dict()[key], value), key
    torch.testing.assert_close(logits(model, *batch(vocab)), logits(base, *batch(vocab)), rtol=0, atol=1e-12)


def test_every_method_changes_something(vocab):
    base = logits(tiny.model(vocab).double(), *batch(vocab))
    for peft in ("lora", "adapters", "prefix"):
        assert (logits(tuned(vocab, peft), *batch(vocab)) - base).abs().max() > 1e-2, peft


def test_what_is_trained(vocab):
    """New parts (and biases) alone, of the layers that were chosen; numbers of parameters worked out by hand."""
    expected = {  # 2 and 2 layers of width 32, 64 within the feed-forward; 6 attentions, 2 heads of width 16
        "lora": 6 * 2 * (32 + 32) + 4 * 2 * (32 + 64),
        "adapters": (6 + 4) * (2 * 32 * 3 + 3 + 32),
        "prefix": 6 * 2 * 2 * 5 * 16,
    }
    for peft, count in expected.items():
        model = tuned(vocab, peft)
        choose_trainable(model)
        trained = {name: p.numel() for name, p in model.named_parameters() if p.requires_grad}
        assert sum(trained.values()) == count and {method_of(name) for name in trained} == {peft}
    model = tuned(vocab, "bitfit,lora", trainable="projections")
    choose_trainable(model)
    trained = {name for name, p in model.named_parameters() if p.requires_grad}
    assert {name for name in trained if not (name.endswith("bias") or method_of(name))} == {"encoder.media.image.proj.weight"}
    assert {name for name, _ in model.named_parameters() if name.endswith("bias")} <= trained == trained_keys(model)


def test_keys_that_training_changes(vocab):
    """Tied embeddings have two keys; statistics move with the scales of their batch norms."""
    model = tuned(vocab, "lora", trainable="embeddings,norms")
    choose_trainable(model)
    changed = trained_keys(model)
    assert changed >= {"encoder.embed_tokens.weight", "decoder.embed_tokens.weight", "encoder.media.image.backbone.bn1.running_var"}
    model = tuned(vocab, "lora", trainable="embeddings")
    choose_trainable(model)
    assert not any("running" in key for key in trained_keys(model))


def test_lora_is_a_difference_of_weights(vocab):
    """By hand for a layer, and for the whole model once it is merged; dropout acts on its input in training alone."""
    linear = torch.nn.Linear(6, 4)
    lora = Lora(linear, rank=3, alpha=6.0, dropout=0.5)
    torch.nn.init.normal_(lora.b)
    x = torch.randn(2, 6)
    assert not torch.equal(lora(x), lora(x))
    torch.testing.assert_close(lora.eval()(x), x @ (6.0 / 3 * lora.b @ lora.a).T)
    model = tuned(vocab, "lora", lora_alpha=3.0)
    container = {"cfg": {"model": {"peft": "lora", "lora_alpha": 3.0, "dropout": 0.1}}, "model": model.state_dict()}
    merged = merge(container, "a.pt")
    plain = tiny.model(vocab, seed=3).double()
    plain.load_state_dict(merged["model"])
    assert merged["cfg"]["model"] == {"dropout": 0.1}
    torch.testing.assert_close(logits(plain, *batch(vocab)), logits(model, *batch(vocab)), rtol=0, atol=1e-11)
    for method in ("adapters", "prefix"):
        with pytest.raises(UserError, match=f"a.pt: --peft {method} cannot be merged"):
            merge({**container, "model": tuned(vocab, f"lora,{method}").state_dict()}, "a.pt")


def test_a_prefix_is_keys_and_values_of_bias_0_that_are_never_masked(vocab):
    torch.manual_seed(0)
    attention = MultiheadAttention(8, 2).double()
    prefix = Prefix(attention, length=3, std=1.0).double()
    x, bias = torch.randn(2, 5, 8).double(), torch.randn(2, 5, 5).double()
    padding = torch.tensor([[False] * 5, [False, False, True, True, True]])
    k, v = attention.project_memory(x)
    ours = attention(x, *prefix(k, v, bias, padding))
    for row in range(2):
        heads = []
        for h in range(2):
            keys, values = torch.cat([prefix.keys[h], k[row, h]]), torch.cat([prefix.values[h], v[row, h]])
            scores = attention.q_proj(x[row])[:, 4 * h : 4 * h + 4] @ keys.T * attention.scale
            scores = scores + torch.cat([torch.zeros(5, 3).double(), bias[h]], dim=1)
            scores = scores.masked_fill(torch.cat([torch.zeros(3, dtype=torch.bool), padding[row]]), float("-inf"))
            heads.append(scores.softmax(-1) @ values)
        torch.testing.assert_close(ours[row], attention.out_proj(torch.cat(heads, dim=-1)))


def test_tokens_one_by_one_padding_and_beams_are_as_in_the_whole(vocab):
    model = tuned(vocab, ALL)
    src, prev, media = batch(vocab)
    whole = logits(model, src, prev, media)
    longer = F.pad(src, (0, 3), value=vocab.pad), F.pad(prev, (0, 2), value=vocab.pad)
    torch.testing.assert_close(logits(model, *longer, media)[:, :6], whole, rtol=0, atol=1e-12)
    with torch.no_grad():
        out = model.encoder(src, None, media).reorder(torch.tensor([0, 0, 1, 1]))  # two beams of each
        state: dict = {}
        beams = prev[[0, 0, 1, 1]]
        steps = [model.decoder(beams[:, :t], out, incremental_state=state)[0] for t in range(1, 7)]
    decoded = torch.cat(steps, dim=1)
    torch.testing.assert_close(decoded[[1, 3]][1], whole[1], rtol=0, atol=1e-12)
    torch.testing.assert_close(decoded[[0, 2]][0, :5], whole[0, :5], rtol=0, atol=1e-12)


def test_copies_and_recomputation_keep_the_parts(vocab):
    model = tuned(vocab, ALL)
    expected = logits(model, *batch(vocab))
    for twin in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert torch.equal(logits(twin, *batch(vocab)), expected)
        with torch.no_grad():
            twin.encoder.layers[0].adapter.up.bias.add_(1)
            twin.encoder.layers[0].self_attn.q_proj.lora.b.zero_()
        assert not torch.equal(logits(twin, *batch(vocab)), expected)
    assert torch.equal(logits(model, *batch(vocab)), expected)
    gradients = []
    for recompute in (False, True):
        model.cfg.checkpoint_activations = recompute
        model.zero_grad()
        model.forward_group(*batch(vocab)[:1], None, batch(vocab)[1], media=batch(vocab)[2])[0].square().mean().backward()
        gradients.append({name: p.grad for name, p in model.named_parameters() if method_of(name)})
    for name, gradient in gradients[0].items():
        assert gradient.abs().sum() > 0, name
        torch.testing.assert_close(gradients[1][name], gradient)


def test_a_base_loads_with_new_parts_as_they_are(vocab, caplog):
    caplog.set_level("INFO")
    base, model = tiny.model(vocab, seed=1), tuned(vocab, ALL).float()
    fresh = {key: value.clone() for key, value in model.state_dict().items() if method_of(key)}
    model.load_state_dict(fit_to_checkpoint(model, base.state_dict()))
    assert f"new in this model: --peft {ALL} ({len(fresh)} keys), not in the checkpoint" in caplog.text
    for key, value in model.state_dict().items():
        assert torch.equal(value, fresh[key] if method_of(key) else base.state_dict()[key]), key
    half = {key: value for key, value in model.state_dict().items() if method_of(key) != "prefix"}
    with pytest.raises(UserError, match=r"missing .*prefix.keys.*the checkpoint was trained without --peft prefix"):
        model.load_state_dict(fit_to_checkpoint(model, half))
    with pytest.raises(UserError, match=r"unexpected .*lora.*the checkpoint was trained with --peft lora"):
        base.load_state_dict(fit_to_checkpoint(base, tuned(vocab, "lora").state_dict()))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"peft": "lorra"}, "unknown --peft 'lorra', did you mean 'lora'. There are lora, adapters, prefix, bitfit"),
        ({"peft": ""}, "unknown --peft ''"),
        ({"lora_rank": 4}, "--lora-rank 4 is for --peft lora, which is not chosen"),
        ({"peft": "lora", "lora_rank": 0}, "--lora-rank 0: must be at least 1"),
        ({"peft": "lora", "lora_alpha": float("nan")}, "--lora-alpha nan: must be a positive number"),
        ({"peft": "lora", "lora_dropout": 1.0}, "--lora-dropout 1: must be at least 0 and below 1"),
        ({"peft": "lora", "lora_layers": "query"}, "unknown --lora-layers 'query'; the layers have fc1, fc2, k_proj, v_proj, q_proj"),
        ({"peft": "adapters", "adapter_after": "norm"}, "unknown --adapter-after 'norm'; choose from attention, feed_forward"),
    ],
)
def test_what_cannot_be(vocab, options, message):
    with pytest.raises(UserError, match=message):
        tiny.model(vocab, **options)
