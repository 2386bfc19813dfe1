"""One module per modality, one descriptor in it; CONTRIBUTING.md says what a new one needs."""

from unival.errors import UserError
from unival.modalities.audio import AUDIO
from unival.modalities.base import Media, Modality
from unival.modalities.box import BOX
from unival.modalities.code import CODE
from unival.modalities.image import IMAGE
from unival.modalities.text import TEXT
from unival.modalities.video import VIDEO

MODALITIES: dict[str, Modality] = {
    "TEXT": TEXT,
    "IMAGE": IMAGE,
    "VIDEO": VIDEO,
    "AUDIO": AUDIO,
    "BOX": BOX,
    "CODE": CODE,
}


def with_media() -> dict[str, Media]:
    """Name in lower case -> how its files become tokens, of the modalities that have files."""
    return {modality.key: modality.media for modality in MODALITIES.values() if modality.media is not None}


def media_of(key: str) -> Media:
    """How the files of one modality become tokens; ``key``: its name in lower case.

    Raises:
        UserError: there is no such modality, or it has no files.
    """
    known = with_media()
    if key not in known:
        raise UserError(f"{key!r} is no modality with media of its own; there are {', '.join(known)}")
    return known[key]
