"""AdaMerging (Yang et al. 2024, arXiv:2310.02575): coefficients of task vectors, learnt on rows without answers.

``theta = theta_0 + sum_k c_k (theta_k - theta_0)``, with coefficients per task, per layer or per tensor (the published code's layers), is
trained by Adam to minimise the sum over tasks of the entropy of the model's predictions.  A classifier has one prediction per row.  An
answer of several tokens has one distribution per token, each given the tokens before: here those of the merged model's own greedy
answer, up to ``tokens`` of them, since the rows have no answers to force, and the mean of their entropies is minimised.  The first
token alone (``tokens`` 1) hardly differs between captions.  Of candidate answers all tokens count, and every distribution is limited to
the tokens that continue one.

The gradient of a coefficient is the product of the gradient of the merged weights with the task vector, tensor by tensor as these are
computed: in memory are the merged weights (twice where the files' type or the device is another than the model's), what a batch's
gradients need, and slices of a tensor of each model, however many models there are.
"""

import contextlib
import itertools
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor

from unival.checkpoints.merging.inputs import Inputs
from unival.checkpoints.merging.merge import merged
from unival.checkpoints.merging.sparse import layer_of
from unival.checkpoints.merging.task_vectors import Adaptive
from unival.checkpoints.merging.tensors import slices, working
from unival.data.stream import Stream
from unival.tasks.base import UnivalTask
from unival.tasks.statistics.answers import OwnAnswers
from unival.tasks.statistics.rows import on_device, spread
from unival.tasks.statistics.weighing import Told, likelihood, untold

GROUPS: dict[str, Callable[[str], str]] = {"task": lambda key: "", "layer": layer_of, "tensor": lambda key: key}


class Coefficients:
    """Coefficients of the models by group of keys, n each.

    Args:
        per: a key of :data:`GROUPS`.
        keys: checkpoint keys that have coefficients.
        count: number of models.
        start: all coefficients at first.
    """

    def __init__(self, per: str, keys: Sequence[str], count: int, start: float):
        self.group = GROUPS[per]
        names = dict.fromkeys(map(self.group, keys))
        self.values = {name: torch.full((count,), start, dtype=torch.float64) for name in names}
        self.otherwise = [start] * count

    def __call__(self, key: str) -> list[float]:
        """The coefficients of a key; those of none that has a gradient are as at first."""
        name = self.group(key)
        return self.values[name].tolist() if name in self.values else self.otherwise

    def plain(self) -> dict[str, list[float]]:
        """Group -> one number per model."""
        return {name: [round(value, 9) for value in values.tolist()] for name, values in self.values.items()}


def batches(stream: Stream, model: Any, size: int, most: int | None, seed: int) -> Iterator[dict[str, Any]]:
    """Batches of rows without end: every pass over ``most`` rows has another order, which follows from the seed."""
    chosen = spread(len(stream), most)
    generator = torch.Generator().manual_seed(seed)
    size = min(size, len(chosen))
    while True:
        order = torch.randperm(len(chosen), generator=generator).tolist()
        for start in range(0, len(chosen) - size + 1, size):
            places = order[start : start + size]
            yield on_device(stream.collater([stream.read(chosen[place]) for place in places]), model)


def entropy(task: UnivalTask, model: Any, sample: dict[str, Any]) -> Tensor:
    """The mean entropy, in nats, of the distributions of a batch's target tokens, given those before them; with a gradient."""
    criterion = likelihood(task)
    features, _ = model(**sample["net_input"], features_only=True)
    lprobs = criterion.select_tokens(model, features, sample).lprobs  # 1 x m x k, 0 where not allowed
    return -(lprobs.exp() * lprobs).sum(-1).mean()


