"""COCO captions in Karpathy's split: train (with restval), valid and test of 5,000 images each.

Source: dataset_coco.json (of the archive caption_datasets.zip). Media: the folders train2014 and val2014.
"""

import argparse
import sys
from collections.abc import Iterator

from common.files import Source, read_object
from downstream.frame import Dataset, Report, Row, Size, main

TABLES = {"train": "train", "restval": "train", "val": "valid", "test": "test"}


def rows(source: Source, args: argparse.Namespace, report: Report) -> Iterator[Row]:
    """The rows: an image with its five or so captions."""
    for image in read_object(source.need("dataset_coco.json")).entries("images"):
        table, name = TABLES[image.choice("split", list(TABLES))], image.name("filename")
        captions = [sentence.text("raw") for sentence in image.entries("sentences")]
        yield Row(table, image.integer("cocoid"), [f"{image.name('filepath')}/{name}", name], {"caption": list(filter(None, captions))})


SIZES = {"train": Size(113_287, "113K"), "valid": Size(5_000, "5K"), "test": Size(5_000, "5K")}
DATASET = Dataset("coco", __doc__, "image", rows, SIZES, references="caption")

if __name__ == "__main__":
    sys.exit(main(DATASET))
