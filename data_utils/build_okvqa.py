"""OK-VQA: train and valid, questions about images that need knowledge, with ten answers (of five annotators, each
twice).

Source: OpenEnded_mscoco_{train2014,val2014}_questions.json and mscoco_{train2014,val2014}_annotations.json. Media:
the folders train2014 and val2014 of COCO.

answers.txt has the most frequent answer of every question of train and val (the published evaluation has candidates
of both, too; how they were chosen is not published). A row of train has its candidates with weights, a row of valid
the ten answers.
"""

import argparse
import sys
from collections.abc import Iterator

from common.answers import as_given, candidates, normalise, weighted
from common.files import Source
from common.questions import read_questions
from downstream.frame import Dataset, Report, Row, Size, main

SPLITS = {"train": "train2014", "valid": "val2014"}


def rows(source: Source, args: argparse.Namespace, report: Report) -> Iterator[Row]:
    """The rows: a question about an image."""
    tables = {}
    for table, split in SPLITS.items():
        path = source.find(f"OpenEnded_mscoco_{split}_questions.json")
        if path:
            tables[table] = list(read_questions(path, source.need(f"mscoco_{split}_annotations.json"), split))
    if not tables:
        source.need(*(f"OpenEnded_mscoco_{split}_questions.json" for split in SPLITS.values()))
    report.answers = candidates(normalise(question.best) for questions in tables.values() for question in questions)
    known = set(report.answers)
    for table, questions in tables.items():
        for question in questions:
            answers = weighted(question.answers, known) if table == "train" else as_given(question.answers)
            yield Row(table, question.id, question.media, {"question": question.text, "answer": answers})


DATASET = Dataset("okvqa", __doc__, "image", rows, {"train": Size(9_009), "valid": Size(5_046, "5K")}, references="answer")

if __name__ == "__main__":
    sys.exit(main(DATASET))
