"""A stage that keeps the state of the optimizer (``keep_optimizer``): Adam's moments go on, the schedule begins anew."""

import logging
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from torch import nn

from unival.errors import counted
from unival.tasks.pretraining.values import Place
from unival.tasks.restore import Start, differs_from, last_checkpoint

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class KeptOptimizer:
    """The state of the optimizer in the checkpoint that a stage starts from."""

    state: Mapping[str, Any]
    start: Start
    place: Place  # where the mixture file asks for it

    def fitted(self, model: nn.Module) -> "KeptOptimizer":
        """The state for the parameters that a model trains; those that the checkpoint's model lacks, such as of a new modality, begin anew.

        Raises:
            UserError: the state is of other parameters.
        """
        if not differs_from(self.state, model):
            return self
        trained = {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}
        places = {name: place for place, name in enumerate(trained)}
        before = [name for name in self.start.container["model"] if name in trained]  # in the order of its parameters
        group, *others = self.state["param_groups"]
        if others or len(group["params"]) != len(before):
            raise self.place.error(f"the optimizer of {self.start.path} trained other parameters than this stage does")
        numbers = zip(before, group["params"], strict=True)
        moved = {places[name]: self.state["state"][number] for name, number in numbers if number in self.state["state"]}
        logger.info("new to the optimizer: %s", counted(len(trained) - len(before), "parameter tensor"))
        return replace(self, state={**self.state, "state": moved, "param_groups": [{**group, "params": list(range(len(trained)))}]})


def kept_optimizer(cfg: Any, start: Start | None, place: Place) -> KeptOptimizer | None:
    """The state to go on with; None: the run is resumed, and fairseq loads its own.

    Raises:
        UserError: there is no checkpoint, or it has no state.
    """
    if last_checkpoint(cfg).is_file():
        return None
    if start is None or cfg.finetune_from_model is None:
        raise place.error("give --finetune-from-model, the last checkpoint of the stage before")
    state = start.container.get("last_optimizer_state")
    if not isinstance(state, Mapping) or "param_groups" not in state:
        raise place.error(f"{start.path} has no state of an optimizer (--no-save-optimizer-state?)")
    run = cfg._get_root()
    distribution = run.distributed_training if "distributed_training" in run else None
    if distribution is not None and (distribution.zero_sharding != "none" or distribution.ddp_backend == "fully_sharded"):
        raise place.error("does not go with --zero-sharding and --ddp-backend fully_sharded")
    return KeptOptimizer(state, start, place)


def put_into(optimizer: Any, kept: KeptOptimizer) -> None:
    """Give an optimizer the state of the stage before; its options (learning rate, decay …) stay those of this run."""
    own = [{name: value for name, value in group.items() if name != "params"} for group in optimizer.param_groups]
    optimizer.load_state_dict(kept.state)
    for group, options in zip(optimizer.param_groups, own, strict=True):
        group.update(options)
    logger.info("the optimizer goes on with its state in %s", kept.start.path)
