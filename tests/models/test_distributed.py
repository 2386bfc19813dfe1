"""The model inside torch's DistributedDataParallel: batches that do not use every part of it."""

import pytest
import torch
from torch import distributed
from torch.nn.parallel import DistributedDataParallel

from tests import tiny

MEDIA = {"image": (3, 64, 64), "video": (3, 4, 64, 64), "audio": (40000,)}


@pytest.fixture
def one_process(tmp_path):
    """A group of this process alone: the reducer works as in larger ones."""
    distributed.init_process_group("gloo", init_method=f"file://{tmp_path / 'store'}", rank=0, world_size=1)
    yield
    distributed.destroy_process_group()


def step(model, vocab, name):
    """Forward and backward of a batch with one medium."""
    src, prev = torch.tensor([[vocab.bos, 9, 8, vocab.eos]] * 2), torch.tensor([[vocab.bos, 7, 6]] * 2)
    values = torch.randn((2, *MEDIA[name]), generator=torch.Generator().manual_seed(0))
    media = [{"modality": name, "values": values, "rows": torch.arange(2)}]
    model([{"src_tokens": src, "src_lengths": None, "prev_output_tokens": prev, "media": media}])[0].square().mean().backward()


def test_parts_that_a_batch_does_not_use_do_not_stop_the_reducer(tmp_path, one_process):
    """As the recipes run it (--find-unused-parameters): media change from step to step, gradients are those of the bare model."""
    vocab = tiny.vocabulary(tmp_path)
    model, bare = (tiny.model(vocab, modalities="image,video,audio").eval() for _ in range(2))
    wrapped = DistributedDataParallel(model, find_unused_parameters=True)
    for name in ("image", "video", "audio", "image"):
        model.zero_grad()
        bare.zero_grad()
        step(wrapped, vocab, name)
        step(bare, vocab, name)
        for (key, ours), theirs in zip(model.named_parameters(), bare.parameters(), strict=True):
            if theirs.grad is not None:
                torch.testing.assert_close(ours.grad, theirs.grad, rtol=1e-5, atol=1e-7, msg=lambda m, k=key: f"{k}: {m}")


def test_without_looking_for_them_it_stops(tmp_path, one_process):
    """Why the recipes need the flag: the parameters of image codes get no gradient from text."""
    vocab = tiny.vocabulary(tmp_path)
    wrapped = DistributedDataParallel(tiny.model(vocab))
    step(wrapped, vocab, "image")
    with pytest.raises(RuntimeError, match="find_unused_parameters"):
        step(wrapped, vocab, "image")
