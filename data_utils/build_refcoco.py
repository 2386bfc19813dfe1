"""RefCOCO, RefCOCO+ and RefCOCOg: a text and the box of what it refers to, in pixels of the original image.

Source: refs(unc).p, or for RefCOCOg refs(umd).p (or refs(google).p), and instances.json, of one data set's folder.
Media: the folder train2014 of COCO. Nothing in the pickle is executed. The tables of RefCOCO and RefCOCO+ are train,
valid, testA (people) and testB (other objects), of RefCOCOg train, valid and test. Texts are as people typed them ("raw"),
as in the published tables; the task cleans them.
"""

import argparse
import re
import sys
from collections.abc import Iterator

from common.files import Entry, Source, entries, read_object, read_pickle
from downstream.frame import Dataset, Report, Row, Size, main

TABLES = {"train": "train", "val": "valid", "test": "test", "testA": "testA", "testB": "testB"}
TESTS = "its 6K and 5K are testA and testB"
SIZES: dict[str, dict[str, Size]] = {
    "refcoco": {"train": Size(120_624, "120K"), "valid": Size(10_834, "6K", why=TESTS), "testA": Size(5_657), "testB": Size(5_095, "5K")},
    "refcoco+": {"train": Size(120_191, "120K"), "valid": Size(10_758, "6K", why=TESTS), "testA": Size(5_726), "testB": Size(4_889, "5K")},
    "refcocog": {"train": Size(80_512, "80K"), "valid": Size(4_896, "5K"), "test": Size(9_602, "10K")},
}
GOOGLE = {"train": Size(85_474), "valid": Size(9_536)}  # RefCOCOg's first division, in which an image may be in both tables
DIVISIONS = {"refcoco": ["unc"], "refcoco+": ["unc"], "refcocog": ["umd", "google"]}


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the builder's own arguments."""
    parser.add_argument("--variant", default="refcoco", choices=list(SIZES), help="which of the three it is (default: refcoco)")
    parser.add_argument("--division", choices=["unc", "umd", "google"], help="whose split (default: unc, for refcocog umd)")


def rows(source: Source, args: argparse.Namespace, report: Report) -> Iterator[Row]:
    """The rows: a text for a box; a box has several."""
    division = [args.division] if args.division else DIVISIONS[args.variant]
    refs = source.need(*(f"refs({name}).p" for name in division))
    instances = read_object(source.need("instances.json"))
    boxes = {box.integer("id"): box for box in instances.entries("annotations")}
    images = {image.integer("id"): image for image in instances.entries("images")}
    for ref in entries(read_pickle(refs), f"{refs}, entry"):
        table = TABLES[ref.choice("split", list(TABLES))]
        box, image = _known(ref, "ann_id", boxes), _known(ref, "image_id", images)
        name = re.sub(r"(_\d+)_\d+(\.\w+)$", r"\1\2", ref.name("file_name"))  # the refs' files are crops: image_object.jpg
        corners = _corners(box, image)
        if corners is None:
            report.refuse(table, "with a box that is not within the image")
            continue
        for sentence in ref.entries("sentences"):
            number = f"{ref.integer('ref_id')}_{sentence.integer('sent_id')}"
            text = (sentence.text("raw") if "raw" in sentence else "") or sentence.name("sent")
            yield Row(table, number, [f"train2014/{name}", name], {"text": text, "box": corners})


def _known(ref: Entry, key: str, those: dict[int, Entry]) -> Entry:
    return those[ref.integer(key)] if ref.integer(key) in those else ref.wrong(key, "one of instances.json")


def _corners(box: Entry, image: Entry) -> list[float] | None:
    """The corners of a box of x, y, width and height, cut to the image by what was rounded; None: it is no box in the image."""
    x, y, width, height = box.numbers("bbox", 4)
    right, bottom = image.integer("width"), image.integer("height")
    if width <= 0 or height <= 0 or min(x, y) < -1 or x + width > right + 1 or y + height > bottom + 1:
        return None
    return [round(value, 2) for value in (max(x, 0.0), max(y, 0.0), min(x + width, right), min(y + height, bottom))]


def sizes(args: argparse.Namespace) -> dict[str, Size]:
    """The sizes of one of the three data sets."""
    return GOOGLE if args.division == "google" else SIZES[args.variant]


DATASET = Dataset("refcoco", __doc__, "image", rows, sizes, references="text", arguments=arguments)

if __name__ == "__main__":
    sys.exit(main(DATASET))
