"""One module per modality, one descriptor in it; CONTRIBUTING.md says what a new one needs."""

import multiprocessing
import re
import sys

from unival.errors import UserError
from unival.modalities.audio import AUDIO
from unival.modalities.base import Media, Modality
from unival.modalities.box import BOX
from unival.modalities.code import CODE
from unival.modalities.image import IMAGE
from unival.modalities.options import owners
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


def register(modality: Modality) -> None:
    """Add a modality from outside of the package.

    Whoever does that does it first: options are composed when ``unival.tasks`` is imported.

    Raises:
        UserError: its name, its row of the type embedding or an option is taken, or it comes too late.
    """
    name, media = modality.name, modality.media
    if not re.fullmatch(r"[A-Z][A-Z0-9]*", name):
        raise UserError(f"modality {name!r}: a name has capital letters and digits")
    if name in MODALITIES:
        raise UserError(f"modality {name} is there already: give yours another name")
    taken = {other.type_row: key for key, other in with_media().items()}
    if media is not None and (media.type_row < 1 or media.type_row in taken):
        free = next(row for row in range(1, len(taken) + 2) if row not in taken)
        raise UserError(f"modality {name}: type_row {media.type_row} is taken; {free} is free")
    owners({**MODALITIES, name: modality})
    # A data worker that was spawned reads what it is sent before it imports the plugin; it has no command line.
    if "unival.modalities.composed" in sys.modules and multiprocessing.parent_process() is None:
        raise UserError(f"modality {name} comes too late: register it before unival.tasks is imported, where options are composed")
    MODALITIES[name] = modality


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
