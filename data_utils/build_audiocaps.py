"""AudioCaps: train with a caption per clip, valid and test with five.

Source: train.csv, val.csv and test.csv. Media: ten-second clips named by their YouTube id, as {id}.wav, Y{id}.wav or
{id}_{start}.wav, in one folder or in train, val and test; .flac, .m4a and .mp3 are found, too.
"""

import argparse
import sys
from collections.abc import Iterator

from common.files import Source, read_csv
from downstream.frame import Dataset, Report, Row, Size, main

FILES = {"train": "train.csv", "valid": "val.csv", "test": "test.csv"}
NAMES = ("{id}", "Y{id}", "{id}_{start}", "{id}_{start:06d}")
SUFFIXES = (".wav", ".flac", ".m4a", ".mp3")


def rows(source: Source, args: argparse.Namespace, report: Report) -> Iterator[Row]:
    """The rows: a clip with its captions, which the files have in several lines."""
    paths = {table: source.find(name) for table, name in FILES.items()}
    if not any(paths.values()):
        source.need(*FILES.values())
    for table, path in paths.items():
        clips: dict[tuple[str, int], list[str]] = {}
        for entry in read_csv(path) if path else ():
            clip = entry.name("youtube_id"), entry.integer("start_time")
            clips.setdefault(clip, []).append(entry.text("caption"))
        for (name, start), captions in clips.items():
            names = [pattern.format(id=name, start=start) for pattern in NAMES]
            folders = ("", f"{FILES[table].removesuffix('.csv')}/")
            media = [f"{folder}{stem}{suffix}" for suffix in SUFFIXES for folder in folders for stem in names]
            yield Row(table, f"{name}_{start}", media, {"caption": list(filter(None, captions))})


GONE = "videos were removed from YouTube since"
SIZES = {"train": Size(49_838, "47K", why=GONE), "valid": Size(495, "0.5K"), "test": Size(975, "1K")}
DATASET = Dataset("audiocaps", __doc__, "audio", rows, SIZES, references="caption")

if __name__ == "__main__":
    sys.exit(main(DATASET))
