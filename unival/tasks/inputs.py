"""Where a task's inputs come from: its tables, and how their media become tensors."""

import pathlib
from argparse import Namespace
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from fairseq.criterions import CRITERION_REGISTRY
from fairseq.models import ARCH_MODEL_NAME_REGISTRY

from unival.checkpoints.published import model_options
from unival.errors import UserError
from unival.instructions import Instruction
from unival.modalities.base import MediaOptions

SUFFIXES = (".jsonl", ".tsv")
LAST_CHECKPOINT = "checkpoint_last.pt"  # fairseq's default of --restore-file: resume where a run stopped
PLAIN_CRITERIONS = ("cross_entropy", "label_smoothed_cross_entropy")
TRAINING_ONLY = ("sample_type", "use_dataaug")  # media options that evaluation does not use


def given_media_options(cfg: Any, default: MediaOptions) -> MediaOptions:
    """``default``, changed by the options that a task's configuration gives (older checkpoints lack some)."""
    given = {name: cfg[name] for name in vars(default) if name in cfg and cfg[name] is not None}
    return replace(default, **given)


def is_published_cfg(cfg: Any) -> bool:
    """Whether a checkpoint's model or task options are those of the published UnIVAL or OFA."""
    return "code_dict_size" in cfg or "orig_patch_image_size" in cfg and "modalities" not in cfg


def restored_file(cfg: Any) -> pathlib.Path | None:
    """The checkpoint that fairseq will start training from; None for a fresh start.

    Raises:
        UserError: the file named is not there (fairseq would start afresh without a word).
    """
    if cfg.restore_file != LAST_CHECKPOINT:
        option, given = "--restore-file", pathlib.Path(cfg.restore_file)
    else:
        last = pathlib.Path(cfg.save_dir) / LAST_CHECKPOINT
        if last.is_file() or not cfg.finetune_from_model:
            return last if last.is_file() else None
        option, given = "--finetune-from-model", pathlib.Path(cfg.finetune_from_model)
    if not given.is_file():
        raise UserError(f"{option} {given}: no such checkpoint")
    return given


def saved_model_options(container: Mapping[str, Any]) -> dict[str, Any]:
    """The model's options in a checkpoint, ours or published; empty when it holds none."""
    cfg = container.get("cfg") or {}
    saved = cfg.get("model") or container.get("args") or {}
    if is_published_cfg(saved):
        return model_options(saved)
    return dict(vars(saved) if isinstance(saved, Namespace) else saved)


def refuse_other_models(cfg: Any) -> None:
    """Only our models are built from a checkpoint's options: fairseq evaluates strings in the options of some of its own as Python.

    Raises:
        UserError: the options are of another model.
    """
    name = vars(cfg).get("_name") if isinstance(cfg, Namespace) else cfg.get("_name")
    if ARCH_MODEL_NAME_REGISTRY.get(name, name) != "unival":
        raise UserError(f"the checkpoint is of fairseq's model {name!r}, not of unival")


def refuse_other_criterions(cfg: Any) -> None:
    """Likewise for criterions: ours, those of other plugins and two plain ones of fairseq's.

    Raises:
        UserError: the criterion is another one of fairseq's.
    """
    name = cfg._name
    known = CRITERION_REGISTRY.get(name)
    if known is not None and known.__module__.startswith("fairseq.") and name not in PLAIN_CRITERIONS:
        ours = ", ".join(key for key in CRITERION_REGISTRY if key.startswith("unival_"))
        raise UserError(f"criterion {name!r} does not go with this task; choose from {ours}, {', '.join(PLAIN_CRITERIONS)}")


def media_of(instructions: Sequence[Instruction]) -> set[str]:
    """Names, in lower case, of the media in the sources of an instruction's alternatives."""
    slots = [slot for instruction in instructions for slot in instruction.source]
    return {slot.modality.lower() for slot in slots if slot.modality != "TEXT"}


def data_folder(data: str) -> pathlib.Path:
    """The folder that the tables of ``data`` are in.  Raises UserError when there is no such place."""
    path = pathlib.Path(data.split(",")[0])
    if not path.exists():
        raise UserError(f"{path}: no such table or folder")
    return path if path.is_dir() else path.parent


def find_table(data: str, split: str) -> pathlib.Path:
    """The table of a split.

    Raises:
        UserError: there is none, or more than one.
    """
    data_folder(data)  # complains when there is no such place
    parts = data.split(",")
    if len(parts) == 1 and pathlib.Path(data).is_dir():
        folder = pathlib.Path(data)
        found = [folder / f"{split}{suffix}" for suffix in SUFFIXES if (folder / f"{split}{suffix}").is_file()]
        if len(found) == 1:
            return found[0]
        there = sorted(p.name for p in folder.iterdir() if p.suffix in SUFFIXES)
        reason = (
            f"both {found[0].name} and {found[1].name} are there"
            if found
            else f"neither {split}.jsonl nor {split}.tsv is there"
        )
        raise UserError(
            f"{folder}: no table for split {split!r}: {reason}; tables in the folder: {', '.join(there) or 'none'}"
        )
    if len(parts) > 2:
        raise UserError(f"data {data!r}: give a folder, one table, or TRAIN,VALID")
    path = pathlib.Path(parts[0] if split == "train" else parts[-1])
    if not path.is_file():
        raise UserError(f"{path}: no such table or folder (split {split!r})")
    return path
