"""COCO captions: captions_train2014.json, and with ``--held-out coco`` captions_val2014.json too, most of whose images are for training in
Karpathy's split. A row is a caption. With instances_{train,val}2014.json it has the names of the image's objects.
"""

import sys
from collections.abc import Iterator

from common.json_stream import stream_list

from .rows import Context, Reader, Row, Table

NAME = "COCO_{split}_{image:012d}.jpg"


def rows(context: Context) -> Iterator[Row]:
    """The rows: an image with one of its captions."""
    context.source.need("captions_train2014.json")
    for split in ("train2014", "val2014"):
        path = context.source.find(f"captions_{split}.json")
        if path is None:
            continue
        if split == "val2014" and "coco" not in context.held_out:
            context.note(f"{path.name} is not read: which of its images are for evaluation, --held-out coco=FOLDER says")
            continue
        objects = _objects(context, split)
        for caption in stream_list(path, "annotations"):
            image = caption.integer("image_id")
            name = NAME.format(split=split, image=image)
            values = {"caption": caption.text("caption"), "objects": list(objects.get(image, ()))}
            yield Row("coco", caption.integer("id"), context.below_root(f"{split}/{name}", name), values, coco=image)


def _objects(context: Context, split: str) -> dict[int, tuple[str, ...]]:
    """The names of the objects in an image, by its id."""
    path = context.source.find(f"instances_{split}.json")
    if path is None:
        return {}
    names = {entry.integer("id"): sys.intern(entry.name("name")) for entry in stream_list(path, "categories")}
    found: dict[int, tuple[str, ...]] = {}
    for entry in stream_list(path, "annotations"):
        number, image = entry.integer("category_id"), entry.integer("image_id")
        name = names[number] if number in names else entry.wrong("category_id", "one of the file's categories")
        if name not in found.get(image, ()):
            found[image] = (*found.get(image, ()), name)
    return found


READER = Reader({"coco": Table("captions")}, "image", rows)
