"""One module per modality: load, transform and embed.  CONTRIBUTING.md lists what a new one needs besides its line in MODALITIES."""

from unival.errors import UserError
from unival.modalities.audio import AUDIO
from unival.modalities.base import Modality
from unival.modalities.image import IMAGE
from unival.modalities.video import VIDEO

# Text is not here: it is the thread on which the others are strung, and the dataset and the encoder handle it themselves.
MODALITIES: dict[str, Modality] = {
    "IMAGE": IMAGE,
    "VIDEO": VIDEO,
    "AUDIO": AUDIO,
}


def modality(name: str) -> Modality:
    """The modality of a slot such as ``[IMAGE:image]``, or a UserError that lists those there are."""
    if name not in MODALITIES:
        raise UserError(f"modality {name} is not one that unival reads; available: TEXT, {', '.join(MODALITIES)}")
    return MODALITIES[name]
