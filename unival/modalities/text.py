"""Text: the thread on which the other modalities are strung; its cells become token ids, in the source and in the target."""

from unival.instructions import PLAIN, AttributeSpec
from unival.modalities.base import Modality

TEXT = Modality(
    PLAIN,
    attributes={
        "no_loss": AttributeSpec(bool, target_only=True),
        "closed_set": AttributeSpec(bool, target_only=True),
        "max_length": AttributeSpec(int, minimum=1),  # in words
        "uncased": AttributeSpec(bool),
        "no_punctuation": AttributeSpec(bool),
    },
    is_target=True,
)
