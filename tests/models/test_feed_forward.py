"""The feed-forward is given to a layer: its names in checkpoints, and experts from outside the package that take its place."""

import argparse
import copy
import pickle

import pytest
import torch
from omegaconf import OmegaConf
from torch import nn

from tests import tiny
from unival.criterions.label_smoothed import LabelSmoothedConfig, LabelSmoothedCriterion
from unival.models.config import encoder_stack
from unival.models.feed_forward import FeedForward
from unival.models.layers import EncoderLayer
from unival.models.unival import UnivalModel

AUXILIARY = 0.25  # of every layer


class TwoExperts(nn.Module):
    """One feed-forward for tokens of images, one for all others; the share of the first is an auxiliary loss."""

    def __init__(self, stack, layer):
        super().__init__()
        self.seen, self.layer = [], layer
        self.experts = nn.ModuleList([FeedForward(stack), FeedForward(stack)])
        self.bias = nn.Parameter(torch.zeros(stack.embed_dim))

    def forward(self, x, attributes):
        self.seen.append((attributes.modality.tolist(), attributes.is_target, self.training))
        is_image = (attributes.modality == attributes.names.index("image"))[..., None]
        others, images = (expert(x, attributes)[0] for expert in self.experts)
        return torch.where(is_image, images, others) + self.bias, AUXILIARY + self.bias.sum()


class ExpertModel(UnivalModel):
    """A model of somebody else's."""

    @classmethod
    def build_feed_forward(cls, stack, layer):
        return TwoExperts(stack, layer)


@pytest.fixture(scope="module")
def vocab(tmp_path_factory):
    return tiny.vocabulary(tmp_path_factory.mktemp("vocab"))


def sample_of(vocab):
    group = {
        "src_tokens": torch.tensor([[vocab.bos, 9, 8, vocab.eos], [vocab.bos, 7, vocab.eos, vocab.pad]]),
        "src_lengths": None,
        "prev_output_tokens": torch.tensor([[vocab.bos, 8, 6], [vocab.bos, 7, vocab.pad]]),
    }
    values = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    group["media"] = [{"modality": "image", "values": values, "rows": torch.tensor([0, 1])}]
    return {"net_input": {"groups": [group]}, "target": torch.tensor([[8, 6, vocab.eos], [7, vocab.eos, vocab.pad]])}


def loss_of(model, vocab, **options):
    task = argparse.Namespace(target_dictionary=vocab.dictionary)
    criterion = LabelSmoothedCriterion(task, LabelSmoothedConfig(sentence_avg=False, **options))
    return criterion(model, sample_of(vocab))


def test_experts_take_the_place_of_the_feed_forward(vocab):
    """They are told each token's modality; their auxiliary loss arrives in the loss, once per token, and in the gradient."""
    plain = tiny.model(vocab)
    model = ExpertModel.build_model(OmegaConf.create(plain.cfg), argparse.Namespace(source_dictionary=vocab.dictionary)).eval()
    state = plain.state_dict()
    with torch.no_grad():  # both experts are what the plain model has
        for key, value in model.state_dict().items():
            own = key.replace("experts.0.", "").replace("experts.1.", "")
            value.copy_(state.get(own, value))
    (loss, size, log), (expected, _, plain_log) = loss_of(model, vocab), loss_of(plain, vocab)
    assert size == 5 and "auxiliary_loss" not in plain_log
    added = 4 * AUXILIARY * size  # two layers of each stack
    assert float(loss.detach()) == pytest.approx(float(expected.detach()) + added, rel=1e-6)
    assert float(log["auxiliary_loss"]) == pytest.approx(added) and float(log["nll_loss"]) == pytest.approx(float(plain_log["nll_loss"]))
    loss.backward()
    gradient = model.get_parameter("encoder.layers.1.bias").grad
    assert gradient is not None and bool((gradient != 0).any())
    patches, text, image = 4, [0, 0, 0, 0], 2  # a 2 x 2 grid of a 64-pixel image; names are text, code, image
    source, target = ([[image] * patches + text], False, False), ([[0]], True, False)
    layers = [*model.encoder.layers, *model.decoder.layers]
    assert [layer.feed_forward.seen for layer in layers] == [[source], [source], [target], [target]]
    assert [layer.feed_forward.layer for layer in layers] == [0, 1, 0, 1]
    with torch.no_grad():  # the second expert is that of images
        model.encoder.layers[0].experts[1].fc2.weight.mul_(2)
        assert float(loss_of(model, vocab)[0]) != pytest.approx(float(loss.detach()), rel=1e-6)
    model.train()
    assert all(layer.feed_forward.training for layer in layers)


def test_its_parts_are_those_of_the_layer(vocab):
    """Copied, pickled, converted and replaced with it; nothing in a checkpoint says that it is a part of its own."""
    layer = tiny.model(vocab, modalities="", scale_resids=True).encoder.layers[0]
    names = ["w_resid", "fc1.weight", "fc1.bias", "fc2.weight"]
    assert [name for name, _ in layer.named_parameters()][:4] == names and not any("feed_forward" in key for key in layer.state_dict())
    for other in (copy.deepcopy(layer), pickle.loads(pickle.dumps(layer))):
        other = other.double()
        assert other.feed_forward.fc1 is other.fc1 is not layer.fc1
        assert other.feed_forward.fc1.weight.dtype == torch.float64 and layer.fc1.weight.dtype == torch.float32
        other.fc1 = nn.Identity()
        assert isinstance(other.feed_forward.fc1, nn.Identity)
        other.train()
        assert other.feed_forward.training and not layer.feed_forward.training

    class Colliding(FeedForward):
        def __init__(self, stack):
            super().__init__(stack)
            self.dropout = nn.Dropout(0.5)

    stack = encoder_stack(tiny.model(vocab, modalities="").cfg)
    with pytest.raises(AssertionError, match="parts named dropout"):
        EncoderLayer(stack, 0.0, Colliding(stack))
