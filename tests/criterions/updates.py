"""Updates by fairseq's trainer of a model that has a logit of its own for every token: what each token weighs in them, by hand.

Run on one process, or on two that are connected: there :func:`check` is called.
"""

import argparse
import functools
import pathlib
import types
from fractions import Fraction

import pytest
import torch
from fairseq import options
from fairseq.dataclass.utils import convert_namespace_to_omegaconf
from fairseq.models import BaseFairseqModel
from fairseq.tasks import FairseqTask
from fairseq.trainer import Trainer
from torch import nn

from tests import runs
from tests.criterions.helpers import PAD, make
from unival.criterions.weighting import NORMALIZATION

TOKENS = [2, 1, 3, 1, 4, 2, 5]  # of each row
STREAMS = [0, 1, 0, 1, 1, 1, 0]
VOCABULARY = 6
# Batches of rows in groups: the two of the first rank, and those of the second.
BATCHES = [[[[0, 1], [2]], [[3, 4]]], [[[5]], [[6]]]]
# By hand, the weight of each token of a row in an update.
ONE_RANK = {
    "token": "1/11 1/11 1/11 1/11 1/11",
    "group": "1/6 1/6 1/6 1/10 1/10",
    "example": "1/10 1/5 1/15 1/5 1/20",
    "stream": "1/15 1/3 1/15 1/15 1/15",
}
TWO_RANKS = {
    "token": "1/18 1/18 1/18 1/18 1/18 1/18 1/18",
    "group": "1/12 1/12 1/12 1/20 1/20 1/8 1/20",
    "example": "1/14 1/7 1/21 1/7 1/28 1/14 1/35",
    "stream": "1/25 1/5 1/25 1/25 1/25 1/10 1/25",
}


class Given(BaseFairseqModel):
    """Its features are logits, its parameters: 0 at first, so that all tokens are equally likely."""

    def __init__(self):
        super().__init__()
        self.logits = nn.Parameter(torch.zeros(len(TOKENS), max(TOKENS), VOCABULARY))

    def forward(self, groups, features_only, contexts=None):
        return [self.logits[group["src_tokens"][:, 0], : group["prev_output_tokens"].size(1)] for group in groups], {}

    def output_layer(self, features, tokens=None):
        return features if tokens is None else features[..., tokens]


def batch(groups):
    """A batch of rows; the target of each token is the last of the vocabulary."""
    rows = [row for group in groups for row in group]
    longest = max(TOKENS[row] for row in rows)
    target = torch.tensor([[VOCABULARY - 1] * TOKENS[row] + [PAD] * (longest - TOKENS[row]) for row in rows])
    parts = target.split([len(group) for group in groups])
    inputs = [{"src_tokens": torch.tensor([group]).T, "prev_output_tokens": part} for group, part in zip(groups, parts, strict=True)]
    net_input = {"groups": inputs}
    return {"id": torch.tensor(rows), "stream": torch.tensor([STREAMS[row] for row in rows]), "target": target, "net_input": net_input}


@functools.cache
def configuration():
    """That of a training: gradient descent with a learning rate of 1."""
    flags = ["--optimizer", "sgd", "--lr", "1", "--update-freq", "2", "--clip-norm", "0", "--ddp-backend", "legacy_ddp"]
    arguments = runs.train_flags(pathlib.Path("nowhere"), pathlib.Path("nowhere"), *flags)
    return convert_namespace_to_omegaconf(options.parse_args_and_arch(options.get_training_parser(), arguments))


def weights(normalization, rank=0, ranks=1):
    """What each row's tokens weigh in an update of ``ranks`` processes, by what their logits have become; they are alike in a row."""
    cfg = configuration()
    cfg.distributed_training.distributed_world_size, cfg.distributed_training.distributed_rank = ranks, rank
    model, criterion = Given(), make(symbols=VOCABULARY, loss_normalization=normalization)
    trainer = Trainer(cfg, FairseqTask(argparse.Namespace()), model, criterion)
    trainer.get_train_iterator = types.SimpleNamespace  # no data of its own
    trainer.train_step([batch(groups) for groups in BATCHES[rank]])
    learned = model.logits[..., -1].detach() / (1 - 1 / VOCABULARY)
    for row, count in enumerate(TOKENS):
        assert (learned[row, count:] == 0).all()
        torch.testing.assert_close(learned[row, :count], learned[row, :1].expand(count))
    return learned[:, 0].tolist()


def expected(table, normalization):
    values = [float(Fraction(weight)) for weight in table[normalization].split()]
    return values + [0.0] * (len(TOKENS) - len(values))


def check():
    """On both of two connected processes."""
    rank = torch.distributed.get_rank()
    for normalization in map(str, NORMALIZATION):
        found, by_hand = weights(normalization, rank, 2), expected(TWO_RANKS, normalization)
        assert found == pytest.approx(by_hand), normalization
