"""Gradients of the token embeddings: handed on as rows, dense wherever anybody looks, whatever the loss reaches."""

import copy
import pickle

import pytest
import torch
from fairseq import utils
from fairseq.optim.adam import Adam
from torch import distributed, nn
from torch.nn import functional as F
from torch.nn.parallel import DistributedDataParallel

from tests import tiny
from unival.models.token_embeddings import TokenEmbeddings

WEIGHT = "encoder.embed_tokens.weight"
LOSSES = {
    "projected": lambda model, src, prev: model.forward_group(src, None, prev)[0].float().square().mean(),
    "decoder": lambda model, src, prev: model.decoder(prev, model.encoder(src), features_only=True)[0].float().square().mean(),
    "encoder": lambda model, src, prev: model.encoder(src).hidden.float().square().mean(),
}


@pytest.fixture(scope="module")
def vocab(tmp_path_factory):
    return tiny.vocabulary(tmp_path_factory.mktemp("vocab"))


def batch(vocab):
    """Tokens that repeat, and padding."""
    return (
        torch.tensor([[vocab.bos, 9, 9, 8, vocab.eos], [vocab.bos, 9, vocab.eos, vocab.pad, vocab.pad]]),
        torch.tensor([[vocab.bos, 8, 8, 6], [vocab.bos, 7, vocab.pad, vocab.pad]]),
    )


def gradient(model, losses, vocab):
    """The gradient after one backward pass per loss."""
    model.zero_grad()
    for name in losses:
        LOSSES[name](model, *batch(vocab)).backward()
    return model.get_parameter(WEIGHT).grad


def copies(model):
    """Ways to a model that has lost what hangs on its parameters."""
    return [model, copy.deepcopy(model), pickle.loads(pickle.dumps(model))]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize("losses", [*((name,) for name in LOSSES), tuple(LOSSES), tuple(LOSSES)[::-1]], ids=", ".join)
def test_gradients_are_dense_and_right(vocab, monkeypatch, losses, dtype):
    model = tiny.model(vocab, modalities="").to(dtype)
    found = [gradient(each, losses, vocab) for each in copies(model)]
    plain = {"padding_idx": vocab.pad}
    monkeypatch.setattr(TokenEmbeddings, "forward", lambda table, tokens: F.embedding(tokens, table.weight, **plain))
    monkeypatch.setattr(TokenEmbeddings, "project", lambda table, features, tokens=None: F.linear(features, table.weight))
    expected = gradient(copy.deepcopy(model), losses, vocab)
    for grad in found:
        assert grad.layout == torch.strided and grad.dtype == dtype
        tolerance = {"rtol": 2 * torch.finfo(dtype).eps, "atol": 2 * torch.finfo(dtype).eps * float(expected.abs().max())}
        torch.testing.assert_close(grad, expected, **tolerance)  # sums of the same numbers in another order
        assert float(expected.abs().max()) > 0


def test_optimizer_and_clipping_take_them(vocab):
    """A step of Adam with weight decay on a loss that does not reach the projection, twice, with clipping between."""
    model = tiny.model(vocab, modalities="")
    before = model.get_parameter(WEIGHT).detach().clone()
    optimizer = Adam(model.parameters(), lr=1e-2, weight_decay=0.1)
    for _ in range(2):
        gradient(model, ["encoder"], vocab)
        assert utils.clip_grad_norm_(list(model.parameters()), 1e-3) > 1e-3
        optimizer.step()
    changed = (model.get_parameter(WEIGHT) != before).any(dim=1)
    assert changed[9] and changed[50]  # a token of the batch; one that only decays


