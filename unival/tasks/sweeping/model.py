"""One model in memory whose weights become those of one merge after the other."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from omegaconf import OmegaConf
from torch import Tensor

from unival.checkpoints.merging.inputs import STATISTICS, Checkpoint, Inputs
from unival.checkpoints.merging.merge import merged
from unival.checkpoints.merging.methods import make_rule, method_named
from unival.checkpoints.merging.points import Point
from unival.checkpoints.merging.record import merged_container
from unival.models.fitting import fit_to_checkpoint
from unival.tasks.base import UnivalTask


class MergedModel:
    """The weights of a merge, and the models that compute with them.

    Where options of the models differ, such as how frames are evaluated, there is a module for each, and all have the same tensors as
    their weights.

    Args:
        inputs: what is merged, with this package's keys.
        method: name of the method.
        device: where the modules compute.
        statistics: one state of statistics per model; None: the method needs none.
    """

    def __init__(self, inputs: Inputs, method: str, device: torch.device, statistics: Sequence[Mapping[str, Tensor]] | None = None):
        self.inputs, self.method, self.device, self.statistics = inputs, method, device, statistics
        self._state: dict[str, Tensor] | None = None  # as a merged file holds them
        self._values: dict[str, Tensor] = {}  # as modules compute with them: the same tensors, or float32 for half precision
        self._modules: dict[str, Any] = {}

    def move(self, point: Point) -> None:
        """Write the weights of a point into the model: to the bit those that ``unival merge`` writes to a file.

        Raises:
            UserError: the method cannot be used with these options.
        """
        found = method_named(self.method)
        rule, _ = make_rule(self.method, point.options)
        self._state = merged(self.inputs, rule, point.coefficients, found.whole, found.shares, self._state, self.statistics)
        for key, value in self._values.items():
            if value.data_ptr() != self._state[key].data_ptr():
                value.copy_(self._state[key])

    def round_statistics(self) -> None:
        """Round statistics of batch norms that were computed again as a merged file would."""
        assert self._state is not None, "move comes first"
        for key, value in self._values.items():
            if STATISTICS.search(key) and value.data_ptr() != self._state[key].data_ptr():
                value.copy_(self._state[key].copy_(value))

    def module(self, like: Checkpoint, task: UnivalTask) -> Any:
        """A model with the options of one of the checkpoints, in eval mode; built once.

        Args:
            like: the checkpoint.
            task: a task that it is used with, whose positions are limited to those of the model.

        Raises:
            UserError: the merged weights do not fit the options.
        """
        assert self._state is not None, "move comes first"
        if like.name in self._modules:
            task.fit_positions(self._modules[like.name].cfg)
            return self._modules[like.name]
        container = merged_container(self._state, like, {})
        cfg = OmegaConf.create({"model": container["cfg"]["model"]}, flags={"allow_objects": True}).model
        model = task.build_model(cfg, from_checkpoint=True)
        model.load_state_dict(fit_to_checkpoint(model, self._shared(self._state)), assign=True)
        self._modules[like.name] = model.requires_grad_(False).eval()
        return self._modules[like.name].to(self.device)  # what is no weight, such as buckets of positions

    def _shared(self, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        if not self._values:
            copies: dict[int, Tensor] = {}  # tied weights stay one tensor
            for key, value in state.items():
                if id(value) not in copies:
                    floating = value.is_floating_point()
                    copies[id(value)] = value.to(self.device, torch.float32 if floating else value.dtype)
                self._values[key] = copies[id(value)]
        return self._values
