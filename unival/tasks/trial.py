"""A trial before the first update: loss and generation on a few rows, as in validation, without effect on the run."""

import contextlib
import random
from collections.abc import Iterator
from typing import Any, Protocol

import numpy as np
import torch
from fairseq import utils
from fairseq.logging import metrics
from torch import nn

from unival.data.example import Example, Sample
from unival.data.table import TRIED_ROWS
from unival.errors import UserError, counted

CPU_ROWS = 2  # rows of a trial batch, and generated tokens per row, where memory is not tried
CPU_TOKENS = 4


class Rows(Protocol):
    """What a trial asks of a data set."""

    def __len__(self) -> int: ...

    def read(self, number: int) -> list[Example]:
        """The examples of a row."""

    def is_skipped(self, error: UserError) -> bool:
        """Whether a row is skipped because of an error."""

    def collater(self, samples: list[Sample]) -> dict[str, Any]:
        """Batch rows."""


def first_examples(dataset: Rows, count: int) -> list[list[Example]]:
    """Read the first rows of a table or, with ``--on-bad-sample skip``, the first readable ones of its first 100.

    The rows are not counted as read or skipped.

    Raises:
        UserError: a row cannot be read and is not skipped, or no row can be read.
    """
    examples: list[list[Example]] = []
    failure: UserError | None = None
    for row in range(min(TRIED_ROWS, len(dataset))):
        try:
            examples.append(dataset.read(row))
        except UserError as error:
            if not dataset.is_skipped(error):
                raise
            failure = failure or error
        if len(examples) == count:
            break
    if not examples:
        tried = counted(min(TRIED_ROWS, len(dataset)), "row")
        raise UserError(f"of the first {tried} none can be read, not even to skip the others: {failure}")
    return examples


def run_trial(task: Any, model: nn.Module, criterion: nn.Module, train: Rows, valid: Rows | None) -> set[str]:
    """Compute the loss on a batch of each data set, and for the second also generate and score.

    On a GPU the second is a full validation batch with generation to the full length, which tries the memory, too.

    Args:
        task: the task.
        model: the model.
        criterion: the loss.
        train: the training data.
        valid: the first validation split; None without validation.

    Returns:
        Names of the values that this validation logged; empty without validation.

    Raises:
        UserError: validation would raise it, or the GPU's memory does not suffice.
    """
    parameter = next(model.parameters())
    on_gpu = parameter.is_cuda
    rows = (task.cfg.batch_size_valid or CPU_ROWS) if on_gpu else CPU_ROWS
    with untouched(model, criterion), torch.no_grad(), metrics.aggregate(new_root=True) as logged:
        model.eval()
        criterion.eval()
        try:
            sample = _prepared(train, CPU_ROWS, parameter)
            criterion(model, task.with_limits(sample))
            if valid is None:
                return set()
            task.evaluation.begin(print_samples=0)
            task.evaluation.prepare(task, model, longest=None if on_gpu else CPU_TOKENS)
            output = task.valid_step(_prepared(valid, rows, parameter), model, criterion)[2]
        except torch.OutOfMemoryError as error:
            raise UserError(
                f"validation will not fit into the GPU's memory: give a smaller --batch-size-valid than {rows}"
                f" ({str(error).splitlines()[0]})"
            ) from error
        finally:
            task.begin_valid_epoch(1, model)  # as before the first validation: drops the generator, resets counts
        task.reduce_metrics([output], criterion)
        return set(logged.get_smoothed_values())


def _prepared(dataset: Rows, rows: int, parameter: torch.Tensor) -> dict[str, Any]:
    """A batch of the first rows as fairseq's trainer passes it to the model: on its device, in its precision."""
    sample = dataset.collater([*first_examples(dataset, rows)])
    if parameter.is_cuda:
        sample = utils.move_to_cuda(sample, parameter.device)
    return utils.apply_to_sample(lambda t: t.to(parameter.dtype) if t.dtype == torch.float32 else t, sample)


@contextlib.contextmanager
def untouched(*modules: nn.Module) -> Iterator[None]:
    """Restore the modules' modes and all random generators afterwards, so that training does not change by a bit."""
    modes = [(part, part.training) for module in modules for part in module.modules()]
    python, numpy = random.getstate(), np.random.get_state()
    gpus = range(torch.cuda.device_count()) if torch.cuda.is_initialized() else []
    try:
        with torch.random.fork_rng(devices=gpus):
            yield
    finally:
        random.setstate(python)
        np.random.set_state(numpy)
        for part, mode in modes:
            part.training = mode
