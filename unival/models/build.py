"""Builds a model from its options and the size of its vocabulary alone, for commands that need no task."""

from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any

import torch

from unival.models.config import saved_config
from unival.models.unival import UnivalModel
from unival.quiet_import import quiet_import


def build_model(options: Mapping[str, Any], num_tokens: int, seed: int = 0, device: str = "cpu") -> UnivalModel:
    """Build the model of a ``UnivalConfig``, initialised from ``seed``, and load the files that its options name for backbones.

    Args:
        options: fields of the configuration; missing ones have their default.
        num_tokens: number of tokens in the vocabulary, special ones included.
        seed: seed of the initial weights.
        device: the model's device; on ``meta`` it has shapes without values, and no file is read.
    """
    with quiet_import():
        from fairseq.data import Dictionary

    dictionary = Dictionary()
    for number in range(num_tokens - len(dictionary)):
        dictionary.add_symbol(f"symbol {number}")
    with torch.random.fork_rng(devices=[]), torch.device(device):
        torch.manual_seed(seed)
        model = UnivalModel.build_model(saved_config(options), SimpleNamespace(source_dictionary=dictionary))
    if device != "meta":
        model.load_backbones()
    return model
