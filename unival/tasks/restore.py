"""Checks of the checkpoint of a run before fairseq loads it."""

import logging
import pathlib
from argparse import Namespace
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from fairseq.criterions import CRITERION_REGISTRY
from fairseq.models import ARCH_MODEL_NAME_REGISTRY
from torch import Tensor, distributed, nn

from unival.checkpoints.adapters import MARK
from unival.checkpoints.files import read
from unival.checkpoints.published_options import is_published_cfg, model_options
from unival.checkpoints.recovery import is_cut_short, mend, whole_beside
from unival.errors import UserError, flag
from unival.models.config import silent_options
from unival.models.fitting import lacks_weights

logger = logging.getLogger(__name__)

LAST_CHECKPOINT = "checkpoint_last.pt"  # fairseq's default of --restore-file: resume where a run stopped
PLAIN_CRITERIONS = ("cross_entropy", "label_smoothed_cross_entropy")


def last_checkpoint(cfg: Any) -> pathlib.Path:
    """The path of a run's newest checkpoint, from which it resumes."""
    return pathlib.Path(cfg.save_dir) / f"checkpoint_last{cfg.checkpoint_suffix}.pt"


def restored_file(cfg: Any) -> pathlib.Path | None:
    """The checkpoint that fairseq will start training from; None for a fresh start.

    The folder of a run that was stopped while saving is repaired first, see :mod:`unival.checkpoints.recovery`.

    Raises:
        UserError: the file does not exist (fairseq would silently start afresh) or is truncated; the run has no complete checkpoint.
    """
    last = last_checkpoint(cfg)
    named = None if cfg.restore_file == LAST_CHECKPOINT else cfg.restore_file.replace(".pt", f"{cfg.checkpoint_suffix}.pt")
    if named and cfg.finetune_from_model:
        raise UserError("give --restore-file or --finetune-from-model, not both")
    starts = {"--finetune-from-model": cfg.finetune_from_model, "--continue-once": cfg.continue_once}
    if named is None or pathlib.Path(named).resolve() == last.resolve():
        _mend_together(last.parent, cfg.checkpoint_suffix, {pathlib.Path(path).resolve() for path in starts.values() if path})
        if last.is_file():
            return last
    elif last.is_file():
        logger.warning("training starts again from --restore-file %s; without that option it resumes from %s", named, last)
    given = {"--restore-file": named, **starts} if named else starts
    option = next((option for option in ("--restore-file", "--continue-once", "--finetune-from-model") if given.get(option)), None)
    if option is None:
        return None
    path = pathlib.Path(given[option])
    if not path.is_file():
        raise UserError(f"{option} {path}: no such checkpoint")
    if is_cut_short(path):
        raise UserError(f"{option} {path}: the file is cut short; {whole_beside(path)}")
    return path


def _mend_together(folder: pathlib.Path, suffix: str, besides: set[pathlib.Path]) -> None:
    """Repair a run's folder in the first process while the others wait; all fail if that one does.

    Raises:
        UserError: see :func:`unival.checkpoints.recovery.mend`.
    """
    together = distributed.is_available() and distributed.is_initialized()
    failure: list[str | None] = [None]
    if not together or distributed.get_rank() == 0:
        try:
            said = mend(folder, suffix, besides)
            if said:
                logger.warning(said)
        except (UserError, OSError) as error:
            failure = [str(error)]
    if together:
        distributed.broadcast_object_list(failure, src=0)
    if failure[0] is not None:
        raise UserError(failure[0])


def read_for_fairseq(path: str | pathlib.Path) -> dict[str, Any]:
    """Read a checkpoint safely, and check that fairseq can load it, too.

    Raises:
        UserError: it was refused, or does not have the format of fairseq's checkpoints.
    """
    container = read(path)
    if MARK in container:
        raise UserError(f"{path}: is an adapter; `unival adapter stack` makes a checkpoint of its base and it")
    advice = "`unival convert` makes a checkpoint of it that fairseq can load"
    if pathlib.Path(path).suffix == ".safetensors":
        raise UserError(f"{path}: fairseq reads no safetensors; {advice} (give it a name that ends in .pt)")
    lacking = [name for name in ("model", "optimizer_history", "extra_state") if name not in container]
    if lacking or not (container.get("cfg") or container.get("args")):
        raise UserError(f"{path}: is no checkpoint of fairseq (it lacks {', '.join(lacking) or 'cfg'}); {advice}")
    return container


@dataclass(frozen=True)
class Start:
    """The checkpoint that training starts from, until the run begins."""

    path: pathlib.Path
    container: Mapping[str, Any]


def open_start(cfg: Any) -> Start | None:
    """Read the checkpoint that training will start from; None for a fresh start.

    Raises:
        UserError: see :func:`restored_file` and :func:`read_for_fairseq`.
    """
    path = restored_file(cfg)
    return None if path is None else Start(path, read_for_fairseq(path))


