"""What training on CPUs does otherwise than on GPUs."""

import contextlib
import logging

import pytest
import torch

from tests import tiny
from unival.models import cpu


@pytest.fixture(scope="module")
def vocab(tmp_path_factory):
    return tiny.vocabulary(tmp_path_factory.mktemp("vocab"))


@pytest.fixture
def has_instructions(monkeypatch):
    """Sets whether the CPU has instructions for half precision."""

    def say(has):
        monkeypatch.setattr(cpu, "compute_type", lambda dtype: dtype if has else torch.float32)
        cpu.is_slow.cache_clear()

    yield say
    cpu.is_slow.cache_clear()


@pytest.mark.parametrize("option", [True, False], ids=["--autocast-bf16", "the caller's autocast"])
def test_bfloat16_is_used_where_it_is_not_slower(vocab, has_instructions, option, caplog):
    """Features, logits and gradients: those of float32 where the CPU has no instructions for bfloat16, which is said once."""
    caplog.set_level(logging.INFO, cpu.__name__)
    ids = torch.tensor([[vocab.bos, 5, 6, 7]])
    group = {"src_tokens": ids, "src_lengths": torch.tensor([4]), "prev_output_tokens": ids}
    model = tiny.model(vocab, modalities="image").train()
    weight = model.encoder.layers[0].fc1.weight

    def run(autocast):
        model.cfg.autocast_bf16 = autocast and option
        model.zero_grad()
        with torch.autocast("cpu", torch.bfloat16) if autocast and not option else contextlib.nullcontext():
            features, _ = model(groups=[group], features_only=True)
            logits = model.output_layer(features)
        logits.float().square().mean().backward()
        return features, logits, weight.grad

    plain = run(False)
    for has in (True, False):
        has_instructions(has)
        for one, other in zip(run(True), plain, strict=True):
            assert torch.equal(one, other) is not has
        run(True)
        assert len(caplog.messages) == (not has)
