"""Questions about images: VQAv2 (its training split) and GQA (the balanced training questions).

All answers of annotators are kept, with weights: pretraining has no candidates.
"""

from collections.abc import Iterator

from common.answers import normalise, weighted
from common.files import Entry
from common.json_stream import stream_object
from common.questions import read_questions

from .rows import Context, Reader, Row, Table
from .visual_genome import read_images

SPLIT = "train2014"


def vqa(context: Context) -> Iterator[Row]:
    """The rows of VQAv2."""
    questions = context.source.need(f"v2_OpenEnded_mscoco_{SPLIT}_questions.json")
    for question in read_questions(questions, context.source.need(f"v2_mscoco_{SPLIT}_annotations.json"), SPLIT):
        paths = [path for name in question.media for path in context.below_root(name)]
        values = {"question": question.text, "answer": weighted(question.answers), "objects": []}
        yield Row("vqa", question.id, paths, values, coco=question.image)


def gqa(context: Context) -> Iterator[Row]:
    """The rows of GQA. Which of its images are COCO's, image_data.json of Visual Genome says."""
    path = context.source.need("train_balanced_questions.json")
    images = read_images(context)
    for number, value in stream_object(path):
        entry = Entry(value, f"{path}, {number}")
        image = images.get(entry.integer("imageId")) or entry.wrong("imageId", "one of image_data.json")
        file = f"{entry.integer('imageId')}.jpg"
        answer = normalise(entry.text("answer"))
        values = {"question": entry.text("question"), "answer": {answer: 1.0} if answer else {}, "objects": []}
        paths = context.below_root(f"images/{file}", file, image.file)
        yield Row("gqa", number, paths, values, coco=image.coco, flickr=image.flickr)


READERS = {
    "vqa": Reader({"vqa": Table("questions", 443_757)}, "image", vqa),
    "gqa": Reader({"gqa": Table("questions", 943_000)}, "image", gqa),
}
