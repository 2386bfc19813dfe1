"""A part that one rank uses and one that none uses, behind fairseq's data parallelism and torch's: for two ranks that are connected."""

import contextlib
from argparse import Namespace

import torch
from fairseq import optim
from fairseq.distributed import utils as distributed
from fairseq.distributed.legacy_distributed_data_parallel import LegacyDistributedDataParallel
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from unival.optim.unused import UsedParts

OPTIONS = Namespace(optimizer="sgd", lr=[0.1], momentum=0.9, weight_decay=0.1)
UPDATES = 3


class Parts(nn.Module):
    """A sum of the outputs of some of its parts."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.parts = nn.ModuleDict({name: nn.Linear(3, 2) for name in ("shared", "one", "none")})

    def forward(self, x, names):
        return sum(self.parts[name](x) for name in names)


def uses(rank, batch):
    """The second rank uses the second part, in an update's first batch only."""
    return ["shared", "one"] if (rank, batch) == (1, 0) else ["shared"]


def inputs(rank, update, batch):
    return torch.full((2, 3), 0.1 * (1 + rank + 2 * batch) + update)


def trained(update_freq, wrap):
    """The parts after some updates on this rank, as fairseq's trainer makes them."""
    rank, ranks = torch.distributed.get_rank(), torch.distributed.get_world_size()
    model = Parts()
    wrapped = wrap(model)
    optimizer = optim.build_optimizer(OPTIONS, list(model.parameters()))
    used = UsedParts()
    for update in range(UPDATES):
        optimizer.zero_grad()
        for batch in range(update_freq):
            with contextlib.nullcontext() if batch == update_freq - 1 else wrapped.no_sync():
                optimizer.backward(wrapped(inputs(rank, update, batch), uses(rank, batch)).square().sum())
            used.note(optimizer)
        optimizer.all_reduce_grads(wrapped)
        optimizer.multiply_grads(ranks)
        with used.only(optimizer):
            optimizer.step()
    return model


def alone(update_freq):
    """The same on one process with all batches."""
    model = Parts()
    optimizer = optim.build_optimizer(OPTIONS, list(model.parameters()))
    for update in range(UPDATES):
        optimizer.zero_grad()
        for rank in range(2):
            for batch in range(update_freq):
                optimizer.backward(model(inputs(rank, update, batch), uses(rank, batch)).square().sum())
        optimizer.step()
    return model


def check():
    """Compares both ranks with each other and with one process."""
    ways = {
        "legacy_ddp": lambda model: LegacyDistributedDataParallel(model, distributed.get_data_parallel_group(), buffer_size=2**10),
        "c10d": lambda model: DistributedDataParallel(model, find_unused_parameters=True),
    }
    for name, wrap in ways.items():
        for update_freq in (1, 2):
            model, expected, start = trained(update_freq, wrap), alone(update_freq), Parts()
            assert torch.equal(model.parts["none"].weight, start.parts["none"].weight), name
            for ours, whole in zip(model.parameters(), expected.parameters(), strict=True):
                torch.testing.assert_close(ours, whole)
                other = ours.detach().clone()
                torch.distributed.broadcast(other, 0)
                assert torch.equal(ours, other), name
            assert not torch.equal(model.parts["one"].weight, start.parts["one"].weight), name
