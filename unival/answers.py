"""Answers with weights, as cells and as text: what cells of tables, targets and metrics share."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from numbers import Real
from typing import Any

from unival.errors import UserError, kind_of
from unival.text import WEIGHT_MARK, is_weighted_answer, not_empty, texts_of, why_not_text

SHOWN = 60  # characters of a cell that messages quote


@dataclass(frozen=True)
class Answers:
    """The answers of a question.

    Attributes:
        weights: answer -> weight from 0 to 1, in the order of the cell.
        texts: the references that metrics get: where the cell has annotators' answers, these, one per annotator, blank ones included (ten
            answers stay ten); else ``weight|!+answer`` per answer that is not blank.
        blank: number of blank answers of the cell, which have no weight.
    """

    weights: dict[str, float]
    texts: list[str]
    blank: int = 0


def answers_of(cell: Any, is_joined: bool) -> Answers:
    """The answers in one cell of a table.

    Args:
        cell: the published text ``weight|!+answer&&weight|!+answer``; an object ``{answer: weight}``; a list of annotators' answers,
            whose weights follow from their counts (:func:`soft_scores`); or a plain answer, of weight 1.
        is_joined: whether plain answers may be joined by ``&&``, as in TSV tables.

    Raises:
        UserError: the cell holds something else, a weight that is not from 0 to 1, no answer that is not blank, or only weights of 0.
    """
    if isinstance(cell, list):
        every = texts_of(cell, is_joined=False)
        weighted = next(filter(is_weighted_answer, every), None)
        if weighted is not None:
            raise UserError(f"{weighted[:SHOWN]!r} in a list: lists hold plain answers, one per annotator")
        texts, blank = every, len(every) - len(not_empty(every))
        pairs = list(soft_scores(texts).items())
    else:
        found = _weighted(cell, is_joined)
        pairs = [(answer, weight) for answer, weight in found if not_empty([answer])]
        texts, blank = [], len(found) - len(pairs)
    weights = dict(pairs)
    if not weights:
        raise UserError("a reference must not be empty")
    if not any(weights.values()):
        raise UserError("all answers have the weight 0: the row teaches nothing")
    return Answers(weights, texts or [answer_text(answer, weight) for answer, weight in weights.items()], blank)


def soft_scores(answers: Sequence[str]) -> dict[str, float]:
    """The published soft scores of annotators' answers: 0.3 for each annotator who gave the answer, at most 1; blank answers have none.

    One answer alone, which nobody else could share, has weight 1, like a plain text.
    """
    if len(answers) == 1:
        return dict.fromkeys(not_empty(answers), 1.0)
    return {answer: min(1.0, 3 * count / 10) for answer, count in Counter(not_empty(answers)).items()}


def answer_text(answer: str, weight: float) -> str:
    """A weighted answer as the published tables write it: ``0.6|!+red``."""
    return f"{weight!r}{WEIGHT_MARK}{answer}"


def weights_of(references: Sequence[str]) -> dict[str, float]:
    """The weights of the answers that :attr:`Answers.texts` holds: those that are written there, or those of annotators' answers.

    Raises:
        UserError: some of the references have weights and others do not, or a weight is not from 0 to 1.
    """
    if not any(map(is_weighted_answer, references)):
        return soft_scores(references)
    return dict(map(_parse, references))


def plain_answer(reference: str) -> str:
    """The answer of a reference, without its weight if it has one."""
    return reference.split(WEIGHT_MARK, 1)[1] if is_weighted_answer(reference) else reference


def _weighted(cell: Any, is_joined: bool) -> list[tuple[str, float]]:
    """Answer and weight of every part of a cell that is no list."""
    if isinstance(cell, Mapping):
        for answer, weight in cell.items():
            _check(answer, weight)
        return [(answer, float(weight)) for answer, weight in cell.items()]
    if not isinstance(cell, str):
        raise UserError(f"expected answers (a text, an object {{answer: weight}}, or a list of texts), got {kind_of(cell)}")
    has_weights = WEIGHT_MARK in cell
    texts = texts_of(cell, is_joined or has_weights)
    return list(map(_parse, texts)) if has_weights else [(text, 1.0) for text in texts]


def _parse(text: str) -> tuple[str, float]:
    weight, mark, answer = text.partition(WEIGHT_MARK)
    if not mark or not re.fullmatch(r"\s*[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?\s*", weight):
        raise UserError(f"{text[:SHOWN]!r}: expected weight{WEIGHT_MARK}answer, such as 0.6{WEIGHT_MARK}red, as its other answers")
    _check(answer, float(weight))
    return answer, float(weight)


def _check(answer: Any, weight: Any) -> None:
    if not isinstance(answer, str):
        raise UserError(f"answer {answer!r} is {kind_of(answer)}: answers are texts")
    reason = why_not_text(answer)
    if reason is not None:
        raise UserError(reason)
    if isinstance(weight, bool) or not isinstance(weight, Real) or not math.isfinite(weight) or not 0 <= float(weight) <= 1:
        raise UserError(f"answer {answer[:SHOWN]!r} has the weight {weight!r}: expected a number from 0 to 1")
