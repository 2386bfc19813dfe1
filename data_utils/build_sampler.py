"""Builds sampler data: small pictures of known objects, with captions, questions and boxes that are exactly true.

    python data_utils/build_sampler.py --out data/sampler                    # stamps if they can be had, else shapes
    python data_utils/build_sampler.py --out data/sampler --sprites shapes   # no download at all

Writes train, valid, test, test_unseen and test_swapped as .jsonl tables, images/, manifest.json and preview.png.
"""

import argparse
import json
import logging
import pathlib
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict

from sampler.errors import UserError
from sampler.write import BUILDER, MANIFEST, PHRASINGS, SPRITES, VERSION, Settings, build, load_sprites


def parser() -> argparse.ArgumentParser:
    """The command's arguments; defaults come from Settings."""
    default = Settings()
    made = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument(
        "--out", required=True, type=pathlib.Path, help="folder to write: a new one, or one that holds the same data"
    )
    made.add_argument(
        "--sprites", default=default.sprites, choices=SPRITES, help="default auto: stamps if they can be had"
    )
    made.add_argument(
        "--stamps-dir", help="folder with the unpacked stamps (default $UNIVAL_STAMPS_DIR, else the package client)"
    )
    made.add_argument("--stamps-deb", help="the stamps' package as a .deb file")
    made.add_argument("--per-scene", default="2", help="sprites in a scene: a number or a range within 1-4 (default 2)")
    made.add_argument("--phrasing", default=default.phrasing, choices=PHRASINGS, help="captions in train")
    numbers = {
        "objects": "objects that training shows",
        "unseen-objects": "further objects, only in test_unseen",
        "size": "side of a picture in pixels",
        "train": "rows of train",
        "valid": "rows of valid",
        "test": "rows of test (and of test_swapped)",
        "test-unseen": "rows of test_unseen",
        "quality": "JPEG quality",
        "seed": "another seed makes other data",
    }
    for name, meaning in numbers.items():
        value = getattr(default, name.replace("-", "_"))
        made.add_argument(f"--{name}", type=int, default=value, help=f"{meaning} (default {value})")
    made.add_argument("--workers", type=int, default=1, help="processes; any number makes the same bytes (default 1)")
    made.add_argument("--force", action="store_true", help="replace what an earlier run wrote into --out")
    return made


def settings_from(arguments: argparse.Namespace) -> Settings:
    """The settings that the arguments ask for; raises UserError for a value that cannot be used."""
    fewest, _, most = arguments.per_scene.partition("-")
    if not fewest.isdecimal() or not (most or fewest).isdecimal():
        raise UserError(f"--per-scene {arguments.per_scene}: must be a number or a range such as 1-4")
    names = set(asdict(Settings())) - {"fewest", "most"}
    chosen = {name: getattr(arguments, name) for name in names}
    settings = Settings(**chosen, fewest=int(fewest), most=int(most or fewest))
    settings.check()
    if arguments.workers < 1:
        raise UserError(f"--workers {arguments.workers}: must be at least 1")
    return settings


def already_there(out: pathlib.Path, settings: Settings, stamps_given: bool, force: bool) -> bool:
    """Whether `out` holds this very data, so that nothing is left to do; with `force` there always is.

    Raises:
        UserError: `out` holds something else.
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
    if not same or (stamps_given and found["sprites"]["kind"] != "stamps"):
        raise UserError(f"--out {out}: holds sampler data made with other arguments (give --force to replace it)")
    return True


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command; the exit code is 2 when what was given cannot be used."""
    arguments = parser().parse_args(argv)
    try:
        settings = settings_from(arguments)
        stamps_given = bool(arguments.stamps_dir or arguments.stamps_deb)
        if already_there(arguments.out, settings, stamps_given, arguments.force):
            sys.stdout.write(f"{arguments.out}: already holds this data\n")
            return 0
        start = time.monotonic()
        sprites, source = load_sprites(settings, arguments.stamps_dir, arguments.stamps_deb)
        manifest = build(arguments.out, settings, sprites, source, arguments.workers)
    except (UserError, OSError) as error:
        sys.stderr.write(f"error: {error}\n")
        return 2
    counts = ", ".join(f"{split} {count}" for split, count in manifest["counts"].items())
    sys.stdout.write(f"{arguments.out}: {source.kind}, {counts} ({time.monotonic() - start:.0f} s)\n")
    return 0


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    sys.exit(main())
