"""A checkpoint and a model that take different media: the step between building a model and loading weights into it.

``load_state_dict`` itself changes nothing but values.  Who starts from a file of somebody else calls :func:`fit_to_checkpoint` first: the
Python API does, and so do fairseq's trainer and commands, whose ``load_state_dict`` names the model's configuration (as for fairseq's own
pruning of layers).
"""

import logging
from collections import OrderedDict
from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from unival.checkpoints.shapes import MEDIA_PREFIX, media_of_weights
from unival.errors import UserError
from unival.text import split_names

logger = logging.getLogger(__name__)


def fit_to_checkpoint(model: Any, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Make a model and a checkpoint's weights take the same media; what is done is logged.

    * A model that was built to use a checkpoint as it is (``keeps_to_checkpoint``) loses the media that the weights lack: published
      options name media that some files lack.
    * Weights of media that the model does not take are left out.
    * Media of ``--new-modalities`` that the weights lack keep the model's own, fresh parts.

    Args:
        model: a :class:`unival.models.unival.UnivalModel`.
        state: the checkpoint's weights, in our layout or the published one; not changed.

    Returns:
        What ``model.load_state_dict`` takes, if nothing else is amiss.

    Raises:
        UserError: ``--new-modalities`` names what the model does not take.
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
        logger.info("left out of the checkpoint: %s (%d keys), which this model does not take", name, len(keys))
    own = model.state_dict()
    for name in [name for name in new if name not in found]:
        keys = [key for key in own if key.startswith(f"{MEDIA_PREFIX}{name}.")]
        kept.update({key: own[key] for key in keys})
        logger.info("new in this model: %s (%d keys), not in the checkpoint", name, len(keys))
    return kept


def renamed(model: Any, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A copy of a state dict under our key names."""
    kept: OrderedDict[str, Tensor] = OrderedDict(state)
    if hasattr(state, "_metadata"):  # torch's versions of the modules
        kept._metadata = state._metadata  # type: ignore[attr-defined]
    model.upgrade_state_dict(kept)
    return kept


def leave_out_media(model: Any, names: list[str]) -> None:
    """Take media out of a model: its modules, parameters and keys change."""
    for name in names:
        del model.encoder.media[name]
        logger.warning("the checkpoint has no %s, though its options name it: the model takes none", name)
