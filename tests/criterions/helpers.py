"""Criterions without a task, and a stand-in for the model."""

import argparse
from typing import Any

from fairseq.data import Dictionary
from torch import Tensor, nn

from unival.criterions.encouraging import EncouragingConfig, EncouragingCriterion
from unival.criterions.label_smoothed import LabelSmoothedConfig, LabelSmoothedCriterion

PAD, EOS, SYMBOLS = 1, 2, 157


def make_dictionary(symbols: int = SYMBOLS) -> Dictionary:
    dictionary = Dictionary()
    for i in range(symbols - len(dictionary)):
        dictionary.add_symbol(str(i))
    return dictionary


def make(
    kind: str = "ls", symbols: int = SYMBOLS, updates: int | None = None, **options: Any
) -> LabelSmoothedCriterion:
    task = argparse.Namespace(target_dictionary=make_dictionary(symbols))
    options.setdefault("sentence_avg", False)
    if kind == "ls":
        criterion = LabelSmoothedCriterion(task, LabelSmoothedConfig(**options))
    else:
        criterion = EncouragingCriterion(task, EncouragingConfig(**options))
    if updates is not None:
        criterion.set_num_updates(updates)
    return criterion


class GivenLogits(nn.Module):
    """Stands for a model: its features are the logits that it was given, whatever the input."""

    def __init__(self, logits: Tensor) -> None:
        super().__init__()
        self.logits = nn.Parameter(logits) if logits.is_leaf else logits  # one that a test differentiates stays itself

    def forward(self, features_only: bool, **net_input: Any) -> tuple[Tensor, dict]:
        assert features_only
        return self.logits, {}

    def output_layer(self, features: Tensor, tokens: Tensor | None = None) -> Tensor:
        return features if tokens is None else features[..., tokens]


def run(criterion: LabelSmoothedCriterion, logits: Tensor, target: Tensor, **sample: Any) -> tuple[float, float, int]:
    """Loss, nll_loss and sample size of a batch."""
    batch = {"target": target, "net_input": {"groups": [{"src_tokens": target}]}, **sample}
    loss, size, log = criterion(GivenLogits(logits), batch)
    assert size == log["sample_size"] == log["ntokens"]
    assert float(loss.detach()) == float(log["loss"])
    return float(loss.detach()), float(log["nll_loss"]), size
