"""Visual Genome: regions (a text and a box), captions and questions. GQA's images are its images, too.

Files: image_data.json, region_descriptions.json, question_answers.json and objects.json (for the names of objects; optional).

The paper has some 0.8 million captions, and does not say which: here they are the texts of regions that cover at least 30% of the image.
"""

import sys
from collections.abc import Iterator
from dataclasses import dataclass

from common.answers import normalise
from common.files import Entry
from common.json_stream import stream_list

from .rows import Context, Reader, Row, Table, corners

COVERED = 0.3  # part of the image that the region of a caption covers


@dataclass(frozen=True, slots=True)
class Image:
    """An image: its file, its size in pixels, and its ids elsewhere."""

    file: str
    width: int
    height: int
    coco: int | None
    flickr: int | None


def read_images(context: Context) -> dict[int, Image]:
    """The images by their ids, of the data set's folder or that of Visual Genome."""
    path = context.source.find("image_data.json")
    if path is None:
        path = context.sources.get("vg", context.source).need("image_data.json")
    return {entry.integer("image_id"): _image(entry) for entry in stream_list(path)}


def _image(entry: Entry) -> Image:
    ids = [None if entry[key] is None else entry.integer(key) for key in ("coco_id", "flickr_id")]
    file = "/".join(entry.name("url").split("/")[-2:])  # …/VG_100K_2/1.jpg
    return Image(file, entry.integer("width"), entry.integer("height"), *ids)


def rows(context: Context) -> Iterator[Row]:
    """The rows: of every region one, or two where it is a caption as well; of every question one."""
    regions, questions = context.source.find("region_descriptions.json"), context.source.find("question_answers.json")
    if regions is None and questions is None:
        context.source.need("region_descriptions.json", "question_answers.json")
    images = read_images(context)
    objects = _objects(context)
    for entry in stream_list(regions) if regions else ():
        for region in entry.entries("regions"):
            yield from _region(context, region, _of(region, images), objects)
    for entry in stream_list(questions) if questions else ():
        for question in entry.entries("qas"):
            image, number = _of(question, images), question.integer("image_id")
            answer = normalise(question.text("answer"))
            values = {"question": question.text("question"), "answer": {answer: 1.0} if answer else {}}
            yield _row(context, "vg_questions", question.integer("qa_id"), image, values | {"objects": objects.get(number, [])})


def _region(context: Context, region: Entry, image: Image, objects: dict[int, list[str]]) -> Iterator[Row]:
    box = corners([region.integer(key) for key in ("x", "y", "width", "height")], image.width, image.height)
    text, number = region.text("phrase"), region.integer("region_id")
    yield _row(context, "vg_regions", number, image, {"text": text, "box": box})
    if box is not None and (box[2] - box[0]) * (box[3] - box[1]) >= COVERED * image.width * image.height:
        values = {"caption": text, "objects": objects.get(region.integer("image_id"), [])}
        yield _row(context, "vg_captions", number, image, values)


def _row(context: Context, table: str, number: int, image: Image, values: dict) -> Row:
    paths = context.below_root(image.file, image.file.rsplit("/", 1)[-1])
    return Row(table, number, paths, values, coco=image.coco, flickr=image.flickr)


def _of(entry: Entry, images: dict[int, Image]) -> Image:
    number = entry.integer("image_id")
    return images[number] if number in images else entry.wrong("image_id", "one of image_data.json")


def _objects(context: Context) -> dict[int, list[str]]:
    """The names of the objects in an image, each once, by its id."""
    path = context.source.find("objects.json")
    found = {}
    for entry in stream_list(path) if path else ():
        names = [_first_name(each) for each in entry.entries("objects")]
        found[entry.integer("image_id")] = list(dict.fromkeys(filter(None, names)))
    return found


def _first_name(entry: Entry) -> str:
    names = entry.list("names")
    if not all(isinstance(name, str) for name in names):
        entry.wrong("names", "a list of texts")
    return sys.intern(" ".join(names[0].split())) if names else ""


READER = Reader(
    {"vg_captions": Table("captions"), "vg_regions": Table("grounding"), "vg_questions": Table("questions", 1_445_322)}, "image", rows
)
