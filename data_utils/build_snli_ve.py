"""SNLI-VE: train, valid and test of an image, a hypothesis, the premise (a caption of the image) and a label.

Source: snli_ve_train.jsonl, snli_ve_dev.jsonl and snli_ve_test.jsonl. Media: the images of Flickr30k, in one folder
or in flickr30k_images. The labels stay as they are (entailment, neutral, contradiction); the task unival_entailment
reads them as yes, maybe and no.
"""

import argparse
import sys
from collections.abc import Iterator

from common.files import Source, read_lines
from downstream.frame import Dataset, Report, Row, Size, main

FILES = {"train": "snli_ve_train.jsonl", "valid": "snli_ve_dev.jsonl", "test": "snli_ve_test.jsonl"}
LABELS = ("entailment", "neutral", "contradiction")
NO_LABEL = "-"  # the annotators do not agree


def rows(source: Source, args: argparse.Namespace, report: Report) -> Iterator[Row]:
    """The rows: an image with a hypothesis about it."""
    paths = {table: source.find(name) for table, name in FILES.items()}
    if not any(paths.values()):
        source.need(*FILES.values())
    for table, path in paths.items():
        for entry in read_lines(path) if path else ():
            label = entry.choice("gold_label", (*LABELS, NO_LABEL))
            if label == NO_LABEL:
                report.leave_out(table, "without a label")
                continue
            name = f"{entry.name('Flickr30K_ID').removesuffix('.jpg')}.jpg"
            values = {"hypothesis": entry.name("sentence2"), "premise": entry.text("sentence1"), "label": label}
            yield Row(table, entry.name("pairID"), [name, f"flickr30k_images/{name}", f"flickr30k-images/{name}"], values)


SIZES = {
    "train": Size(529_527, "30K", of="media"),
    "valid": Size(17_858, "1K", of="media"),
    "test": Size(17_901, "1K", of="media"),
}
DATASET = Dataset("snli_ve", __doc__, "image", rows, SIZES, references="label")

if __name__ == "__main__":
    sys.exit(main(DATASET))
