"""easy-VQA: train, valid and test of an image of one drawn shape, a question and its answer; and answers.txt.

Source: the folder easy_vqa/data of the Python package easy-vqa 1.0, with train and test in folders of these names:
`pip install --no-deps --target FOLDER easy-vqa==1.0` puts it into FOLDER. Media: the same folder. The official test
split is test.jsonl; every twentieth image of the official training split, with all of its questions, is in valid.jsonl.
"""

import argparse
import pathlib
import sys
from collections.abc import Iterator

from common.files import Entry, Source, read_json
from downstream.frame import ANSWERS, Dataset, Report, Row, Size, main

from unival.errors import UserError
from unival.text import read_text

PARTS = ("train", "test")
QUESTIONS = "questions.json"
KEYS = ("question", "answer", "image")
HELD_OUT = 20  # one image of the training split in so many is for validation


def rows(source: Source, args: argparse.Namespace, report: Report) -> Iterator[Row]:
    """The rows: one for each question about an image."""
    report.answers = read_text(source.need(ANSWERS)).split()
    for part in PARTS:
        for number, entry in enumerate(_questions(source.need(f"{part}/{QUESTIONS}"))):
            image = entry.integer("image")
            values = {"question": entry.name("question"), "answer": entry.choice("answer", report.answers)}
            table = "valid" if part == "train" and image % HELD_OUT == 0 else part
            yield Row(table, f"{part}-{number}", [f"{part}/images/{image}.png"], values)


def _questions(path: pathlib.Path) -> Iterator[Entry]:
    """The file is a list of [question, answer, image]."""
    listed = read_json(path)
    if not isinstance(listed, list):
        raise UserError(f"{path}: expected a list of [question, answer, image]")
    for number, item in enumerate(listed):
        where = f"{path}, entry {number}"
        if not isinstance(item, list) or len(item) != len(KEYS):
            raise UserError(f"{where}: expected [question, answer, image]")
        yield Entry(dict(zip(KEYS, item, strict=True)), where)


SIZES = {"train": Size(36_631), "valid": Size(1_944), "test": Size(9_673)}
DATASET = Dataset("easy_vqa", __doc__, "image", rows, SIZES, references="answer")

if __name__ == "__main__":
    sys.exit(main(DATASET))
