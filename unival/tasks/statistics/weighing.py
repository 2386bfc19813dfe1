"""Statistics of a model on rows, by which merging weighs its values: Fisher information and Gram matrices.

Rows are read one at a time: batches of one have no padding, so that nothing depends on how rows are batched.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from unival.checkpoints.merging.tensors import is_matrix
from unival.criterions.label_smoothed import LabelSmoothedConfig, LabelSmoothedCriterion
from unival.data.stream import Stream
from unival.tasks.base import UnivalTask
from unival.tasks.statistics.answers import OwnAnswers
from unival.tasks.statistics.rows import on_device, spread

ANSWERS = ("model", "table")
Told = Callable[[int, int], None]  # is told how many rows are done, and of how many


def untold(done: int, total: int) -> None:
    """Tell nobody."""


def examples(
    task: UnivalTask, model: Any, stream: Stream, answers: str, most: int | None = None, seed: int = 1, told: Told = untold
) -> Iterator[dict[str, Any]]:
    """Batches of one example each, with targets, and with the limits of their loss.

    Args:
        task: the task.
        model: the model.
        stream: the rows.
        answers: one of :data:`ANSWERS`: sampled from the model, or the table's.
        most: number of rows, evenly spread over the table; None: all.
        seed: of the samples; a row's follow from seed and row.
        told: is called after every row.
    """
    own = OwnAnswers(task, model, sampled=True) if answers == "model" else None
    rows = spread(len(stream), most)
    for done, row in enumerate(rows, start=1):
        for place, example in enumerate(stream.read(row)):
            sample = on_device(stream.collater([[example]]), model)
            yield task.with_limits(sample) if own is None else own(sample, seed=_seed(seed, row, place))
        told(done, len(rows))


def _seed(*numbers: int) -> int:
    return int(np.random.SeedSequence(numbers).generate_state(1, np.uint64)[0] >> np.uint64(1))


def likelihood(task: UnivalTask) -> LabelSmoothedCriterion:
    """The criterion whose loss is the negative log-likelihood of a batch's targets, in nats, summed over tokens."""
    return LabelSmoothedCriterion(task, LabelSmoothedConfig(sentence_avg=False)).eval()


def fisher(task: UnivalTask, model: Any, batches: Iterable[dict[str, Any]]) -> dict[str, Tensor]:
    """The diagonal of the Fisher information: the mean over examples of ``(d log p(y | x) / d theta)^2``.

    With y sampled from the model it is the information itself (Matena and Raffel 2022, arXiv:2111.09832, eq. 4, with one sample); with
    the table's answers the empirical one.  In memory are the model and the sum: gradients are added tensor by tensor.

    Args:
        task: the task.
        model: the model, in eval mode.
        batches: batches of one example, as :func:`examples` makes them.

    Returns:
        Key of a trained parameter -> its information, of the parameter's shape.
    """
    criterion = likelihood(task)
    parameters = {name: value for name, value in model.named_parameters() if value.requires_grad}
    sums = {name: torch.zeros_like(value, dtype=torch.float32) for name, value in parameters.items()}
    hooks = [value.register_post_accumulate_grad_hook(partial(_add_square, sums[name])) for name, value in parameters.items()]
    count = 0
    try:
        for batch in batches:
            criterion(model, batch)[0].backward()
            count += 1
    finally:
        for hook in hooks:
            hook.remove()
    return {name: value.div_(count) for name, value in sums.items()}


def _add_square(total: Tensor, parameter: Tensor) -> None:
    assert parameter.grad is not None, "called when it is whole"
    gradient = parameter.grad.float()
    parameter.grad = None
    total += gradient.square() if gradient.is_sparse else gradient.square_()  # in place: a vocabulary's is large


@torch.no_grad()
def gram(task: UnivalTask, model: Any, batches: Iterable[dict[str, Any]]) -> dict[str, Tensor]:
    """Gram matrices ``X^T X / n`` of the inputs X (all tokens of n examples) of the linear layers (Jin et al. 2023, arXiv:2212.09849).

    Those of the output projection, which is tied to the embeddings, are left out.  In memory are the model and the matrices.

    Args:
        task: the task.
        model: the model, in eval mode.
        batches: batches of one example, as :func:`examples` makes them.

    Returns:
        Key of a layer's weight ``out x in`` -> matrix ``in x in``; layers that no example reaches are not there.
    """
    criterion = likelihood(task)
    sums: dict[str, Tensor] = {}
    layers = {f"{name}.weight": module for name, module in model.named_modules() if isinstance(module, nn.Linear)}
    chosen = {key: module for key, module in layers.items() if is_matrix(key, module.weight)}
    hooks = [module.register_forward_pre_hook(partial(_add_products, sums, key)) for key, module in chosen.items()]
    count = 0
    try:
        for batch in batches:
            criterion(model, batch)
            count += 1
    finally:
        for hook in hooks:
            hook.remove()
    return {key: value.div_(count) for key, value in sums.items()}


def _add_products(sums: dict[str, Tensor], key: str, module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
    x = inputs[0].reshape(-1, inputs[0].size(-1)).float()
    if key not in sums:
        sums[key] = torch.zeros(x.size(1), x.size(1), device=x.device)
    sums[key].addmm_(x.T, x)


@dataclass(frozen=True)
class Kind:
    """A kind of statistics.

    Attributes:
        compute: makes key -> tensor of a task, a model and batches.
        answers: the answers that it is computed with by default.
    """

    compute: Callable[[UnivalTask, Any, Iterable[dict[str, Any]]], dict[str, Tensor]]
    answers: str


KINDS: dict[str, Kind] = {
    "fisher": Kind(fisher, "model"),
    "gram": Kind(gram, "table"),
}
