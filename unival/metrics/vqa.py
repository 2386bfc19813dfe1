"""Scores of answers to questions about images: the official VQA accuracy, and the weight of the answer that published recipes report.

The official rules are those of the VQA challenge's ``vqaEval.py`` (Antol et al., 2015, arXiv:1505.00468). VQAv2 and VizWiz have ten answers
per question; OK-VQA has five, each of which its annotation files hold twice, so that there are ten as well.
"""

import functools
import re
from collections.abc import Sequence
from typing import Any

from unival.answers import answers_of, weights_of
from unival.metrics.base import MeanMetric
from unival.metrics.exact_match import normalize
from unival.text import is_weighted_answer

ANNOTATORS = 10
NEEDS_ANNOTATORS = f"vqa_accuracy needs a list of the answers of {ANNOTATORS} annotators"
ENOUGH = 3  # annotators among the nine others who must give an answer for it to count in full

NUMBER_WORDS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")
NUMBERS = {"none": "0", **{word: str(i) for i, word in enumerate(NUMBER_WORDS)}}
ARTICLES = {"a", "an", "the"}
PUNCTUATION = ";/[]\"{}()=+\\_-><@`,?!"
DIGIT_GROUPS = re.compile(r"\d,\d")
PERIOD = re.compile(r"\.(?!\d)")  # the official pattern looks for a digit before the period, too, but misspells it
PERIODS = 32  # at most; the official code passes re.UNICODE, which is 32, where the number of replacements stands
# Words that get their apostrophe back where one of it is missing. What is not here stays: "shes", "ill", "im".
CONTRACTED = """
    ain't aren't can't could've couldn't couldn't've didn't doesn't don't hadn't hadn't've hasn't haven't he'd he'd've he's
    how'd how'll how's isn't it'd it'd've it'll ma'am mightn't mightn't've might've mustn't must've needn't not've o'clock
    oughtn't 'ow's'at shan't she'd've should've shouldn't shouldn't've somebody'd've somebody'll somebody's someone'd
    someone'd've someone'll someone's something'd something'd've something'll that's there'd there'd've there're there's
    they'd they'd've they'll they're they've 'twas wasn't we'd've we've weren't what'll what're what's what've when's
    where'd where's where've who'd who'd've who'll who's who've why'll why're why's won't would've wouldn't wouldn't've
    y'all y'all'll y'all'd've you'd you'd've you'll you're you've
"""


def _without_one(word: str) -> list[str]:
    """The word with each of its apostrophes missing."""
    return [word[:i] + word[i + 1 :] for i, character in enumerate(word) if character == "'"]


CONTRACTIONS = {lacking: word for word in CONTRACTED.split() for lacking in _without_one(word)} | {"somebody'd": "somebodyd"}


@functools.lru_cache(maxsize=1 << 14)
def process(answer: str) -> str:
    """An answer as the official rules compare it.

    Punctuation but apostrophes, colons and periods goes: a mark is replaced by a space, or by nothing where the answer has it beside a
    space, or where the answer has a comma between digits. Periods go unless a digit follows. Then words are put in lower case, numbers up
    to ten become digits, articles go, and contractions get their apostrophe.

    >>> process("A couple of dogs, two cats."), process("1,000.5"), process("dont know")
    ('couple of dogs 2 cats', '1000.5', "don't know")
    """
    text = answer
    for mark in PUNCTUATION:
        joins = f"{mark} " in answer or f" {mark}" in answer or DIGIT_GROUPS.search(answer)
        text = text.replace(mark, "" if joins else " ")
    words = PERIOD.sub("", text, count=PERIODS).lower().split()
    numbered = [NUMBERS.get(word, word) for word in words]
    return " ".join(CONTRACTIONS.get(word, word) for word in numbered if word not in ARTICLES)


class AnswerMetric(MeanMetric):
    """A metric whose references are answers, with or without weights (:mod:`unival.answers`)."""

    reads = "answers"
    needs_words = False

    def form(self, text: str) -> str:
        """As :func:`unival.metrics.exact_match.normalize`."""
        return normalize(text)

    @classmethod
    def references(cls, cell: Any, is_joined: bool) -> tuple[list[str], int]:
        """The answers of a cell, and how many are blank."""
        answers = answers_of(cell, is_joined)
        return answers.texts, answers.blank


class VqaScore(AnswerMetric):
    """The weight of the answer, 0 if it has none: the score which published recipes report.

    Answers with weights are compared but for case and the number of spaces. Annotators' own answers are counted as :func:`process` makes
    them, as for the weights of the published tables, and the text is compared so, too.
    """

    name = "vqa_score"
    keys = ("vqa_score",)

    def score(self, hypothesis: str, references: Sequence[str]) -> float:
        """Between 0 and 1."""
        if len(references) > 1 and not any(map(is_weighted_answer, references)):
            return weights_of([process(answer) for answer in references]).get(process(hypothesis), 0.0)
        said = normalize(hypothesis)
        return max((weight for answer, weight in weights_of(references).items() if normalize(answer) == said), default=0.0)


class VqaAccuracy(AnswerMetric):
    """The official accuracy: the mean over the ten annotators of ``min(1, n / 3)``, where ``n`` of the nine others gave the answer."""

    name = "vqa_accuracy"
    keys = ("vqa_accuracy",)

    def form(self, text: str) -> str:
        """See :func:`process`."""
        return process(text)

    def refusal(self, references: Sequence[str]) -> str | None:
        """Anything but ten plain answers is refused."""
        if any(map(is_weighted_answer, references)):
            return f"{NEEDS_ANNOTATORS}, and this has weights (or one answer): use vqa_score or accuracy"
        return None if len(references) == ANNOTATORS else f"{NEEDS_ANNOTATORS}, got {len(references)}: use vqa_score or accuracy"

    def score(self, hypothesis: str, references: Sequence[str]) -> float:
        """Answers are compared as they are where all annotators agree, else as :func:`process` makes them."""
        said, *answers = (" ".join(text.replace("\t", " ").split("\n")).strip() for text in (hypothesis, *references))
        if len(set(answers)) > 1:
            said, answers = process(said), [process(answer) for answer in answers]
        given = answers.count(said)
        # Leaving out one of the annotators who gave it leaves given - 1 of them, leaving out another leaves all.
        return (given * min(1.0, (given - 1) / ENOUGH) + (len(answers) - given) * min(1.0, given / ENOUGH)) / len(answers)
