"""MSVD-QA: train, valid and test of open-ended questions about the videos of MSVD (YouTubeClips), with an answer of
one word.

Source: train_qa.json, val_qa.json, test_qa.json and youtube_mapping.txt (lines such as "-4wsuPCjDBc_5_15 vid1").
Media: .avi or .mp4 files named as in YouTubeClips, or vid1, vid2, …

answers.txt has the 1,000 most frequent answers of train and val: the published recipe's files are named
"trainval_1k"; which they are is not published. It validates on test, and its tables leave out rows whose answer is no
candidate: train leaves them out here as well, test has all, test_answerable the others.
"""

import argparse
import sys
from collections.abc import Iterator

from common.files import Entry, Source
from downstream import video_qa
from downstream.frame import Dataset, Report, Row, Size, main

from unival.errors import UserError
from unival.text import read_text

MAPPING = "youtube_mapping.txt"


def rows(source: Source, args: argparse.Namespace, report: Report) -> Iterator[Row]:
    """The rows: a question about a video."""
    path, names = source.need(MAPPING), {}
    for number, line in enumerate(read_text(path).splitlines(), start=1):
        name, _, video = line.strip().rpartition(" ")
        if line.strip() and (not name or not video.removeprefix("vid").isdecimal()):
            raise UserError(f"{path}, line {number}: expected a name and a video such as vid1, got {line[:60]!r}")
        names[video] = name.strip()

    def media(entry: Entry) -> list[str]:
        video = f"vid{entry.integer('video_id')}"
        if video not in names:
            entry.wrong("video_id", f"one of {MAPPING}")
        return [f"{stem}{suffix}" for stem in (names[video], video) for suffix in (".avi", ".mp4")]

    return video_qa.rows(source, args.most, media, report)


SIZES = {
    "train": Size(30_933, "30K", of="used"),
    "valid": Size(6_415, "6K"),
    "test": Size(13_157, "12K", why=video_qa.PUBLISHED),
    video_qa.ANSWERABLE: Size(None, "12K"),
}
DATASET = Dataset("msvd_qa", __doc__, "video", rows, SIZES, references="answer", arguments=video_qa.most(1_000))

if __name__ == "__main__":
    sys.exit(main(DATASET))