def end_if_finished(cfg: Any, start: Start) -> None:
    """End a run that is finished, with exit code 0, before its model is built; beyond ``--max-update`` fairseq would make one more update.

    Raises:
        SystemExit: the run's own last checkpoint has ``--max-update`` updates or ``--max-epoch`` epochs, or more.
    """
    path, container = start.path, start.container
    is_own = path.resolve() == last_checkpoint(cfg).resolve()
    history = container["optimizer_history"]
    if not is_own or cfg.reset_optimizer or not history or container.get("last_optimizer_state") is None:
        return
    position = container["extra_state"].get("train_iterator") or {}
    if cfg.max_epoch and not cfg.reset_dataloader and position.get("epoch", 0) > cfg.max_epoch:
        logger.info("%s: --max-epoch %d is reached: nothing is left to do (a larger number goes on)", path, cfg.max_epoch)
        raise SystemExit(0)
    updates = history[-1].get("num_updates", 0)
    if cfg.max_update and updates >= cfg.max_update:
        logger.info(
            "%s: has all updates of --max-update %d (it has made %d): nothing is left to do (a larger number goes on)",
            *(path, cfg.max_update, updates),
        )
        raise SystemExit(0)


def check_trained(cfg: Any, start: Start, model: nn.Module) -> None:
    """Check that a run which goes on with the optimizer state of its checkpoint trains the same parameters.

    Weights that do not fit are left to loading, which names them.

    Raises:
        UserError: the state is of another number of parameters.
    """
    state = start.container.get("last_optimizer_state")
    is_new = cfg.finetune_from_model is not None and not last_checkpoint(cfg).is_file()
    if not isinstance(state, Mapping) or "param_groups" not in state or cfg.reset_optimizer or is_new:
        return
    if differs_from(state, model) and not lacks_weights(model, start.container["model"]):
        other = "another --save-dir" if cfg.finetune_from_model is not None else "--reset-optimizer"  # fairseq refuses both together
        raise UserError(
            f"{start.path}: its optimizer trained other parameters than this run does: give that run's --trainable, --freeze, --peft"
            f" and the like, or {other}"
        )


def differs_from(state: Mapping[str, Any], model: nn.Module) -> bool:
    """Whether the state of an optimizer is of another number of parameters than a model trains."""
    sizes = [parameter.numel() for parameter in model.parameters() if parameter.requires_grad]
    saved = sum(len(group["params"]) for group in state["param_groups"])
    if saved != 1:
        return saved != len(sizes)
    values = [value for each in state["state"].values() for value in each.values()]  # --fp16 makes one of all
    flat = {value.numel() for value in values if isinstance(value, Tensor) and value.dim()}
    return bool(flat) and sum(sizes) not in flat


def saved_model_options(container: Mapping[str, Any]) -> dict[str, Any]:
    """The model's options in a checkpoint, ours or published; empty if there are none."""
    cfg = container.get("cfg") or {}
    saved = cfg.get("model") or container.get("args") or {}
    if is_published_cfg(saved):
        return model_options(saved)
    return dict(vars(saved) if isinstance(saved, Namespace) else saved)


def warn_of_silent_options(container: Mapping[str, Any], model: Any) -> None:
    """Warn where the options of a model differ from those of its checkpoint without effect on keys and shapes of weights."""
    saved = saved_model_options(container)
    silent = silent_options(model.encoder.media) | ({"lora_alpha"} if saved.get("peft") else set())
    for name, value in saved.items():
        if name in silent and model.cfg[name] != value:
            logger.warning("%s %s, but the checkpoint was trained with %s", flag(name), model.cfg[name], value)


def refuse_other_models(cfg: Any) -> None:
    """Refuse to build models other than ours from a checkpoint's options: some of fairseq's evaluate strings in them as Python.

    Raises:
        UserError: the options are of another model.
    """
    name = vars(cfg).get("_name") if isinstance(cfg, Namespace) else cfg.get("_name")
    if ARCH_MODEL_NAME_REGISTRY.get(name, name) != "unival":
        raise UserError(f"the checkpoint is of fairseq's model {name!r}, not of unival")


def refuse_other_criterions(cfg: Any) -> None:
    """Refuse criterions other than ours, those of other plugins and two plain ones of fairseq's, for the same reason.

    Raises:
        UserError: the criterion is another one of fairseq's.
    """
    name = cfg._name
    known = CRITERION_REGISTRY.get(name)
    if known is not None and known.__module__.startswith("fairseq.") and name not in PLAIN_CRITERIONS:
        ours = ", ".join(key for key in CRITERION_REGISTRY if key.startswith("unival_"))
        raise UserError(f"criterion {name!r} does not go with this task; choose from {ours}, {', '.join(PLAIN_CRITERIONS)}")
