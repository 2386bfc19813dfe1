"""VizWiz: train, valid and test of questions that blind people asked about images they took, with ten answers (test
has none).

Source: train.json, val.json and test.json. Media: the folders train, val and test, or images in one folder.

answers.txt has the most frequent answer of every question of train and val (the published evaluation has candidates
of both, too; how they were chosen is not published). A row of train has its candidates with weights, a row of valid
the ten answers.
"""

import argparse
import sys
from collections.abc import Iterator

from common.answers import as_given, candidates, majority, normalise, weighted
from common.files import Source, read_list
from common.questions import texts_of
from downstream.frame import Dataset, Report, Row, Size, main

SPLITS = {"train": "train", "valid": "val", "test": "test"}


def rows(source: Source, args: argparse.Namespace, report: Report) -> Iterator[Row]:
    """The rows: a question about an image."""
    paths = {table: source.find(f"{split}.json") for table, split in SPLITS.items()}
    if not any(paths.values()):
        source.need(*(f"{split}.json" for split in SPLITS.values()))
    entries = {table: list(read_list(path)) for table, path in paths.items() if path}
    given = {table: [texts_of(entry) for entry in those] for table, those in entries.items() if table != "test"}
    report.answers = candidates(normalise(majority(answers)) for those in given.values() for answers in those)
    known = set(report.answers)
    for table, those in entries.items():
        for i, entry in enumerate(those):
            name, values = entry.name("image"), {"question": entry.name("question")}
            if table in given:
                answers = given[table][i]
                values["answer"] = weighted(answers, known) if table == "train" else as_given(answers)
            yield Row(table, name, [f"{SPLITS[table]}/{name}", name], values)


SIZES = {"train": Size(20_523), "valid": Size(4_319, "4.3K"), "test": Size(8_000)}
DATASET = Dataset("vizwiz", __doc__, "image", rows, SIZES, references="answer")

if __name__ == "__main__":
    sys.exit(main(DATASET))
