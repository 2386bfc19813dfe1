"""Presets as fairseq's tasks."""

from typing import Any

from fairseq.tasks import TASK_REGISTRY, register_task

from unival.errors import UserError
from unival.tasks.base import UnivalTask
from unival.tasks.config import UnivalTaskConfig
from unival.tasks.presets import PRESETS, Preset


def register_preset(preset: Preset, base: type[UnivalTask] = UnivalTask) -> type[UnivalTask]:
    """Make a preset a ``--task``; returns the class of such tasks.  A preset that is registered already is not registered again.

    Args:
        preset: of this package, or of anybody else's.
        base: a class with hooks of its own, where data do not suffice.

    Raises:
        UserError: there is another task of this name.
    """
    known = TASK_REGISTRY.get(preset.name)
    if known is not None:  # fairseq would return it without a word
        if getattr(known, "preset", None) != preset:
            raise UserError(f"task {preset.name!r} is registered already, by {known.__module__}: give the preset another name")
        return known
    name = "".join(part.capitalize() for part in preset.name.split("_")) + "Task"
    members = {"__doc__": preset.about, "__module__": __name__, "__reduce__": _reduce, "preset": preset}
    cls = register_task(preset.name, dataclass=UnivalTaskConfig)(type(name, (base,), members))
    PRESETS[preset.name] = preset
    return cls


def _reduce(task: UnivalTask) -> tuple[Any, ...]:
    """How such a task is copied and pickled: its class is found by its preset, also in a process that has not registered it yet."""
    return _without_state, (task.preset, type(task).__base__), vars(task)


def _without_state(preset: Preset, base: type[UnivalTask]) -> UnivalTask:
    cls = register_preset(preset, base)
    return cls.__new__(cls)
