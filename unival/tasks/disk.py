"""Room for the checkpoints that a run will keep: estimated and compared with what is free before the run begins."""

import logging
import math
import pathlib
import shutil
from typing import Any

from torch import nn

from unival.errors import UserError

logger = logging.getLogger(__name__)

BYTES = 4  # of a number: checkpoints hold float32 also where training used half precision
ADAM = 2  # numbers that the optimizer keeps per trained weight


def checkpoint_bytes(model: nn.Module, optimizer_state: bool, ema: bool) -> int:
    """About how large a checkpoint will be: weights, Adam's state and moving averages (float32)."""
    tensors = {value.data_ptr(): value.numel() for value in model.state_dict().values()}  # tied weights count once
    weights = sum(tensors.values())
    trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
    return BYTES * (weights * (1 + ema) + ADAM * trained * optimizer_state)


def kept_checkpoints(cfg: Any, rows: float) -> dict[str, float]:
    """How many checkpoints of each kind will lie in the folder at the end; infinite where nothing limits them.

    Args:
        cfg: :class:`unival.tasks.run_options.RunOptions`.
        rows: of the table to train on; of several the mean.
    """
    batch = (cfg.batch_size or 1) * cfg.distributed_world_size * int((list(cfg.update_freq) or [1])[0])
    updates_per_epoch = max(1, math.ceil(rows / batch))
    epochs, updates = cfg.max_epoch or math.inf, cfg.max_update or math.inf
    epochs, updates = min(epochs, _whole(updates, updates_per_epoch)), min(updates, epochs * updates_per_epoch)
    validates = not cfg.disable_validation
    kept: dict[str, float] = {"last": not cfg.no_last_checkpoints, "best": validates}
    if validates and cfg.validate_with != "model":
        kept["best_ema"] = 1
    if validates and cfg.keep_best_checkpoints > 0:
        kept["best by score"] = cfg.keep_best_checkpoints
    if not cfg.no_epoch_checkpoints:
        kept["of epochs"] = _limited(_whole(epochs, cfg.save_interval), cfg.keep_last_epochs)
    if cfg.save_interval_updates > 0:
        kept["of updates"] = _limited(_whole(updates, cfg.save_interval_updates), cfg.keep_interval_updates)
    return {kind: count for kind, count in kept.items() if count}


def _whole(count: float, every: int) -> float:
    return count if math.isinf(count) else count // every


def _limited(count: float, keep: int) -> float:
    return min(count, keep) if keep > 0 else count


def check_space(cfg: Any, model: nn.Module, rows: float) -> str:
    """Compare what is free with what will be kept; returns what was found in a few words.  Warns when not all will fit.

    Raises:
        UserError: not even the first two checkpoints will fit beside the copy that a checkpoint is while it is written,
            or not that copy into what is free now: files of an earlier run are replaced only when it is complete.
    """
    kept = {} if cfg.no_save else kept_checkpoints(cfg, rows)
    if not kept:
        return "no checkpoints are kept"
    size = checkpoint_bytes(model, not cfg.no_save_optimizer_state, cfg.store_ema)
    folder = pathlib.Path(cfg.save_dir)
    existing = next(place for place in (folder, *folder.absolute().parents) if place.is_dir())
    free = shutil.disk_usage(existing).free
    there = {file.name: file.stat().st_size for file in folder.glob("checkpoint*.pt")} if folder.is_dir() else {}
    replaced = sum(there.get(f"checkpoint_{kind}.pt", 0) for kind in kept)  # the others stay for a while, or for good
    count = sum(kept.values())
    kinds = ", ".join(f"{'any number' if math.isinf(n) else int(n)} {kind}" for kind, n in kept.items())
    found = f"{shown(free)} free for checkpoints of about {shown(size)}"
    if free < size or free + replaced < size * (min(count, 2) + 1):
        raise UserError(
            f"--save-dir {folder}: {found}: too little for the first ones ({kinds}) and the copy that a checkpoint is while it is"
            " written; free some space, or give another --save-dir, --no-save-optimizer-state or --no-save"
        )
    if free + sum(there.values()) < size * (count + 1):
        total = "without limit" if math.isinf(count) else f"{shown(size * count)} in all"
        logger.warning(
            "--save-dir %s: %s, and %s will be kept, %s; --no-epoch-checkpoints, --keep-last-epochs N and"
            " --keep-interval-updates N keep fewer",
            *(folder, found, kinds, total),
        )
    return found


def shown(size: float) -> str:
    """Bytes for people."""
    unit, name = next(((u, n) for u, n in ((1e9, "GB"), (1e6, "MB")) if size >= u), (1e3, "kB"))
    return f"{size / unit:.1f} {name}"
