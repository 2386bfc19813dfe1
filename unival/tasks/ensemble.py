"""Several models in one ``--path``: they read the same rows, so they must have been trained to read them alike."""

from collections.abc import Mapping
from typing import Any

from fairseq import utils

from unival.errors import UserError
from unival.modalities.composed import TRAINING_ONLY
from unival.tasks import restore


def check_ensemble(cfg: Any) -> None:
    """Refuse an ensemble whose models were trained with different inputs or answers, unless the command line says which to use.

    Args:
        cfg: the task's options; ``path`` names the checkpoints.

    Raises:
        UserError: they differ, or a checkpoint cannot be read.
    """
    paths = utils.split_paths(cfg.path)
    if len(paths) < 2:
        return
    trained = [_trained_with(path) for path in paths]
    for name, first in trained[0].items():
        is_given = name in cfg and cfg[name] is not None and not isinstance(cfg[name], bool)
        for path, other in zip(paths, trained, strict=True):
            if other[name] != first and not is_given:
                option = f"--{name.replace('_', '-')}"
                values = "" if name == "closed_set" else f" ({first} and {other[name]})"
                advice = "" if isinstance(first, bool) else f"give {option}, or "
                raise UserError(
                    f"--path: {paths[0]} and {path} were trained with different {option}{values}, and an ensemble reads every row"
                    f" once: {advice}use models that were trained alike"
                )


def _trained_with(path: str) -> dict[str, Any]:
    """What a checkpoint's training decided about rows and answers, by the name of the task's option."""
    container = restore.read_for_fairseq(path)
    state: Mapping[str, Any] = container.get("task_state") or {}
    saved = restore.our_task_options((container.get("cfg") or {}).get("task") or {})
    media = restore.trained_media(state.get("media", saved))
    found = {name: value for name, value in vars(media).items() if name not in TRAINING_ONLY}
    instruction = state.get("instruction") or restore.trained_instruction(saved)
    return {**found, "instruction": instruction, "closed_set": tuple(state.get("closed_set", ()))}
