"""Questions about COCO's images in the files of the VQA challenge, which OK-VQA has as well."""

import pathlib
import sys
from collections.abc import Iterator
from dataclasses import dataclass

from unival.errors import UserError

from .answers import majority
from .files import Entry
from .json_stream import stream_list


@dataclass(frozen=True)
class Question:
    """A question about an image, with the annotators' answers (none in a test split) and the most frequent of them."""

    id: int
    image: int
    text: str
    split: str
    answers: list[str]
    best: str

    @property
    def media(self) -> list[str]:
        """Where its image may be."""
        name = f"COCO_{self.split}_{self.image:012d}.jpg"
        return [f"{self.split}/{name}", name]


def read_questions(questions: pathlib.Path, annotations: pathlib.Path | None, split: str) -> Iterator[Question]:
    """The questions of a file, with the answers that another one has; of both, the answers are in memory.

    Args:
        split: folder of the images, such as "train2014"; their files are named after it.

    Raises:
        UserError: a question has no answers in ``annotations``.
    """
    answers = {} if annotations is None else _answers(annotations)
    for question in stream_list(questions, "questions"):
        number = question.integer("question_id")
        if annotations is not None and number not in answers:
            raise UserError(f"{question.where}, key 'question_id': {annotations} has no answers for {number}")
        given, best = answers.get(number, ([], ""))
        yield Question(number, question.integer("image_id"), question.name("question"), split, given, best)


def _answers(path: pathlib.Path) -> dict[int, tuple[list[str], str]]:
    found = {}
    for entry in stream_list(path, "annotations"):
        answers = texts_of(entry)
        best = entry.text("multiple_choice_answer") if "multiple_choice_answer" in entry else majority(answers)
        found[entry.integer("question_id")] = answers, sys.intern(best)
    return found


def texts_of(entry: Entry) -> list[str]:
    """The texts of an entry's answers."""
    where = f"{entry.where}, answers"
    return [sys.intern(Entry(answer, where).text("answer")) for answer in entry.list("answers")]
