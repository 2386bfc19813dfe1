"""Progress of a run, for whoever shows it: records of the logger ``unival.progress`` at level DEBUG, which plain fairseq does not show."""

import logging
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

logger = logging.getLogger("unival.progress")


@dataclass(frozen=True)
class Step:
    """A step that was done; the record has it as its attribute ``step``.

    ``kind`` and what it counts: ``training`` (updates), ``validating``, ``generating`` and what else a command does (rows).  ``loss`` gives
    the last batch's loss per token in bits; asking for it waits for the device.
    """

    kind: str
    done: int
    total: int | None = None
    loss: Callable[[], float] = lambda: math.nan


class Progress:
    """Counts the steps of one task."""

    def __init__(self) -> None:
        self._rows = 0

    def trained(self, update_num: int, logging_output: dict[str, Any], planned: int | None = None) -> None:
        """A batch of the update after ``update_num`` was learned; ``planned``: updates of all epochs, where their number is known."""
        loss, size = logging_output["loss"], logging_output["sample_size"]
        tell(Step("training", update_num + 1, planned, loss=lambda: _bits(loss, size)))

    def begin_validation(self) -> None:
        """Count the rows from 0 again."""
        self._rows = 0

    def rows(self, kind: str, sample: dict[str, Any], datasets: Mapping[str, Any]) -> None:
        """A batch of one of the evaluation splits among ``datasets`` was done."""
        self._rows += len(sample["id"])
        total = sum(len(dataset) for dataset in datasets.values() if not dataset.is_train)
        tell(Step(kind, self._rows, None if torch.distributed.is_initialized() else total))


def tell(step: Step) -> None:
    """Show a step."""
    if logger.isEnabledFor(logging.DEBUG):
        logger.debug("%s %s", step.kind, step.done, extra={"step": step})


def _bits(loss: Tensor | float, size: Tensor | float) -> float:
    return float(loss) / max(float(size), 1.0) / math.log(2)
