"""ActivityNet-Captions: train, valid (val_1) and test (val_2), whose rows are the segments of a video by the
annotators' times, with a sentence each.

Source: train.json, val_1.json and val_2.json. Media: the segments as videos, {video}_{start}_{end}.mp4 with times in
seconds such as 0.83. --videos FOLDER cuts them out of the data set's videos (v_QOlSCBRmfWY.mp4, …) into the folder
--media-root; segments that are there stay, so that it can be started again.
"""

import argparse
import logging
import pathlib
import sys
from collections.abc import Iterator

from common.files import Entry, Source, read_object
from downstream.clips import Segment, cut_all
from downstream.frame import Dataset, Report, Row, Size, main

from unival.errors import UserError

FILES = {"train": "train.json", "valid": "val_1.json", "test": "val_2.json"}


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the builder's own arguments."""
    parser.add_argument("--videos", metavar="DIR", type=pathlib.Path, help="folder of whole videos, to cut segments from into --media-root")
    parser.add_argument("--workers", type=int, default=1, help="processes that cut (default: 1)")


def rows(source: Source, args: argparse.Namespace, report: Report) -> Iterator[Row]:
    """The rows: a segment of a video with its sentence."""
    if args.videos is not None and args.media_root is None:
        raise UserError(f"--videos {args.videos}: give --media-root, the folder for its segments")
    paths = {table: source.find(name) for table, name in FILES.items()}
    if not any(paths.values()):
        source.need(*FILES.values())
    found = {table: list(_segments(read_object(path), table, report)) for table, path in paths.items() if path}
    if args.videos is not None:
        wanted: dict[str, list[Segment]] = {}
        for those in found.values():
            for video, _, segment, _ in those:
                wanted.setdefault(video, []).append(segment)
        for line in cut_all(args.videos, wanted, pathlib.Path(args.media_root), args.workers):
            report.note(f"cannot be cut: {line}")
    for table, those in found.items():
        for video, number, (name, start, end), sentence in those:
            yield Row(table, f"{video}_{number}", [name], {"caption": [sentence], "start": start, "end": end})


def _segments(data: Entry, table: str, report: Report) -> Iterator[tuple[str, int, Segment, str]]:
    """Name of the video, number, times and sentence of every segment; of a few the annotators gave the end first."""
    for video in data.values:
        entry = Entry(data[video], f"{data.where}, {video!r}")
        times, sentences = entry.list("timestamps"), entry.list("sentences")
        if len(times) != len(sentences):
            entry.wrong("sentences", f"{len(times)} sentences, one for each of its timestamps")
        for i in range(len(times)):
            one = Entry({"timestamps": times[i], "sentences": sentences[i]}, f"{entry.where}, segment {i}")
            start, end = sorted(one.numbers("timestamps", 2))
            sentence = one.text("sentences")
            if start < 0 or end <= start or not sentence:
                report.refuse(table, "without a sentence" if end > start >= 0 else "without a duration")
                continue
            yield video, i, (f"{video}_{start:.2f}_{end:.2f}.mp4", start, end), sentence


SIZES = {"train": Size(37_421, "37.5K"), "valid": Size(17_505, "17K"), "test": Size(17_031, "17K")}
DATASET = Dataset("activitynet", __doc__, "video", rows, SIZES, references="caption", arguments=arguments)

if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    sys.exit(main(DATASET))
