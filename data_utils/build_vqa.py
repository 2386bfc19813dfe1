"""VQAv2, and with --visual-genome the questions of Visual Genome in train: questions about images, answers of ten
annotators.

Source: v2_OpenEnded_mscoco_{train2014,val2014,test2015,test-dev2015}_questions.json and
v2_mscoco_{train2014,val2014}_annotations.json; question_answers.json and image_data.json of Visual Genome; with
--karpathy dataset_coco.json. Media: the folders train2014, val2014, test2015, VG_100K and VG_100K_2.

answers.txt has the candidate answers: those that are the most frequent one of at least nine questions of train and
val by the official normalisation (3,129 with both). A row of train has its candidates with weights (0.3 for each
annotator, at most 1), a row of valid the ten answers; test (test-std) and test_dev have none. valid is val2014, or
with --karpathy the questions about Karpathy's 5,000 validation images; then train has the other questions of val2014,
but for those about his test images, which are test_karpathy. (The published tables keep some 10,000 questions of
val2014 for validation; which ones, only these tables say.) Questions of Visual Genome about images of valid or
test_karpathy are left out.
"""

import argparse
import sys
from collections.abc import Iterator, Mapping

from common.answers import as_given, candidates, normalise, weighted
from common.files import Source, read_list, read_object
from common.questions import Question, read_questions
from downstream.frame import Dataset, Report, Row, Size, main

from unival.errors import counted

LEAST = 9  # questions that a candidate answer must be the most frequent answer of
PUBLISHED = 3_129
VISUAL_GENOME = 1_445_322  # questions of version 1.2
TESTS = {"test": "test2015", "test_dev": "test-dev2015"}
SIZES = {
    "train": Size(443_757, "443K"),
    "valid": Size(214_354, "214K"),
    "test": Size(447_793, "453K", why="the number of the data set's paper; the file that is distributed has 447,793"),
    "test_dev": Size(107_394),
}


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the builder's own arguments."""
    parser.add_argument("--visual-genome", action="store_true", help="add the questions of Visual Genome to train")
    parser.add_argument("--karpathy", action="store_true", help="divide by dataset_coco.json, so that train has most of val2014")
    parser.add_argument("--least", type=int, default=LEAST, help=f"questions with a candidate answer (default: {LEAST})")


def sizes(args: argparse.Namespace) -> Mapping[str, Size]:
    """The published sizes; nobody says how many questions there are with Visual Genome or by Karpathy's division."""
    unknown = {"train": Size()} if args.visual_genome or args.karpathy else {}
    return {**SIZES, **unknown, **({"valid": Size(), "test_karpathy": Size()} if args.karpathy else {})}


def rows(source: Source, args: argparse.Namespace, report: Report) -> Iterator[Row]:
    """The rows: a question about an image."""
    official = {"train": _questions(source, "train2014"), "valid": _questions(source, "val2014")}
    if not any(official.values()):
        source.need(*(f"v2_OpenEnded_mscoco_{split}_questions.json" for split in ("train2014", "val2014")))
    everything = [question for questions in official.values() for question in questions]
    answers = candidates((normalise(question.best) for question in everything), args.least)
    if official["train"] and official["valid"] and args.least == LEAST and len(answers) != PUBLISHED:
        report.note(f"{counted(len(answers), 'candidate answer')}, {PUBLISHED:,} in the published recipes")
    report.answers, known = answers, set(answers)
    tables = _tables_of_images(source) if args.karpathy else {}
    held_out = set()
    for table, questions in official.items():
        for question in questions:
            place = tables.get(question.image, "train") if args.karpathy else table
            if place == "train":
                yield from _to_train(question, known, report)
                continue
            held_out.add(question.image)
            yield Row(place, question.id, question.media, {"question": question.text, "answer": as_given(question.answers)})
    if args.visual_genome:
        yield from _visual_genome(source, known, held_out, report)
    for table, split in TESTS.items():
        path = source.find(f"v2_OpenEnded_mscoco_{split}_questions.json")
        for question in read_questions(path, None, "test2015") if path else ():
            yield Row(table, question.id, question.media, {"question": question.text})


def _questions(source: Source, split: str) -> list[Question]:
    path = source.find(f"v2_OpenEnded_mscoco_{split}_questions.json")
    return list(read_questions(path, source.need(f"v2_mscoco_{split}_annotations.json"), split)) if path else []


def _to_train(question: Question, known: set[str], report: Report) -> Iterator[Row]:
    answers = weighted(question.answers, known)
    if answers:
        yield Row("train", question.id, question.media, {"question": question.text, "answer": answers})
    else:
        report.leave_out("train", "without a candidate answer")


def _tables_of_images(source: Source) -> dict[int, str]:
    """COCO's id of an image -> the table of its questions, for images that are not for training."""
    held = {"val": "valid", "test": "test_karpathy"}
    images = read_object(source.need("dataset_coco.json")).entries("images")
    return {image.integer("cocoid"): held[image["split"]] for image in images if image["split"] in held}


def _visual_genome(source: Source, known: set[str], held_out: set[int], report: Report) -> Iterator[Row]:
    images = {image.integer("image_id"): image for image in read_list(source.need("image_data.json"))}
    seen = used = 0
    for entry in read_list(source.need("question_answers.json")):
        for question in entry.entries("qas"):
            seen += 1
            number, answer = question.integer("image_id"), normalise(question.text("answer"))
            image = images[number] if number in images else question.wrong("image_id", "one of image_data.json")
            if answer not in known:
                report.leave_out("train", "of Visual Genome without a candidate answer")
            elif image["coco_id"] in held_out:
                report.leave_out("train", "of Visual Genome about images that are held out")
            else:
                used += 1
                path = "/".join(image.name("url").split("/")[-2:])  # …/VG_100K_2/1.jpg
                values = {"question": question.name("question"), "answer": {answer: 1.0}}
                yield Row("train", f"vg{question.integer('qa_id')}", [path, path.split("/")[1]], values)
    differs = "" if seen == VISUAL_GENOME else f" (version 1.2 has {VISUAL_GENOME:,})"
    report.note(f"in train: {used:,} of {counted(seen, 'question')} of Visual Genome{differs}")


DATASET = Dataset("vqa", __doc__, "image", rows, sizes, references="answer", arguments=arguments)

if __name__ == "__main__":
    sys.exit(main(DATASET))
