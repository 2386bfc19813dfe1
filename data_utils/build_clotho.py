"""Clotho v1: train (its development split), valid and test (both its evaluation split), with five captions per file.

Source: clotho_captions_development.csv and clotho_captions_evaluation.csv; with clotho_captions_validation.csv, which
version 2 has, that is valid. Media: the folders development, evaluation (and validation), or files in one folder.
"""

import argparse
import sys
from collections.abc import Iterator

from common.files import Source, read_csv
from downstream.frame import Dataset, Report, Row, Size, main

CAPTIONS = [f"caption_{i}" for i in range(1, 6)]


def rows(source: Source, args: argparse.Namespace, report: Report) -> Iterator[Row]:
    """The rows: a recording with its five captions."""
    tables = {"development": ["train"], "evaluation": ["valid", "test"]}
    if source.find("clotho_captions_validation.csv"):
        report.note("these are the files of version 2: the paper used version 1 (2,893 and 1,045 recordings)")
        tables |= {"validation": ["valid"], "evaluation": ["test"]}
    for split, those in tables.items():
        for entry in read_csv(source.need(f"clotho_captions_{split}.csv")):
            name, captions = entry.name("file_name"), [entry.text(key) for key in CAPTIONS]
            for table in those:
                yield Row(table, name, [f"{split}/{name}", name], {"caption": list(filter(None, captions))})


VERSION_1 = "the five captions of 2,893 recordings are 14,465; version 2 has 3,839 recordings"
SIZES = {"train": Size(2_893, "17.5K", of="references", why=VERSION_1), "valid": Size(1_045, "1K"), "test": Size(1_045)}
DATASET = Dataset("clotho", __doc__, "audio", rows, SIZES, references="caption")

if __name__ == "__main__":
    sys.exit(main(DATASET))
