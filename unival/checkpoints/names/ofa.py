"""Checkpoint keys of OFA (``ofa_tiny`` to ``ofa_huge``, fairseq): those of the published UnIVAL, without video and audio.

Their image CNN is a ResNet of three stages; its batch norms and strides are those of timm's, so that the weights are used as they are.
"""

from collections.abc import Mapping

from torch import Tensor

from unival.checkpoints.conversion import Conversion
from unival.checkpoints.names.published import from_published, is_published
from unival.errors import UserError

STAGE_4 = "encoder.embed_images.layer4."


def is_ofa(state: Mapping[str, Tensor]) -> bool:
    """Whether a state dict is OFA's rather than UnIVAL's: a three-stage CNN, and images only."""
    return is_published(state) and not any(key.startswith((STAGE_4, "encoder.embed_video")) for key in state)


def from_ofa(state: Mapping[str, Tensor]) -> Conversion:
    """Convert OFA's weights to our keys; the tensors are not copied.

    Raises:
        UserError: the checkpoint is not OFA's.
    """
    if not is_published(state):
        raise UserError("the file does not look like a checkpoint of OFA; expected keys such as encoder.embed_images.conv1.weight")
    if not is_ofa(state):
        raise UserError("the checkpoint is UnIVAL's, not OFA's: use --from unival")
    return from_published(state)
