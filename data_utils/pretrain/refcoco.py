"""RefCOCO, RefCOCO+ and RefCOCOg: the training split of each, a text and a box.

An image for training in one may be for testing in another.
"""

from collections.abc import Iterator

from common.refs import read_refs

from .rows import Context, Reader, Row, Table

ROWS = {"refcoco": 120_624, "refcoco+": 120_191, "refcocog": 80_512}


def rows(context: Context) -> Iterator[Row]:
    """The rows: a text for a box; a box has several."""
    for ref in read_refs(context.source, context.name):
        if ref.split == "train":
            paths = context.below_root(f"train2014/{ref.name}", ref.name)
            yield Row(context.name, ref.id, paths, {"text": ref.text, "box": ref.box}, coco=ref.image)


READERS = {name: Reader({name: Table("grounding", count)}, "image", rows) for name, count in ROWS.items()}
