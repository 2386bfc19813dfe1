"""What a merged checkpoint holds besides weights: options and state of one of its models, and how it was made."""

import hashlib
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor

from unival.checkpoints.architecture import identify
from unival.checkpoints.convert import new_container
from unival.checkpoints.describe import files_of
from unival.checkpoints.merging.inputs import Checkpoint
from unival.checkpoints.names.published import is_published, rename_published
from unival.checkpoints.namespace import unwrapped
from unival.checkpoints.published_options import is_published_cfg, model_options
from unival.checkpoints.shapes import options_from_weights
from unival.errors import UserError

BLOCK = 1 << 20  # bytes that are hashed at a time


def sha256(path: str | pathlib.Path) -> str:
    """Hash of a checkpoint's file, or of its shards one after the other, as ``sha256sum`` gives it."""
    digest = hashlib.sha256()
    for file in files_of(pathlib.Path(path)):
        with file.open("rb") as opened:
            while block := opened.read(BLOCK):
                digest.update(block)
    return digest.hexdigest()


def record(models: Sequence[str], base: str | None, method: str, **more: Any) -> dict[str, Any]:
    """How a checkpoint was merged: kept in it, shown by ``unival inspect``.

    Args:
        models: paths of the models.
        base: path of the base.
        method: name of the method.
        more: what else was decided: the method's options, coefficients, which weights were taken.
    """
    pretrained = file_record(base) if base else None
    return {"format": "merge", "files": [file_record(path) for path in models], "base": pretrained, "method": method, **more}


def file_record(path: str) -> dict[str, str]:
    """Name and hash of a file."""
    return {"file": pathlib.Path(path).name, "sha256": sha256(path)}


def merged_container(state: Mapping[str, Tensor], like: Checkpoint, made_from: Mapping[str, Any]) -> dict[str, Any]:
    """Make the container of merged weights, with options and state of the task of one of the models.

    Sizes and media that the weights determine are written into the options, since models that lack keys of others may be merged.

    Args:
        state: the merged weights.
        like: the model whose task and instruction the result has.
        made_from: the record.

    Raises:
        UserError: the weights are no whole model.
    """
    cfg = like.container.get("cfg")
    kind = identify(like.container, state).kind
    if cfg is None:
        return {"model": dict(state), "extra_state": {"converted_from": dict(made_from)}}
    if kind in ("unival", "published") and list(state) != list(like.state):  # published options may not name what is there: ours do
        state, kind = dict(state), "unival"
        if is_published(state):
            rename_published(state)
        try:
            sizes = options_from_weights(state)
        except UserError as error:
            raise UserError(f"the merged weights are no model: {error}") from error
        model = unwrapped(cfg["model"])
        given = model_options(model) if is_published_cfg(model) else model
        cfg = {**cfg, "model": {"_name": "unival", **given, **sizes}}
    return new_container(state, cfg, like.container.get("task_state") or {}, made_from, kind != "unival")
