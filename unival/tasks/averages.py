"""Moving averages of the weights (fairseq's ``--store-ema``): how they start, validation with them, the best of them as a checkpoint."""

import logging
import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from fairseq.logging import metrics as log
from torch import nn

from unival.checkpoints.files import ema_weights, read, write
from unival.checkpoints.recovery import look_at
from unival.errors import UserError
from unival.tasks.restore import Start, last_checkpoint

logger = logging.getLogger(__name__)

BESIDE = "_model:"  # prefix of summed values of the weights themselves, validated beside their average; fairseq does not show them
SHOWN = "model_"  # prefix of the scores that follow from these


def check_average(cfg: Any) -> None:
    """Check the options of moving averages.

    Raises:
        UserError: ``--validate-with`` needs the average, and the run keeps none.
    """
    if cfg.validate_with != "model" and not cfg.store_ema:
        raise UserError(f"--validate-with {cfg.validate_with}: give --store-ema, too, which keeps the moving average of the weights")


def start_from_weights(cfg: Any, start: Start | None) -> bool:
    """Let the average start from the weights of a checkpoint that has none: fairseq would look for it and fail.

    ``--store-ema`` is off while fairseq loads the checkpoint; :func:`keep_average` turns it on before the first update, when fairseq
    makes the average from the weights that the model has then.

    Returns:
        Whether it was turned off.
    """
    if start is None or not cfg.store_ema:
        return False
    if (start.container.get("extra_state") or {}).get("ema"):
        updates, every = (start.container.get("optimizer_history") or [{}])[-1].get("num_updates", 0), cfg.ema_update_freq
        if updates % every and start.path.resolve() == last_checkpoint(cfg).resolve():
            said = "%s is of update %d: fairseq counts the updates between those of the average (--ema-update-freq %d) anew from here on"
            logger.warning(f"{said}, so that it differs from that of a run without a stop", start.path, updates, every)
        return False
    cfg._get_root().ema.store_ema = False
    logger.info("%s has no moving average (EMA): it starts from the weights", start.path)
    return True


def keep_average(cfg: Any) -> None:
    """Turn ``--store-ema`` on again."""
    cfg._get_root().ema.store_ema = True


def validated(which: str, model: nn.Module, average: nn.Module | None) -> tuple[nn.Module, nn.Module | None]:
    """The models of a validation by ``--validate-with``: the one whose scores choose the best checkpoint, and one beside it or None."""
    if average is None or which == "model":
        return model, None
    return average, model if which == "both" else None


def beside(logging_output: Mapping[str, Any]) -> dict[str, Any]:
    """Values to log of the model beside, under names that do not meet those of the first."""
    return {f"{BESIDE}{key}": value for key, value in logging_output.items()}


def log_beside(logging_outputs: Sequence[Mapping[str, Any]], reduce: Sequence[Callable[[list[dict[str, Any]]], None]]) -> None:
    """Log the scores of the model beside, as ``model_<name>``.

    Args:
        logging_outputs: of a batch, all values in them sums over rows.
        reduce: functions that log scores, given values without the prefix.
    """
    keys = sorted({key for output in logging_outputs for key in output if key.startswith(BESIDE)})
    if not keys:
        return
    batch = {key: float(sum(output.get(key, 0.0) for output in logging_outputs)) for key in keys}
    for key, value in batch.items():
        log.log_scalar(key, value)

    def scores(sums: Mapping[str, float]) -> Mapping[str, float]:
        with log.aggregate(new_root=True) as found:
            for each in reduce:
                each([{key.removeprefix(BESIDE): value for key, value in sums.items()}])
        return found.get_smoothed_values()

    def score_of(name: str) -> Callable[[Any], float]:
        return lambda meters: scores({key: float(meters[key].sum) for key in keys})[name]

    for name in scores(batch):
        log.log_derived(f"{SHOWN}{name}", score_of(name))


def keep_best(folder: pathlib.Path, suffix: str) -> None:
    """Write ``checkpoint_best_ema.pt``, unless it is of the same update as ``checkpoint_best.pt`` already.

    Its weights are the average in ``checkpoint_best.pt``, in float32 if that was kept; it has no state of the optimizer.

    Args:
        folder: folder of the run's checkpoints.
        suffix: suffix of their names (``--checkpoint-suffix``).
    """
    path, target = folder / f"checkpoint_best{suffix}.pt", folder / f"checkpoint_best_ema{suffix}.pt"
    best, present = look_at(path), look_at(target)
    if best is None or (present is not None and (present.updates, present.score) == (best.updates, best.score)):
        return
    container = read(path)
    extra = container["extra_state"]
    if not extra.get("ema"):
        return  # of before the run kept an average
    rest = {key: value for key, value in extra.items() if key not in ("ema", "ema_fp32_params")}
    average = {"model": ema_weights(container, path), "extra_state": {**rest, "weights": "ema"}, "last_optimizer_state": None}
    write(target, {**container, **average})
    logger.info("the moving average of %s is %s", path.name, target)


def check_validated_weights(path: str | pathlib.Path) -> None:
    """Check that fairseq-validate, which uses a checkpoint's own options, can be given ``--weights ema``.

    Raises:
        UserError: the checkpoint is older than that option, or published.
    """
    saved = (read(path).get("cfg") or {}).get("task") or {}
    if "weights" not in saved:
        raise UserError(f"{path}: its options know no --weights; `unival convert --ema` makes a checkpoint of its moving average")
