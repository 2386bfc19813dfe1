"""Models without initial values: only parameters lack them, and only where nothing else needs the same random numbers."""

import torch
from torch import nn

from unival.models.uninitialised import without_initial_values


class Part(nn.Module):
    """A layer, and random numbers that no state dict has."""

    def __init__(self, draws):
        super().__init__()
        self.layer = nn.Linear(30, 20)
        self.draws = draws
        if draws == "own generator":
            self.noise = torch.empty(5).normal_(generator=torch.Generator().manual_seed(3))
        elif draws == "buffer":
            self.register_buffer("noise", nn.init.normal_(torch.empty(5)), persistent=False)
        elif draws == "attribute":
            self.noise = torch.rand(5)


def built(draws, build):
    torch.manual_seed(1)
    part = build(lambda: Part(draws))
    return part, torch.get_rng_state()


def test_parameters_need_no_random_numbers():
    """torch's generator is as before; numbers from another one are drawn."""
    torch.manual_seed(1)
    before = torch.get_rng_state()
    for draws in ("nothing", "own generator"):
        part, after = built(draws, without_initial_values)
        assert torch.equal(after, before)
    assert torch.equal(part.noise, built("own generator", lambda build: build())[0].noise)


def test_other_random_numbers_are_those_of_training():
    for draws in ("buffer", "attribute"):
        (ours, after), (expected, state) = built(draws, without_initial_values), built(draws, lambda build: build())
        assert torch.equal(ours.noise, expected.noise) and torch.equal(after, state)
        assert torch.equal(ours.layer.weight, expected.layer.weight)
