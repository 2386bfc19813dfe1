"""MSRVTT-QA: train, valid and test of open-ended questions about the videos of MSR-VTT, with an answer of one word.

Source: train_qa.json, val_qa.json and test_qa.json. Media: videos named video0.mp4, …, in one folder or in
TrainValVideo and TestVideo.

answers.txt has the 4,000 most frequent answers of train and val: the published recipe's files are named
"trainval_4k"; which they are is not published. It validates on test, and its tables leave out rows whose answer is no
candidate: train leaves them out here as well, test has all, test_answerable the others.
"""

import argparse
import sys
from collections.abc import Iterator

from common.files import Entry, Source
from downstream import video_qa
from downstream.frame import Dataset, Report, Row, Size, main


def media(entry: Entry) -> list[str]:
    """Where the video of a question may be."""
    name = f"video{entry.integer('video_id')}.mp4"
    return [f"{folder}{name}" for folder in ("", "TrainValVideo/", "TestVideo/", "all/")]


def rows(source: Source, args: argparse.Namespace, report: Report) -> Iterator[Row]:
    """The rows: a question about a video."""
    return video_qa.rows(source, args.most, media, report)


SIZES = {
    "train": Size(158_581, "156K", of="used"),
    "valid": Size(12_278, "12K"),
    "test": Size(72_821, "70K", why=video_qa.PUBLISHED),
    video_qa.ANSWERABLE: Size(None, "70K"),
}
DATASET = Dataset("msrvtt_qa", __doc__, "video", rows, SIZES, references="answer", arguments=video_qa.most(4_000))

if __name__ == "__main__":
    sys.exit(main(DATASET))
