"""Animated emoji: find or download two npm packages, and read the emoji that have a short name."""

import io
import json
import os
import pathlib
import re
import shutil
import tarfile
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
from PIL import Image

from . import fetch
from .animated import AnimatedSprite, animate
from .errors import UserError
from .names import object_name

ANIMATIONS = "@lobehub/fluent-emoji-anim-1@1.0.0"
NAMES = "emojibase-data@17.0.0"
LICENCE = "MIT (both packages, as their package.json says)"
HOMEPAGE = "https://github.com/lobehub/fluent-emoji"
FOLDER_VARIABLE = "UNIVAL_EMOJI_DIR"

_FRAMES_PER_SECOND = 12  # kept of an animation
_TONED = re.compile(r"1f3f[b-f]")  # in file names: skin tones
_LEFT_OUT = frozenset(  # no singular, no thing, or a name that says little about the image
    {
        "backhand index", "bust", "busts in silhouette", "clapping hands", "clinking beer mugs", "crossed flags",
        "eyes", "fog", "footprints", "musical notes", "ok hand", "open hands", "paw prints", "santa claus",
        "thumbs down", "thumbs up", "milky way", "horse racing", "service dog",
    }
)  # fmt: skip


class EmojiUnavailableError(UserError):
    """The emoji are not available here; the message gives the reason."""


@dataclass(frozen=True)
class Emoji:
    """Contents of the packages: animated images (file name -> file), names by hex code, licence, origin."""

    files: dict[str, pathlib.Path]
    labels: dict[str, str]
    licence_text: str | None
    origin: str


@contextmanager
def find_emoji(folder: str | None = None) -> Iterator[Emoji]:
    """The emoji from ``folder``, else from the folder in the environment variable, else downloaded by the package client.

    A folder holds both packages, unpacked (such as node_modules) or as the .tgz files that ``npm pack`` writes.

    Raises:
        UserError: ``folder`` was given and is not usable.
        EmojiUnavailableError: nothing was given and the package client cannot fetch the packages.
    """
    told = "--emoji-dir"
    if not folder and os.environ.get(FOLDER_VARIABLE):
        folder, told = os.environ[FOLDER_VARIABLE], FOLDER_VARIABLE
    with tempfile.TemporaryDirectory(prefix="emoji-") as temporary:
        room = pathlib.Path(temporary)
        if folder:
            given = pathlib.Path(folder)
            if not given.is_dir():
                raise UserError(f"{told} {folder}: there is no such folder")
            yield _in_folder(given, room, "a folder that was given", told)
        else:
            _download(room)
            yield _in_folder(room, room, "the package client", "npm pack")


def _download(room: pathlib.Path) -> None:
    client = shutil.which("npm")
    if client is None:
        raise EmojiUnavailableError("npm is not here to fetch the emoji (give --emoji-dir)")
    for package in (ANIMATIONS, NAMES):
        fetch.run([client, "pack", "--loglevel=error", package], room, f"npm pack {package}", EmojiUnavailableError)


def _in_folder(folder: pathlib.Path, room: pathlib.Path, origin: str, told: str) -> Emoji:
    for number, archive in enumerate(sorted(folder.glob("*.tgz"))):
        _unpack(archive, room / f"unpacked{number}")
    roots = [folder, room] if folder != room else [room]
    files = {file.stem: file for root in roots for file in sorted(root.rglob("*.webp"))}
    names = next((file for root in roots for file in sorted(root.rglob("en/data.json"))), None)
    if not files:
        raise UserError(f"{told} {folder}: holds no .webp files (give a folder with {ANIMATIONS} and {NAMES})")
    if names is None:
        raise UserError(f"{told} {folder}: holds no en/data.json (give a folder with {ANIMATIONS} and {NAMES})")
    licence = names.parents[1] / "LICENSE"
    text = licence.read_text(encoding="utf-8") if licence.is_file() else None
    return Emoji(files, _labels(names), text, f"{ANIMATIONS} and {NAMES}, from {origin}")


def _unpack(archive: pathlib.Path, target: pathlib.Path) -> None:
    """Unpack the needed files of a package below ``target``, by their base names, so that none can be written elsewhere."""
    try:
        with tarfile.open(archive) as packed:
            for member in packed:
                path = pathlib.PurePosixPath(member.name)
                wanted = path.suffix == ".webp" or path.parts[-2:] == ("en", "data.json") or path.name == "LICENSE"
                content = packed.extractfile(member) if wanted and member.isfile() else None
                if content is None:
                    continue
                kept = target / (path.name if path.name != "data.json" else "en/data.json")
                kept.parent.mkdir(parents=True, exist_ok=True)
                kept.write_bytes(content.read())
    except (OSError, EOFError, tarfile.TarError) as error:
        raise UserError(f"{archive}: cannot be unpacked ({error})") from error


def _labels(file: pathlib.Path) -> dict[str, str]:
    """Hex code in lower case -> name; also without the variation selector, which many file names omit."""
    try:
        entries = json.loads(file.read_text(encoding="utf-8"))
        found = {entry["hexcode"].lower(): entry["label"] for entry in entries}
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"{file}: is not the names of emojibase-data ({type(error).__name__}: {error})") from error
    return found | {code.replace("-fe0f", ""): label for code, label in found.items()}


def read_emoji(emoji: Emoji, side: int) -> list[AnimatedSprite]:
    """Every animated emoji that has a short name, one per name, reduced to ``side`` pixels; variants with a skin tone are left out.

    Raises:
        UserError: a file cannot be read.
    """
    found: dict[str, AnimatedSprite] = {}
    for code, file in sorted(emoji.files.items()):
        label = emoji.labels.get(code.lower()) or emoji.labels.get(code.lower().replace("-fe0f", ""))
        if label is None or ":" in label or _TONED.search(code.lower()):  # "family: man, boy"
            continue
        name = object_name(f"A {label}")
        if name is None or name in _LEFT_OUT or label.lower() in _LEFT_OUT or name in found:
            continue
        read = _read_one(file, side)
        sprite = animate(name, *read, source=file.name) if read else None
        if sprite is not None:
            found[name] = sprite
    return sorted(found.values(), key=lambda sprite: (len(sprite.name.split()), sprite.name))


def _read_one(file: pathlib.Path, side: int) -> tuple[np.ndarray, float] | None:
    """The frames (T x H x W x 4, uint8) of a file and their duration in seconds; None if it is not animated."""
    try:
        with Image.open(io.BytesIO(file.read_bytes())) as image:
            count = image.n_frames
            if count < 2:
                return None
            milliseconds, images = 0, []
            for number in range(count):
                image.seek(number)
                image.load()
                milliseconds += int(image.info["duration"])
                images.append(image.copy())
    except (OSError, EOFError, KeyError) as error:
        raise UserError(f"{file}: cannot be read as an animated image ({error})") from error
    seconds = milliseconds / 1000
    kept = np.linspace(0, count, max(2, min(count, round(_FRAMES_PER_SECOND * seconds))), endpoint=False).astype(int)
    frames = []
    for number in kept:
        rgba = images[number].convert("RGBA")
        rgba.thumbnail((side, side), Image.Resampling.LANCZOS)
        frames.append(np.asarray(rgba))
    return np.stack(frames), seconds
