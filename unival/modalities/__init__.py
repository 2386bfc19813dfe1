"""Modalities: one module with one descriptor each; CONTRIBUTING.md tells how to add one."""

import multiprocessing
import re
import sys

from unival.errors import MISSING_PLUGIN, UserError
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

    Call this before ``unival.tasks`` is imported, when options are composed.

    Raises:
        UserError: the name, the row of the type embedding or an option is taken, or ``unival.tasks`` is imported already.
    """
    name, media = modality.name, modality.media
    if not re.fullmatch(r"[A-Z][A-Z0-9]*", name):
        raise UserError(f"modality {name!r}: a name must consist of capital letters and digits")
    if name in MODALITIES:
        raise UserError(f"modality {name} is there already: give yours another name")
    taken = {other.type_row: key for key, other in with_media().items()}
    if media is not None and (media.type_row < 1 or media.type_row in taken):
        free = next(row for row in range(1, len(taken) + 2) if row not in taken)
        raise UserError(f"modality {name}: type_row {media.type_row} is taken; {free} is free")
    owners({**MODALITIES, name: modality})
    # A spawned data worker unpickles its data set before it imports the plugin; it parses no command line.
    if "unival.modalities.composed" in sys.modules and multiprocessing.parent_process() is None:
        raise UserError(f"modality {name} comes too late: register it before unival.tasks is imported, where options are composed")
    MODALITIES[name] = modality


def with_media() -> dict[str, Media]:
    """The modalities with files: name in lower case -> how these become tokens."""
    return {modality.key: modality.media for modality in MODALITIES.values() if modality.media is not None}


def media_of(key: str) -> Media:
    """How the files of a modality become tokens; ``key`` is its name in lower case.

    Raises:
        UserError: the modality is unknown, or has no files.
    """
    known = with_media()
    if key not in known:
        raise UserError(f"{key!r} is not a modality with media of its own; expected one of {', '.join(known)}; {MISSING_PLUGIN}")
    return known[key]
