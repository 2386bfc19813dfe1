"""Sprites from Tux Paint's stamps: find or download the Debian package, and read its cut-outs and their captions."""

import os
import pathlib
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
from PIL import Image

from . import fetch
from .errors import UserError
from .names import object_name
from .sprites import Sprite, crop_visible

PACKAGE = "tuxpaint-stamps-default"
LICENCE = "GPL-2"
HOMEPAGE = "https://tuxpaint.org/stamps/"
FOLDER_VARIABLE = "UNIVAL_STAMPS_DIR"

_KEPT_SIDE = 256  # pixels; larger cut-outs are reduced when read
_LEAST_SIDE = 40  # pixels of the longer side; smaller cut-outs would be blown up
_LEAST_ASPECT = 0.38  # shorter by longer side; thinner cut-outs cannot be made out in a small image
_FILL = (0.28, 0.97)  # part of its box that a cut-out covers; beyond it: lines, or images without alpha
_SKIPPED = ("symbols", "military", "people/body_parts", "town/roadsigns")  # signs, weapons, loose eyes and wigs
_MIRRORED = ("left", "right", "mirror")  # parts of file names of cut-outs that exist in two directions
# Names that few people would give to the thing, or that another stamp answers to as well (a drake is a duck).
_UNFAMILIAR = frozenset(
    {
        "abalone", "albino peahen", "alien tree", "bunny", "cemetery marker", "cep", "chicken",
        "chocolate easter egg", "cuckoo", "dingo", "doe", "drake", "dromedary", "dumper", "echidna", "farm",
        "floppy-eared bunny", "flower", "freshwater mussel", "gander", "gate", "guinea fowl", "head",
        "fishery", "headstone", "inukshuk", "lark", "mine", "monument stone", "moustache", "pink dream house",
        "purple pigface flower", "red headed cep", "rhea", "stable", "tombstone", "wapiti", "xanthia",
        "yam", "yellow flower", "zebu",
    }
)  # fmt: skip


class StampsUnavailableError(UserError):
    """The stamps are not available here; the message gives the reason."""


@dataclass(frozen=True)
class Stamps:
    """An unpacked package: the folder with the cut-outs, its licence file if there is one, and its origin."""

    folder: pathlib.Path
    licence_file: pathlib.Path | None
    origin: str


@contextmanager
def find_stamps(folder: str | None = None, package: str | None = None) -> Iterator[Stamps]:
    """The stamps from ``folder``, else the ``.deb`` file ``package``, the folder in the environment variable, or the package client.

    Raises:
        UserError: ``folder`` or ``package`` was given and is not usable.
        StampsUnavailableError: nothing was given and the package client cannot fetch the package.
    """
    told = "--stamps-dir"
    if not folder and not package and os.environ.get(FOLDER_VARIABLE):
        folder, told = os.environ[FOLDER_VARIABLE], FOLDER_VARIABLE
    with tempfile.TemporaryDirectory(prefix="stamps-") as temporary:
        room = pathlib.Path(temporary)
        if folder:
            yield _in_folder(pathlib.Path(folder), "a folder that was given", told)
        elif package:
            yield _in_folder(_unpack(pathlib.Path(package), room), f"the file {pathlib.Path(package).name}")
        else:
            fetched = _download(room)
            yield _in_folder(_unpack(fetched, room), f"the package client: {fetched.name}")


def _in_folder(folder: pathlib.Path, origin: str, told: str = "--stamps-deb") -> Stamps:
    """Accept the stamps folder itself or any folder above it that a package was unpacked into."""
    inside = folder / "usr" / "share" / "tuxpaint" / "stamps"
    stamps = inside if inside.is_dir() else folder
    if not stamps.is_dir():
        raise UserError(f"{told} {folder}: there is no such folder")
    if next(stamps.rglob("*.png"), None) is None:
        raise UserError(f"{told} {folder}: holds no .png cut-outs (give the package's usr/share/tuxpaint/stamps)")
    licences = [stamps / "copyright"]
    if len(stamps.resolve().parents) > 1:
        licences.append(stamps.resolve().parents[1] / "doc" / PACKAGE / "copyright")
    return Stamps(stamps, next((file for file in licences if file.is_file()), None), origin)


def _download(room: pathlib.Path) -> pathlib.Path:
    client = shutil.which("apt-get")
    if client is None:
        raise StampsUnavailableError(f"apt-get is not here to fetch {PACKAGE} (give --stamps-dir or --stamps-deb)")
    if shutil.which("dpkg-deb") is None:
        raise StampsUnavailableError(f"dpkg-deb is not here to unpack {PACKAGE} (give --stamps-dir)")
    fetch.run([client, "download", PACKAGE], room, f"apt-get download {PACKAGE}", StampsUnavailableError)
    found = sorted(room.glob(f"{PACKAGE}_*.deb"))
    if not found:
        raise StampsUnavailableError(f"apt-get download {PACKAGE} left no package behind")
    return found[0]


def _unpack(package: pathlib.Path, room: pathlib.Path) -> pathlib.Path:
    if not package.is_file():
        raise UserError(f"--stamps-deb {package}: there is no such file")
    tool = shutil.which("dpkg-deb")
    if tool is None:
        raise StampsUnavailableError(
            f"dpkg-deb is not here to unpack {package.name} (unpack it elsewhere and give --stamps-dir)"
        )
    target = room / "unpacked"
    command = [tool, "-x", str(package.resolve()), str(target)]
    fetch.run(command, room, f"dpkg-deb -x {package.name}", StampsUnavailableError)
    return target


def read_stamps(stamps: Stamps) -> list[Sprite]:
    """Every usable cut-out, one per name, best first: photographs before drawings, short names before long ones.

    Left out: captions that are not one thing with a short name, tiny, thin and sparse cut-outs, images without alpha.
    """
    best: dict[str, Sprite] = {}
    for file in sorted(stamps.folder.rglob("*.png")):
        sprite = _read_one(file, stamps.folder)
        if sprite is None:
            continue
        known = best.get(sprite.name)
        if known is None or (known.drawing, -_side(known)) > (sprite.drawing, -_side(sprite)):
            best[sprite.name] = sprite
    return sorted(best.values(), key=lambda sprite: (sprite.drawing, len(sprite.name.split()), sprite.name))


def _side(sprite: Sprite) -> int:
    return max(sprite.pixels.shape[:2])


def _read_one(file: pathlib.Path, folder: pathlib.Path) -> Sprite | None:
    inside = file.relative_to(folder).as_posix()
    caption = file.with_suffix(".txt")
    if inside.startswith(_SKIPPED) or file.stem.lower().endswith(_MIRRORED) or not caption.is_file():
        return None
    name = object_name((caption.read_text(encoding="utf-8", errors="replace").splitlines() or [""])[0])
    if name is None or name in _UNFAMILIAR:
        return None
    try:
        with Image.open(file) as image:
            rgba = image.convert("RGBA")
    except OSError as error:
        raise UserError(f"{file}: cannot be read as an image ({error})") from error
    rgba.thumbnail((_KEPT_SIDE, _KEPT_SIDE), Image.Resampling.LANCZOS)
    pixels = crop_visible(np.asarray(rgba))
    if not pixels.size:
        return None
    short, long = sorted(pixels.shape[:2])
    fill = float((pixels[..., 3] >= 128).mean())
    if long < _LEAST_SIDE or short / long < _LEAST_ASPECT or not _FILL[0] <= fill <= _FILL[1]:
        return None
    drawing = any(part in ("cartoon", "toys") for part in inside.split("/"))
    return Sprite(name, pixels, inside, drawing)
