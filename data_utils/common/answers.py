"""Answers of questions: the official normalisation, candidate answers by frequency, weights of annotators' answers."""

from collections import Counter
from collections.abc import Container, Iterable, Sequence

from unival.answers import soft_scores
from unival.metrics.vqa import process


def normalise(answer: str) -> str:
    """An answer as the published candidate answers are written: by the official rules, without commas."""
    return process(answer).replace(",", "")


def as_given(answers: Sequence[str]) -> list[str]:
    """Annotators' answers for a table to evaluate on, blank ones too: the official accuracy is of ten. None if all are blank."""
    return list(answers) if any(answers) else []


def majority(answers: Sequence[str]) -> str:
    """The answer that most annotators gave, the first of those that share it."""
    return Counter(answers).most_common(1)[0][0] if answers else ""


def candidates(answers: Iterable[str], least: int = 1, most: int | None = None) -> list[str]:
    """Answers that occur at least ``least`` times, at most ``most`` of them, the most frequent first."""
    counts = Counter(filter(None, answers))
    return [answer for answer, count in counts.most_common(most) if count >= least]


def weighted(answers: Iterable[str], known: Container[str] | None = None) -> dict[str, float]:
    """The soft scores of annotators' answers, as far as these are candidates (None: of all)."""
    scores = soft_scores([normalise(answer) for answer in answers])
    return {answer: round(score, 1) for answer, score in scores.items() if answer and (known is None or answer in known)}
