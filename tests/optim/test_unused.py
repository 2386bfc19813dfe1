"""Parts that an update does not use keep their bits, whatever fairseq's optimizer, with weight decay and momentum."""

import copy
from argparse import Namespace

import pytest
import torch
from fairseq import optim
from fairseq.optim.fp16_optimizer import FP16Optimizer, MemoryEfficientFP16Optimizer
from omegaconf import OmegaConf
from torch import nn

from unival.optim.unused import UsedParts

OPTIMIZERS = {
    "sgd": {"momentum": 0.9},
    "nag": {"momentum": 0.9},
    "adam": {"adam_betas": "(0.9, 0.98)", "adam_eps": 1e-8},
    "adamax": {"adamax_betas": "(0.9, 0.98)", "adamax_eps": 1e-8, "no_bias_correction": False},
    "adagrad": {},
    "adadelta": {"adadelta_rho": 0.9, "adadelta_eps": 1e-2, "anneal_eps": False},
    "adafactor": {
        **{"adafactor_eps": "(1e-30, 1e-3)", "clip_threshold": 1.0, "decay_rate": -0.8, "beta1": 0.9},
        **{"scale_parameter": False, "relative_step": False, "warmup_init": False},
    },
}
FLAT = [name for name in OPTIMIZERS if name != "adafactor"]


def options(name):
    return Namespace(optimizer=name, lr=[0.1], weight_decay=0.1, **OPTIMIZERS[name])


def half_precision(name, flat, parameters):
    """As with --bf16 or --fp16; on a CPU, for which fairseq makes no flat parameters itself."""
    copies = FP16Optimizer.build_fp32_params(None, parameters, flatten=False)
    if flat:
        strung = nn.Parameter(torch.cat([p.detach().float().flatten() for p in parameters]))
        strung.grad = torch.zeros_like(strung)
        copies = {None: strung}
    inner = optim.build_optimizer(options(name), [copies] if flat else copies)
    cfg = {"optimizer": {}, "optimization": {"update_freq": [1]}, "common": {"bf16": True, "model_parallel_size": 1}}
    return FP16Optimizer(OmegaConf.create({**cfg, "distributed_training": {"distributed_world_size": 1}}), parameters, inner, copies)


def memory_efficient(name, parameters):
    inner = optim.build_optimizer(options(name), parameters)
    cfg = {"optimizer": {}, "optimization": {"update_freq": [1]}, "common": {"bf16": True, "model_parallel_size": 1}}
    cfg["distributed_training"] = {"distributed_world_size": 1}
    return MemoryEfficientFP16Optimizer(OmegaConf.create(cfg), parameters, inner, allow_unsupported=True)


WAYS = {
    **{name: lambda parameters, name=name: optim.build_optimizer(options(name), parameters) for name in OPTIMIZERS},
    **{f"{name}, bf16": lambda parameters, name=name: half_precision(name, False, parameters) for name in OPTIMIZERS},
    **{f"{name}, flat fp16": lambda parameters, name=name: half_precision(name, True, parameters) for name in FLAT},
    **{f"{name}, memory-efficient": lambda parameters, name=name: memory_efficient(name, parameters) for name in ("adam", "adafactor")},
}


def parts(way):
    """Four parameters: the second and third are not always used."""
    torch.manual_seed(0)
    dtype = torch.bfloat16 if "," in way else torch.float32
    return [nn.Parameter(torch.randn(3, 2).to(dtype)) for _ in range(4)]


def update(optimizer, used_parts, parameters, used):
    """An update of the trainer whose batches use some of the parameters, with absent gradients filled up as legacy_ddp does."""
    optimizer.zero_grad()
    optimizer.backward(sum((parameters[i] * (i + 1)).sin().sum() for i in used))
    used_parts.note(optimizer)
    for parameter in parameters:
        if parameter.grad is None:
            parameter.grad = torch.zeros_like(parameter)
    optimizer.multiply_grads(0.5)
    optimizer.clip_grad_norm(1.0)
    with used_parts.only(optimizer):
        optimizer.step()


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("first", [(0, 3), (0, 1, 2, 3)], ids=["from the beginning", "after an update that used all"])
def test_unused_parts_keep_their_bits(way, first):
    """Values, and the optimizer's state: an update that uses them again moves them as if there had been none between."""
    parameters = parts(way)
    optimizer = WAYS[way](parameters)
    used_parts = UsedParts()
    update(optimizer, used_parts, parameters, first)
    before = [parameter.detach().clone() for parameter in parameters]
    state = copy.deepcopy(optimizer.state_dict()["state"])
    update(optimizer, used_parts, parameters, (0, 3))
    update(optimizer, used_parts, parameters, (0, 3))
    for i in (1, 2):
        assert torch.equal(parameters[i], before[i])
        if len(first) < 4:
            assert torch.equal(parameters[i], parts(way)[i])
    for i in (0, 3):
        assert not torch.equal(parameters[i], before[i])
    now = optimizer.state_dict()["state"]
    if "flat" in way:
        (flat,) = optimizer.fp32_params.values()
        assert torch.equal(flat[6:18].to(torch.bfloat16), torch.cat(before[1:3]).flatten())
        for key, value in now[0].items():
            if isinstance(value, torch.Tensor) and value.dim():
                assert torch.equal(value[6:18], state[0][key][6:18]) and not torch.equal(value[:6], state[0][key][:6])
                assert value[6:18].any() or len(first) < 4
    else:
        for i in (1, 2):
            for key, value in state.get(i, {}).items():
                assert torch.equal(torch.as_tensor(now[i][key]), torch.as_tensor(value)), key


@pytest.mark.parametrize("way", WAYS)
def test_with_all_parts_used_nothing_changes(way):
    """The same bits as without looking."""
    looked_at, plain = parts(way), parts(way)
    optimizer, other = WAYS[way](looked_at), WAYS[way](plain)
    used_parts = UsedParts()
    for _ in range(3):
        update(optimizer, used_parts, looked_at, range(4))
        update(other, UsedPartsOfNobody(), plain, range(4))
    for one, two in zip(looked_at, plain, strict=True):
        assert torch.equal(one, two)


class UsedPartsOfNobody(UsedParts):
    """Notes nothing: the optimizer steps as fairseq calls it."""

    def note(self, optimizer):
        pass


def test_a_batch_without_rows_uses_nothing():
    """Its gradients are zeros; what rows before and after it use counts."""
    parameters = parts("sgd")
    optimizer = WAYS["sgd"](parameters)
    used_parts = UsedParts()
    before = [parameter.detach().clone() for parameter in parameters]
    parameters[0].sum().backward()
    used_parts.note(optimizer)
    used_parts.note(optimizer)  # before a batch without rows
    sum(0 * parameter.sum() for parameter in parameters).backward()
    with used_parts.only(optimizer):
        optimizer.step()
    assert [torch.equal(one, two) for one, two in zip(parameters, before, strict=True)] == [False, True, True, True]