@pytest.mark.parametrize("losses", [("projected",), ("encoder",), ("projected", "decoder")], ids=", ".join)
@pytest.mark.parametrize("how", ["in place", "through data", "new data", "new type", "another parameter of the same values"])
def test_weights_that_change_between_passes(vocab, how, losses):
    """As optimizers, fairseq's and torch's, and ``model.to`` change them."""
    model = tiny.model(vocab, modalities="")
    gradient(model, losses, vocab)
    weight = model.get_parameter(WEIGHT)
    if how == "in place":
        with torch.no_grad():
            weight.mul_(2)
    elif how == "through data":
        weight.data.mul_(2)
    elif how == "new data":
        weight.data = weight.data.clone() * 2
    elif how == "new type":
        model.double()
    else:
        model.load_state_dict(model.state_dict(), assign=True)
        weight = model.get_parameter(WEIGHT)
    found, expected = (gradient(each, losses, vocab) for each in (model, copy.deepcopy(model)))
    assert torch.equal(found, expected) and found.dtype == weight.dtype


def test_a_converted_model_keeps_nothing_of_the_former_weights(vocab):
    model = tiny.model(vocab, modalities="")
    gradient(model, ["projected"], vocab)
    assert model.encoder.embed_tokens._uses is not None
    assert model.bfloat16().encoder.embed_tokens._uses is None


def test_products_of_some_tokens(vocab):
    """Ids and a slice of the vocabulary, beside look-ups and a product of all."""
    table, tokens = TokenEmbeddings(7, 3, padding_idx=1), torch.tensor([[1, 2, 2]])
    ids, part = torch.tensor([4, 2]), slice(3, 6)
    x = torch.randn(2, 3, generator=torch.Generator().manual_seed(0))
    weight = table.weight.detach().clone().requires_grad_()
    ours = [table(tokens), table.project(x), table.project(x, ids), table.project(x, part)]
    plain = [F.embedding(tokens, weight, 1), x @ weight.T, x @ weight[ids].T, x @ weight[part].T]
    for one, other in zip(ours, plain, strict=True):
        torch.testing.assert_close(one, other)
    for values in (ours, plain):
        sum(value.square().sum() for value in values).backward()
    torch.testing.assert_close(table.weight.grad, weight.grad)


def test_frozen_embeddings_have_none(vocab):
    model = tiny.model(vocab, modalities="", freeze_token_embeddings=True)
    assert gradient(model, list(LOSSES), vocab) is None
    model.get_parameter(WEIGHT).requires_grad_(True)  # thawed later
    assert gradient(model, ["encoder"], vocab).layout == torch.strided


def test_tables_that_are_no_parameters_of_their_own(vocab):
    """A weight that is computed, as under parametrisations, and one inside a functional call: nothing of it is sparse."""
    table, tokens = TokenEmbeddings(5, 3, padding_idx=1), torch.tensor([[1, 2, 2]])
    nn.utils.parametrizations.orthogonal(table, "weight")
    table(tokens).sum().backward()
    assert all(parameter.grad.layout == torch.strided for parameter in table.parameters() if parameter.grad is not None)

    class Lookup(nn.Module):
        def __init__(self):
            super().__init__()
            self.table = TokenEmbeddings(5, 3, padding_idx=1)

        def forward(self, tokens):
            return self.table(tokens).sum()

    module = Lookup()
    weights = {"table.weight": module.table.weight.detach()}
    found = torch.func.grad(lambda given: torch.func.functional_call(module, given, (tokens,)))(weights)["table.weight"]
    assert torch.equal(found, torch.tensor([[0.0], [0.0], [2.0], [0.0], [0.0]]).expand(5, 3))


def test_ddp_takes_them(vocab, tmp_path):
    distributed.init_process_group("gloo", init_method=f"file://{tmp_path / 'store'}", rank=0, world_size=1)
    try:
        model = tiny.model(vocab, modalities="")

        class Loss(nn.Module):
            def __init__(self):
                super().__init__()
                self.model = model

            def forward(self, name):
                return LOSSES[name](self.model, *batch(vocab))

        wrapped = DistributedDataParallel(Loss(), find_unused_parameters=True)
        for name in LOSSES:
            expected = gradient(copy.deepcopy(model), [name], vocab)
            model.zero_grad()
            wrapped(name).backward()
            torch.testing.assert_close(model.get_parameter(WEIGHT).grad, expected)
    finally:
        distributed.destroy_process_group()
