"""MSR-VTT captions: train, valid and test with the twenty captions of each video.

Source: MSRVTT_data.json, or train_val_videodatainfo.json and test_videodatainfo.json. Media: videos named video0.mp4,
…, in one folder or in TrainValVideo and TestVideo.
"""

import argparse
import sys
from collections.abc import Iterator

from common.files import Source, read_object
from downstream.frame import Dataset, Report, Row, Size, main

TABLES = {"train": "train", "validate": "valid", "val": "valid", "test": "test"}
PAIR = ("train_val_videodatainfo.json", "test_videodatainfo.json")


def rows(source: Source, args: argparse.Namespace, report: Report) -> Iterator[Row]:
    """The rows: a video with its captions."""
    single = source.find("MSRVTT_data.json", "videodatainfo.json")
    paths = [single] if single else [path for path in map(source.find, PAIR) if path] or [source.need("MSRVTT_data.json", *PAIR)]
    for data in map(read_object, paths):
        captions: dict[str, list[str]] = {}
        for sentence in data.entries("sentences"):
            captions.setdefault(sentence.name("video_id"), []).append(sentence.text("caption"))
        for video in data.entries("videos"):
            table, name = TABLES[video.choice("split", list(TABLES))], video.name("video_id")
            paths_of = [f"{folder}{name}.mp4" for folder in ("", "TrainValVideo/", "TestVideo/", "all/")]
            yield Row(table, name, paths_of, {"caption": list(filter(None, captions.get(name, [])))})


SIZES = {"train": Size(6_513, "6.5K"), "valid": Size(497, "0.5K"), "test": Size(2_990, "3K")}
DATASET = Dataset("msrvtt", __doc__, "video", rows, SIZES, references="caption")

if __name__ == "__main__":
    sys.exit(main(DATASET))
