"""Fits a checkpoint and a model with different media to each other, between building the model and loading the weights.

``load_state_dict`` itself only copies values.  To start from any checkpoint, call :func:`fit_to_checkpoint` first.  The Python API does,
and ``UnivalModel.load_state_dict`` does when fairseq's trainer or commands call it, which is recognised by the configuration they pass.
"""

import logging
from collections import OrderedDict
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from unival.checkpoints.adapters import method_of
from unival.checkpoints.shapes import MEDIA_PREFIX, media_of_weights
from unival.errors import UserError, counted
from unival.text import split_names

logger = logging.getLogger(__name__)
ALIGNMENT = 64  # bytes: where torch places its tensors; products of others may differ in the last bits


def fit_to_checkpoint(model: Any, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Make a model and a checkpoint's weights take the same media; every change is logged.

    * From a model that was built for this checkpoint (``keeps_to_checkpoint``), media without weights are removed: some published files
      lack media that their options name.
    * Weights of media that the model does not take are left out.
    * Media of ``--new-modalities`` without weights keep the model's initial weights.

    Args:
        model: a :class:`unival.models.unival.UnivalModel`.
        state: the checkpoint's weights, in our layout or the published one; not changed.

    Returns:
        The state dict for ``model.load_state_dict``; it fits if there are no other differences.

    Raises:
        UserError: ``--new-modalities`` names media that the model does not take.
    """
    kept = renamed(model, state)
    found = media_of_weights(kept)
    if model.keeps_to_checkpoint:
        leave_out_media(model, sorted(set(model.encoder.media) - found))
    media: nn.ModuleDict = model.encoder.media
    new = () if model.keeps_to_checkpoint else split_names(model.cfg.new_modalities)
    for name in [name for name in new if name not in media]:
        raise UserError(f"--new-modalities {name}: the model takes {', '.join(media) or 'only text'}")
    for name in sorted(found - set(media)):
        keys = [key for key in kept if key.startswith(f"{MEDIA_PREFIX}{name}.")]
        for key in keys:
            del kept[key]
        logger.info("left out of the checkpoint: %s (%s), which this model does not take", name, counted(len(keys), "key"))
    own = model.state_dict()
    for name in [name for name in new if name not in found]:
        keys = [key for key in own if key.startswith(f"{MEDIA_PREFIX}{name}.")]
        kept.update({key: own[key] for key in keys})
        logger.info("new in this model: %s (%s), not in the checkpoint", name, counted(len(keys), "key"))
    parts = [] if model.keeps_to_checkpoint or any(map(method_of, kept)) else [key for key in own if method_of(key)]
    if parts:
        kept.update({key: own[key] for key in parts})
        logger.info("new in this model: --peft %s (%s), not in the checkpoint", model.cfg.peft, counted(len(parts), "key"))
    return kept


def share_weights(model: nn.Module, state: Mapping[str, Tensor]) -> None:
    """Let a model's tensors be those of the state dict that it was loaded from, wherever these hold the same values in the same type.

    A model whose weights do not change needs no memory for them then if the state is in memory anyway, or is mapped from a file.

    Args:
        model: a :class:`unival.models.unival.UnivalModel`.
        state: the weights, in our layout or the published one.
    """
    theirs = renamed(model, state)
    for name, own in [*model.named_parameters(), *model.named_buffers()]:
        value = theirs.get(name)
        if value is None or value.device != own.device or value.dtype != own.dtype or not torch.equal(value, own):
            continue
        if value.is_contiguous() and value.data_ptr() % ALIGNMENT == 0:
            own.data = value


def lacks_weights(model: Any, state: Mapping[str, Tensor]) -> bool:
    """Whether a model has weights that neither a checkpoint has nor :func:`fit_to_checkpoint` adds."""
    new = tuple(f"{MEDIA_PREFIX}{name}." for name in split_names(model.cfg.new_modalities))
    missing = model.state_dict().keys() - renamed(model, state).keys()
    return any(not key.startswith(new) and not method_of(key) for key in missing)


def renamed(model: Any, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A copy of a state dict with this package's keys."""
    kept: OrderedDict[str, Tensor] = OrderedDict(state)
    if hasattr(state, "_metadata"):  # torch's versions of the modules
        kept._metadata = state._metadata  # type: ignore[attr-defined]
    model.upgrade_state_dict(kept)
    return kept


def leave_out_media(model: Any, names: list[str]) -> None:
    """Remove media from a model, with their modules, parameters and keys."""
    for name in names:
        del model.encoder.media[name]
        logger.warning("the checkpoint has no %s, though its options name it: the model takes none", name)
