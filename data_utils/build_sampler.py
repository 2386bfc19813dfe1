"""Build sampler data: images, videos and audio with known content, and captions and questions that are exactly true.

python data_utils/build_sampler.py --out data/sampler # stamps if they can be had, else shapes python
data_utils/build_sampler.py --out data/sampler --sprites shapes # no download at all python
data_utils/build_sampler.py --out data/moving --media video # sprites that move python data_utils/build_sampler.py
--out data/emoji --media video --sprites emoji python data_utils/build_sampler.py --out data/sounds --media audio #
the stamps' sounds, else synthesised ones python data_utils/build_sampler.py --out data/both --media image+audio #
stamps, and the sound of one in an image

Writes train, valid, test, test_unseen, test_swapped (and valid_swapped) as .jsonl tables, images/, videos/ or
sounds/, manifest.json and preview.png.
"""

import argparse
import json
import logging
import pathlib
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, fields

from sampler.audio import load_sounds, make_sound_composer
from sampler.clips import check_format
from sampler.errors import UserError
from sampler.image_audio import load_both, make_both_composer
from sampler.settings import (
    AUDIO_FORMATS,
    EMOJI,
    MEDIA,
    PHRASINGS,
    SOUNDS,
    SPRITES,
    VIDEO_FORMATS,
    AnySettings,
    EmojiSettings,
    ImageAudioSettings,
    SoundSettings,
    VideoSettings,
)
from sampler.sounds import check_soundfile
from sampler.tables import BUILDER, MANIFEST, VERSION, Maker, Source, build
from sampler.video import load_moving, make_video_composer
from sampler.write import load_sprites, make_composer

KINDS = {**MEDIA, "emoji": EmojiSettings}  # all that have defaults of their own
CHOICES = {
    "sprites": ((*SPRITES, EMOJI), "auto: stamps if they can be had"),
    "sounds": (SOUNDS, "auto: those of the stamps if they can be had"),
    "phrasing": (PHRASINGS, "captions in train"),
    "video-format": (VIDEO_FORMATS, "mp4 needs the package av"),
    "audio-format": (AUDIO_FORMATS, "both have 16 bits and no loss"),
}
NUMBERS = {
    "objects": "objects that training shows",
    "unseen-objects": "further objects, only in test_unseen",
    "size": "side of an image in pixels",
    "train": "rows of train",
    "valid": "rows of valid",
    "test": "rows of test (and of test_swapped)",
    "test-unseen": "rows of test_unseen",
    "valid-swapped": "rows of valid_swapped: the first ones of valid, each with another row's image",
    "quality": "JPEG, WebP or video quality",
    "seed": "another seed makes other data",
    "frames": "frames in a video",
    "fps": "frames per second of a video",
    "rate": "sample rate of a recording in Hz",
    "seconds": "length of a recording",
}


def parser() -> argparse.ArgumentParser:
    """The command's argument parser. Defaults come from the settings classes and depend on the media."""
    made = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument(
        "--out", required=True, type=pathlib.Path, help="folder to write: a new one, or one that holds the same data"
    )
    made.add_argument("--media", default="image", choices=MEDIA, help="what the tables are of (default image)")
    for name, (choices, meaning) in CHOICES.items():
        made.add_argument(f"--{name}", choices=choices, help=f"{meaning} ({_defaults(name)})")
    made.add_argument(
        "--stamps-dir", help="folder with the unpacked stamps (default $UNIVAL_STAMPS_DIR, else the package client)"
    )
    made.add_argument("--stamps-deb", help="the stamps' package as a .deb file")
    made.add_argument(
        "--emoji-dir", help="folder with the two npm packages (default $UNIVAL_EMOJI_DIR, else the package client)"
    )
    made.add_argument(
        "--per-scene",
        help="sprites in a scene or sounds in a recording: a number or a range within 1-4, for sounds 1-3 "
        "(default 2; emoji 1, audio 1-2)",
    )
    for name, meaning in NUMBERS.items():
        kind = float if name == "seconds" else int
        made.add_argument(f"--{name}", type=kind, help=f"{meaning} ({_defaults(name)})")
    made.add_argument("--workers", type=int, default=1, help="processes; any number makes the same bytes (default 1)")
    made.add_argument("--force", action="store_true", help="replace what an earlier run wrote into --out")
    return made


