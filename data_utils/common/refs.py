"""The files of RefCOCO, RefCOCO+ and RefCOCOg: texts and the boxes of what they refer to."""

import pathlib
import re
from collections.abc import Iterator
from dataclasses import dataclass

from .files import Entry, Source, entries, read_object, read_pickle

SPLITS = ("train", "val", "test", "testA", "testB")
DIVISIONS = {"refcoco": ["unc"], "refcoco+": ["unc"], "refcocog": ["umd", "google"]}  # whose splits, the first that there is


@dataclass(frozen=True)
class Reference:
    """A text and a box.

    Attributes:
        id: its id in the data set.
        split: one of :data:`SPLITS`.
        image: COCO's id of the image.
        name: the image's file, of the folder train2014.
        text: as people typed it.
        box: left, upper, right and lower edge in pixels; None: it is no box within the image.
    """

    id: str
    split: str
    image: int
    name: str
    text: str
    box: list[float] | None


def find_refs(source: Source, variant: str, division: str | None = None) -> pathlib.Path:
    """The file with the references of one of the three, by the division that is given or usual."""
    return source.need(*(f"refs({name}).p" for name in ([division] if division else DIVISIONS[variant])))


def read_splits(refs: pathlib.Path) -> Iterator[tuple[str, int]]:
    """The split and COCO's id of the image, of every box that is referred to."""
    for ref in entries(read_pickle(refs), f"{refs}, entry"):
        yield ref.choice("split", SPLITS), ref.integer("image_id")


def read_refs(source: Source, variant: str, division: str | None = None) -> Iterator[Reference]:
    """The references of one of the three data sets.

    Args:
        source: its folder.
        variant: a key of :data:`DIVISIONS`.
        division: whose split; None: the usual one.
    """
    refs = find_refs(source, variant, division)
    instances = read_object(source.need("instances.json"))
    boxes = {box.integer("id"): box for box in instances.entries("annotations")}
    images = {image.integer("id"): image for image in instances.entries("images")}
    for ref in entries(read_pickle(refs), f"{refs}, entry"):
        split = ref.choice("split", SPLITS)
        box, image = _known(ref, "ann_id", boxes), _known(ref, "image_id", images)
        name = re.sub(r"(_\d+)_\d+(\.\w+)$", r"\1\2", ref.name("file_name"))  # the refs' files are crops: image_object.jpg
        corners = _corners(box, image)
        for sentence in ref.entries("sentences"):
            number = f"{ref.integer('ref_id')}_{sentence.integer('sent_id')}"
            text = (sentence.text("raw") if "raw" in sentence else "") or sentence.name("sent")
            yield Reference(number, split, ref.integer("image_id"), name, text, corners)


def _known(ref: Entry, key: str, those: dict[int, Entry]) -> Entry:
    return those[ref.integer(key)] if ref.integer(key) in those else ref.wrong(key, "one of instances.json")


def _corners(box: Entry, image: Entry) -> list[float] | None:
    """The corners of a box of x, y, width and height, cut to the image by what was rounded; None: it is no box in the image."""
    x, y, width, height = box.numbers("bbox", 4)
    right, bottom = image.integer("width"), image.integer("height")
    if width <= 0 or height <= 0 or min(x, y) < -1 or x + width > right + 1 or y + height > bottom + 1:
        return None
    return [round(value, 2) for value in (max(x, 0.0), max(y, 0.0), min(x + width, right), min(y + height, bottom))]
