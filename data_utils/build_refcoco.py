"""RefCOCO, RefCOCO+ and RefCOCOg: a text and the box of what it refers to, in pixels of the original image.

Source: refs(unc).p, or for RefCOCOg refs(umd).p (or refs(google).p), and instances.json, of one data set's folder.
Media: the folder train2014 of COCO. Nothing in the pickle is executed. The tables of RefCOCO and RefCOCO+ are train,
valid, testA (people) and testB (other objects), of RefCOCOg train, valid and test. Texts are as people typed them ("raw"),
as in the published tables; the task cleans them.
"""

import argparse
import sys
from collections.abc import Iterator

from common.files import Source
from common.refs import read_refs
from downstream.frame import Dataset, Report, Row, Size, main

TABLES = {"train": "train", "val": "valid", "test": "test", "testA": "testA", "testB": "testB"}
TESTS = "its 6K and 5K are testA and testB"
SIZES: dict[str, dict[str, Size]] = {
    "refcoco": {"train": Size(120_624, "120K"), "valid": Size(10_834, "6K", why=TESTS), "testA": Size(5_657), "testB": Size(5_095, "5K")},
    "refcoco+": {"train": Size(120_191, "120K"), "valid": Size(10_758, "6K", why=TESTS), "testA": Size(5_726), "testB": Size(4_889, "5K")},
    "refcocog": {"train": Size(80_512, "80K"), "valid": Size(4_896, "5K"), "test": Size(9_602, "10K")},
}
GOOGLE = {"train": Size(85_474), "valid": Size(9_536)}  # RefCOCOg's first division, in which an image may be in both tables


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the builder's own arguments."""
    parser.add_argument("--variant", default="refcoco", choices=list(SIZES), help="which of the three it is (default: refcoco)")
    parser.add_argument("--division", choices=["unc", "umd", "google"], help="whose split (default: unc, for refcocog umd)")


def rows(source: Source, args: argparse.Namespace, report: Report) -> Iterator[Row]:
    """The rows: a text for a box; a box has several."""
    for ref in read_refs(source, args.variant, args.division):
        table = TABLES[ref.split]
        if ref.box is None:
            report.refuse(table, "with a box that is not within the image")
            continue
        yield Row(table, ref.id, [f"train2014/{ref.name}", ref.name], {"text": ref.text, "box": ref.box})


def sizes(args: argparse.Namespace) -> dict[str, Size]:
    """The sizes of one of the three data sets."""
    return GOOGLE if args.division == "google" else SIZES[args.variant]


DATASET = Dataset("refcoco", __doc__, "image", rows, sizes, references="text", arguments=arguments)

if __name__ == "__main__":
    sys.exit(main(DATASET))
