"""Questions, and matching: is an answer right?

As published (UnIVAL's code, as measured): half of the answers to match are right. A wrong one is of the same type as the right one if the
right one's weight is above u + 0.1, with u uniform, else of the type "other" (an answer of low weight has rivals that may be right, too).
Types are those of VQA (Antol et al., 2015, arXiv:1505.00468): yes/no, number, other. Here a wrong answer is one of another row, and none of
the row's own; where the table seems to lack the type, it is of any.

Columns: ``question``, ``answer`` (weighted answers, annotators' answers or a plain one, as the attribute ``weighted`` takes them).  A row
of JSON lines may have several questions about one image, which is decoded and embedded once: a list of questions, and a list with a list
of answers for each.
"""

import re
from collections.abc import Sequence

import numpy as np

from unival.answers import answers_of
from unival.data.builders.base import Builder, Made, Negatives, Record, cell_of, slot_of
from unival.data.builders.grouped import places
from unival.data.builders.negatives import NO, YES, Reading, none_other, other_value
from unival.data.cells import is_joined
from unival.data.table import Table
from unival.metrics.vqa import NUMBERS

RIGHT = 0.5  # share of the answers to match that are right
DOUBT = 0.1  # a wrong answer has the type of the right one if the latter's weight exceeds a random number by so much
ROWS_OF_TYPE = 100  # that are drawn for an answer of a type before any other answer does
OTHER = "other"


def question_instructions(medium: str) -> dict[str, str]:
    """The published prompt of questions: the question."""
    return {"question": f"{slot_of(medium)} [TEXT:question,clean=question] -> [TEXT:answer,weighted]"}


def instructions(medium: str) -> dict[str, str]:
    """The published prompts of questions and of matching."""
    asked = 'what is the answer to question " [TEXT:question,clean=question] ". is " [TEXT:answer] "?'
    return {**question_instructions(medium), "matching": f"{slot_of(medium)} {asked} -> [TEXT:match]"}


def asked(record: Record, table: Table) -> Sequence[Record]:
    """The row, or one record for each of its questions where each has a list of answers."""
    cell = record.get("answer")
    if not (isinstance(cell, list) and cell and all(isinstance(item, list) for item in cell)):
        return [record]
    return places(record, ("question", "answer"))


def answers(record: Record, table: Table) -> dict[str, float]:
    """The answers of a question, with their weights."""
    return cell_of(record, "answer", lambda cell: answers_of(cell, is_joined(table)).weights)


def best(weights: dict[str, float]) -> str:
    """The answer that is learned: that of the highest weight."""
    return max(weights, key=weights.__getitem__)


def learned(record: Record, table: Table) -> list[str]:
    """The answers of a row's questions that are learned."""
    return [best(answers(each, table)) for each in asked(record, table)]


def type_of(answer: str) -> str:
    """The type of an answer: yes/no, number or other."""
    word = answer.strip().lower()
    if word in (YES, NO):
        return "yes/no"
    return "number" if word in NUMBERS or re.fullmatch(r"\d[\d.,:]*", word) else OTHER


def question(record: Record, table: Table, rng: np.random.Generator) -> Sequence[Made]:
    """The row's question, or each of several."""
    return [("question", each) for each in asked(record, table)]


def question_and_matching(record: Record, table: Table, rng: np.random.Generator, reading: Reading) -> Sequence[Made]:
    """The question, and the question with a right answer or a wrong one, and which it is; of each question."""
    made: list[Made] = []
    for each in asked(record, table):
        weights = answers(each, table)
        answer, is_right = best(weights), bool(rng.random() < RIGHT)
        if not is_right:
            answer = wrong_answer(answer, weights, table, rng, reading)
        made += [("question", each), ("matching", {**each, "answer": answer, "match": YES if is_right else NO})]
    return made


def wrong_answer(
    answer: str, weights: dict[str, float], table: Table, rng: np.random.Generator, reading: Reading
) -> str:
    """A wrong answer in place of a right one; ``weights`` has all answers of the row."""
    fits = reading.differs(weights)
    kind = type_of(answer) if weights[answer] > rng.random() + DOUBT else OTHER
    other = other_value(table, rng, learned, lambda text: type_of(text) == kind and fits(text), ROWS_OF_TYPE)
    if other is None:
        other = other_value(table, rng, learned, fits)
    if other is None:
        raise none_other("answer")
    return other


QUESTION = Builder(question, instructions=question_instructions)
QUESTION_AND_MATCHING = Builder(question_and_matching, ("match",), instructions, Negatives("matching", "answer", learned))
