"""Several models in one ``--path``: they read the same rows, so they must have been trained to read them alike."""

import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

from unival.errors import UserError, flag


def check_ensemble(cfg: Any, paths: Sequence[pathlib.Path], trained: Sequence[Mapping[str, Any]]) -> None:
    """Refuse an ensemble whose models were trained with different inputs or answers, unless the command line says which to use.

    Args:
        cfg: the task's options.
        paths: the checkpoints.
        trained: what each was trained with, by the names of options.

    Raises:
        UserError: they differ.
    """
    for name, first in trained[0].items():
        is_given = name in cfg and cfg[name] is not None and not isinstance(cfg[name], bool)
        for path, other in zip(paths, trained, strict=True):
            if other.get(name) != first and not is_given:
                option = flag(name)
                values = "" if name == "closed_set" else f" ({first} and {other.get(name)})"
                advice = "" if isinstance(first, bool) else f"give {option}, or "
                raise UserError(
                    f"--path: {paths[0]} and {path} were trained with different {option}{values}, and an ensemble reads every row"
                    f" once: {advice}use models that were trained alike"
                )
