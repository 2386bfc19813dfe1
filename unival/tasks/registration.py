"""Register presets as tasks of fairseq."""

from typing import Any

from fairseq.tasks import TASK_REGISTRY, register_task

from unival.errors import UserError
from unival.tasks.base import UnivalTask
from unival.tasks.config import UnivalTaskConfig
from unival.tasks.presets import PRESETS, Preset


def register_preset(preset: Preset, base: type[UnivalTask] = UnivalTask) -> type[UnivalTask]:
    """Register a preset as a ``--task``; registering the same preset again has no effect.

    Args:
        preset: the preset.
        base: class of the task; a subclass may override hooks, where data do not suffice.

    Returns:
        The class of the task.

    Raises:
        UserError: another task has this name.
    """
    known = TASK_REGISTRY.get(preset.name)
    if known is not None:  # fairseq would silently return it
        if getattr(known, "preset", None) != preset:
            raise UserError(f"task {preset.name!r} is registered already, by {known.__module__}: give the preset another name")
        return known
    name = "".join(part.capitalize() for part in preset.name.split("_")) + "Task"
    members = {"__doc__": preset.about, "__module__": __name__, "__reduce__": _reduce, "preset": preset}
    cls = register_task(preset.name, dataclass=UnivalTaskConfig)(type(name, (base,), members))
    PRESETS[preset.name] = preset
    return cls


def _reduce(task: UnivalTask) -> tuple[Any, ...]:
    """Copy and pickle a task by its preset, so that a process that has not registered it finds its class, too."""
    return _without_state, (task.preset, type(task).__base__), vars(task)


def _without_state(preset: Preset, base: type[UnivalTask]) -> UnivalTask:
    cls = register_preset(preset, base)
    return cls.__new__(cls)
