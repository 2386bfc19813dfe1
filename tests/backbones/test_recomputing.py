"""--checkpoint-activations: CNNs keep less for the backward pass, and compute the same."""

import pytest
import torch

from tests import tiny

SHAPES = {"image": (3, 64, 64), "video": (3, 4, 64, 64), "audio": (40000,)}


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    vocab = tiny.vocabulary(tmp_path_factory.mktemp("vocab"))
    return [tiny.model(vocab, modalities=",".join(SHAPES), checkpoint_activations=recompute).train() for recompute in (False, True)]


@pytest.mark.parametrize("name", SHAPES)
def test_recomputed_blocks_give_the_same(models, name):
    """Features, gradients and statistics of batch norms to the last bit, dropout included, with less memory in between."""
    values = torch.randn(2, *SHAPES[name], generator=torch.Generator().manual_seed(2))
    found = []
    for model in models:
        kept: dict[int, int] = {}

        def keep(tensor, kept=kept):
            kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
            return tensor

        embedding = model.encoder.media[name]
        torch.manual_seed(1)
        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            tokens = embedding(values).tokens
        tokens.square().mean().backward()
        gradients = {key: parameter.grad for key, parameter in embedding.named_parameters() if parameter.grad is not None}
        found.append(({"tokens": tokens, **gradients, **dict(embedding.named_buffers())}, sum(kept.values())))
    (plain, memory), (recomputed, less) = found
    assert plain.keys() == recomputed.keys() and len(plain) > 10
    for key, value in plain.items():
        assert torch.equal(value, recomputed[key]), key
    weights = sum(parameter.nbytes for parameter in models[0].encoder.media[name].parameters())
    assert less - weights < 0.7 * (memory - weights)
