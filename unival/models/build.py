"""A model by its options alone, over a vocabulary that is known by its size: for commands, which look at weights and need no task."""

from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any

import torch

from unival.models.config import saved_config
from unival.models.unival import UnivalModel
from unival.quiet_import import quiet_import


def build_model(options: Mapping[str, Any], symbols: int, seed: int = 0, device: str = "cpu") -> UnivalModel:
    """The model of a ``UnivalConfig``, initialised from ``seed``, with the weights of its backbones' files.

    Args:
        options: fields of the configuration; those that are left out have their defaults.
        symbols: how many tokens the vocabulary has, special ones included.
        device: where the model is; on ``meta`` it has shapes without values, nothing of its size is allocated and no file is read.
    """
    with quiet_import():
        from fairseq.data import Dictionary

    dictionary = Dictionary()
    for number in range(symbols - len(dictionary)):
        dictionary.add_symbol(f"symbol {number}")
    with torch.random.fork_rng(devices=[]), torch.device(device):
        torch.manual_seed(seed)
        model = UnivalModel.build_model(saved_config(options), SimpleNamespace(source_dictionary=dictionary))
    if device != "meta":
        model.load_backbones()
    return model