def _defaults(option: str) -> str:
    """Help text for the default of an option, with the media that have another one: "default 96; video 64"."""
    found = {media: getattr(kind(), option.replace("-", "_"), None) for media, kind in KINDS.items()}
    values = [value for value in found.values() if value is not None]
    others: dict[object, list[str]] = {}
    for media, value in found.items():
        if value is not None and value != values[0]:
            others.setdefault(value, []).append(media)
    return "; ".join([f"default {values[0]}", *(f"{', '.join(media)} {value}" for value, media in others.items())])


def settings_from(arguments: argparse.Namespace) -> AnySettings:
    """The settings that the arguments select; raises UserError for an invalid value."""
    kind = MEDIA[arguments.media]
    if kind is VideoSettings and arguments.sprites == EMOJI:
        kind = EmojiSettings
    known = {field.name for field in fields(kind)}
    chosen = {}
    for option in (*CHOICES, *NUMBERS):
        name = option.replace("-", "_")
        value = getattr(arguments, name)
        if value is None:
            continue
        if name not in known:
            able = [media for media, other in MEDIA.items() if name in {field.name for field in fields(other)}]
            raise UserError(f"--{option} {value}: not an option of --media {arguments.media}, only of {', '.join(able)}")
        chosen[name] = value
    if arguments.per_scene is not None:
        fewest, _, most = arguments.per_scene.partition("-")
        if not fewest.isdecimal() or not (most or fewest).isdecimal():
            raise UserError(f"--per-scene {arguments.per_scene}: must be a number or a range such as 1-4")
        chosen |= {"fewest": int(fewest), "most": int(most or fewest)}
    settings = kind(**chosen)
    settings.check()
    if arguments.workers < 1:
        raise UserError(f"--workers {arguments.workers}: must be at least 1")
    if arguments.emoji_dir and kind is not EmojiSettings:
        raise UserError(f"--emoji-dir {arguments.emoji_dir}: needs --media video --sprites emoji")
    return settings


def prepare(settings: AnySettings, arguments: argparse.Namespace) -> tuple[Maker, Source]:
    """Create the maker of the rows that ``settings`` select, and the source of its material for the manifest."""
    stamps = (arguments.stamps_dir, arguments.stamps_deb)
    if isinstance(settings, SoundSettings):
        check_soundfile()
        library, source = load_sounds(settings, *stamps)
        return make_sound_composer(settings, library), source
    if isinstance(settings, ImageAudioSettings):
        check_soundfile()
        sprites, recorded, source = load_both(settings, *stamps)
        return make_both_composer(settings, sprites, recorded), source
    if isinstance(settings, VideoSettings):
        check_format(settings.video_format)
        sprites, source = load_moving(settings, *stamps, arguments.emoji_dir)
        return make_video_composer(settings, sprites), source
    sprites, source = load_sprites(settings, *stamps)
    return make_composer(settings, sprites), source


def already_there(out: pathlib.Path, settings: AnySettings, stamps_given: bool, force: bool) -> bool:
    """Whether ``out`` already has exactly this data, so that nothing needs to be written (never with ``force``).

    Raises:
        UserError: ``out`` has other files or other data.
    """
    if not out.exists() or (out.is_dir() and not any(out.iterdir())):
        return False
    manifest = out / MANIFEST
    found = json.loads(manifest.read_text(encoding="utf-8")) if manifest.is_file() else {}
    builder = found.get("builder", {})
    if builder.get("name") != BUILDER:
        raise UserError(f"--out {out}: exists and is not sampler data (give a folder that does not exist)")
    if force:
        return False
    same = builder == {"name": BUILDER, "version": VERSION, "arguments": asdict(settings)}
    if not same or (stamps_given and (found.get("sprites") or found["sounds"])["kind"] != "stamps"):
        raise UserError(f"--out {out}: holds sampler data made with other arguments (give --force to replace it)")
    return True


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command.

    Returns:
        The exit code: 0, or 2 for invalid input.
    """
    arguments = parser().parse_args(argv)
    try:
        settings = settings_from(arguments)
        stamps_given = bool(arguments.stamps_dir or arguments.stamps_deb)
        if already_there(arguments.out, settings, stamps_given, arguments.force):
            sys.stdout.write(f"{arguments.out}: already holds this data\n")
            return 0
        start = time.monotonic()
        maker, source = prepare(settings, arguments)
        manifest = build(arguments.out, maker, source, arguments.workers)
    except (UserError, OSError) as error:
        sys.stderr.write(f"error: {error}\n")
        return 2
    counts = ", ".join(f"{split} {count}" for split, count in manifest["counts"].items())
    sys.stdout.write(f"{arguments.out}: {source.kind}, {counts} ({time.monotonic() - start:.0f} s)\n")
    return 0


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    sys.exit(main())
