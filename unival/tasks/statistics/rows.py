"""The rows that statistics are computed on, batched as in evaluation."""

import pathlib
from collections.abc import Iterator
from typing import Any

from fairseq import utils
from torch import nn

from unival.data.stream import Stream
from unival.tasks.base import UnivalTask


def spread(count: int, most: int | None) -> list[int]:
    """Numbers of at most ``most`` of ``count`` rows, evenly spread over all; None: all rows."""
    taken = count if most is None else min(most, count)
    return [i * count // taken for i in range(taken)]


def rows_of(task: UnivalTask, table: str | pathlib.Path, model: nn.Module | None = None, with_target: bool = False) -> Stream:
    """The rows of a table with a task's instruction, as evaluation reads them; the first row is read once, to check it.

    Args:
        task: the task.
        table: path of the table.
        model: where the task has not built it: its positions limit the rows' tokens.
        with_target: whether the rows must have what is predicted.

    Raises:
        UserError: the table or its first row cannot be read, or has not the instruction's columns.
    """
    if model is not None:
        task.fit_positions(model.cfg)
    stream = task.build_dataset(task.open_table(table), with_target=with_target)
    stream.read(0)
    return stream


class Batches:
    """Batches of rows that can be read several times, on the model's device.

    Args:
        stream: the rows, as a task's ``build_dataset`` makes them; read as in evaluation.
        model: the model that they are for.
        size: most rows of a batch; sizes differ by one row at most, so that none is much smaller than the others.
        most: number of rows, evenly spread over the table; None: all.
    """

    def __init__(self, stream: Stream, model: nn.Module, size: int = 16, most: int | None = None):
        assert size > 0 and (most is None or most > 0), f"batches of {size} rows, of {most}"
        self.stream, self.model, self.size = stream, model, size
        self.rows = spread(len(stream), most)

    def __len__(self) -> int:
        return -(-len(self.rows) // self.size)

    def __iter__(self) -> Iterator[dict[str, Any]]:
        for number in range(len(self)):
            start, stop = (len(self.rows) * place // len(self) for place in (number, number + 1))
            yield on_device(self.stream.collater([self.stream.read(row) for row in self.rows[start:stop]]), self.model)


def on_device(sample: dict[str, Any], model: nn.Module) -> dict[str, Any]:
    """A batch on the device of a model."""
    device = next(model.parameters()).device
    return utils.move_to_cuda(sample, device) if device.type == "cuda" else sample