def learn(
    inputs: Inputs,
    model: Any,
    tables: Sequence[tuple[UnivalTask, Stream]],
    rule: Adaptive,
    size: int = 16,
    most: int | None = None,
    told: Told = untold,
    state: dict[str, Tensor] | None = None,
) -> tuple[Coefficients, list[float]]:
    """Learn the coefficients of the models.

    Args:
        inputs: the models and their base, with this package's keys.
        model: a module with these keys, in eval mode; its weights are replaced by the merged ones.
        tables: a task and the rows of its table, for each model.
        rule: the method with its options.
        size: rows of each table in a step.
        most: rows of each table that are used, evenly spread over it; None: all.
        told: is called after every step.
        state: merged weights that are written over; the model may have the same tensors (:func:`unival.models.fitting.share_weights`).

    Returns:
        The coefficients, and the sum over tasks of the entropy in every step.
    """
    parameters = {inputs.tied.get(name, name): value for name, value in model.named_parameters() if value.requires_grad}
    moved = [key for key in parameters if _was_moved(inputs, key)]
    coefficients = Coefficients(rule.per, moved, len(inputs.models), rule.start)
    optimizer = torch.optim.Adam([value.requires_grad_() for value in coefficients.values.values()], lr=rule.rate)
    streams = [
        (task, OwnAnswers(task, model, sampled=False, longest=rule.tokens), batches(stream, model, size, most, rule.seed))
        for task, stream in tables
    ]
    own, entropies = model.state_dict(), []
    with _gradients(inputs, parameters, moved, coefficients):
        for step in range(rule.steps):
            with torch.no_grad():
                state = merged(inputs, rule, coefficients, into=state)
                for key, value in state.items():
                    if own[key].data_ptr() != value.data_ptr():
                        own[key].copy_(value)
            for value in coefficients.values.values():
                value.grad = torch.zeros_like(value)
            total = 0.0
            for task, answer, rows in streams:
                loss = entropy(task, model, answer(next(rows)))
                loss.backward()
                total += float(loss.detach())
            optimizer.step()
            for value in coefficients.values.values():
                value.detach().clamp_(0, 1)  # as the published code does
            entropies.append(total)
            told(step + 1, rule.steps)
    return coefficients, entropies


def _was_moved(inputs: Inputs, key: str) -> bool:
    """Whether any model differs from the base in a key."""
    assert inputs.base is not None, "task vectors need a base"
    base = inputs.base.state.get(key)
    return base is not None and any(not torch.equal(value, base) for value in inputs.having(key)[1])


@contextlib.contextmanager
def _gradients(inputs: Inputs, parameters: Mapping[str, Tensor], moved: Collection[str], coefficients: Coefficients) -> Iterator[None]:
    """While this is open, gradients of a model become those of coefficients, tensor by tensor: it has none of its own."""
    hooks = [
        value.register_post_accumulate_grad_hook(partial(_add_gradient, inputs, coefficients, key if key in moved else None))
        for key, value in parameters.items()
    ]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


@torch.no_grad()
def _add_gradient(inputs: Inputs, coefficients: Coefficients, key: str | None, parameter: Tensor) -> None:
    """Add to the gradients of coefficients the products of a merged tensor's with its task vectors (None: there are none), and drop it."""
    assert inputs.base is not None and parameter.grad is not None, "task vectors need a base; called when the gradient is whole"
    found, parameter.grad = parameter.grad, None
    if key is None:
        return
    grad, base = found.cpu().to_dense(), inputs.base.state[key]
    target = coefficients.values[coefficients.group(key)].grad
    assert target is not None, "set before"
    numbers, values = inputs.having(key)
    for number, value in zip(numbers, values, strict=True):
        flat, start, slope = (each.view(1) if each.dim() == 0 else each for each in (value, base, grad))
        for rows in slices(flat.shape):
            delta = working(flat[rows]) - working(start[rows])
            target[number] += float((delta * slope[rows]).sum(dtype=torch.float64))


def average(entropies: Sequence[float], last: int = 10) -> tuple[float, float]:
    """The mean entropy of the first and of the last steps."""
    count = min(last, len(entropies))
    first, end = itertools.islice(entropies, count), entropies[-count:]
    return sum(first) / count, sum(end) / count
