"""The limit of a run's hours: fairseq's ``--stop-time-hours`` counts the training before the checkpoint that a run starts from as well.

A run that only takes weights, as in fine-tuning or in the next stage of a curriculum, has the whole of its limit.
"""

from typing import Any

from unival.tasks.restore import LAST_CHECKPOINT, Start, last_checkpoint


def seconds_before(cfg: Any, start: Start | None) -> float:
    """Seconds of training that fairseq counts and that belong to earlier runs: those of the checkpoint that a new run starts from.

    Args:
        cfg: the task's options.
        start: the checkpoint that training starts from; a run that goes on, in its own folder or by ``--restore-file``, finds there what
            it began with.
    """
    if start is None:
        return 0.0
    goes_on = cfg.restore_file != LAST_CHECKPOINT or start.path.resolve() == last_checkpoint(cfg).resolve()
    if goes_on:
        return (start.container.get("task_state") or {}).get("seconds_before", 0.0)
    return start.container["extra_state"].get("previous_training_time", 0.0)


def extend_limit(cfg: Any, seconds: float) -> None:
    """Add the seconds of earlier runs to the run's limit, if it has one."""
    if seconds and cfg._get_root().optimization.stop_time_hours > 0:  # a task of its own is no part of a run, and has no seconds
        cfg._get_root().optimization.stop_time_hours += seconds / 3600
