"""What a model generates for a row."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any


@dataclass(frozen=True)
class Output:
    """What the model generates for one row.

    Attributes:
        text: the hypothesis as text.
        score: its log-probability, length-normalised unless ``unnormalized=True``.
        answer_score: that of the answer alone, without a prefix that the target gives: what ``reject_below`` is compared with.
        tokens: its token ids, without the prefix that the target gives and without end of sentence.
        alternatives: with ``nbest=n`` the n - 1 next best hypotheses (fewer if there are fewer candidate answers), best first.
        box: if the target is a box, its left, top, right and bottom edges in pixels of the image as it was given. They are not sorted:
            a model may predict left and right, or top and bottom, swapped. Else None.
        codes: if the target is an image, its codes, row by row; else None.
        rejected: whether the best hypothesis scored below ``reject_below``, so that there is no answer: ``text`` is empty, ``box`` and
            ``codes`` are None, and ``score`` is that of the rejected hypothesis.
    """

    text: str
    score: float
    tokens: tuple[int, ...] = ()
    alternatives: tuple["Output", ...] = ()
    box: tuple[float, float, float, float] | None = None
    codes: tuple[int, ...] | None = None
    rejected: bool = False
    answer_score: float | None = None


Decode = Callable[[list[int]], Mapping[str, Any]]  # token ids of a hypothesis -> its ``text``, ``box`` or ``codes``, as arguments of Output


def make_output(beams: Sequence[Mapping[str, Any]], decode: Decode, eos: int) -> Output:
    """The output of one row.

    Args:
        beams: its hypotheses as fairseq's generators return them, best first, at least one.
        decode: converts token ids to text, box or codes.
        eos: id of the end-of-sentence token.
    """
    if is_rejected(beams[0]):
        return Output("", float(beams[0]["score"]), rejected=True, answer_score=_number(beams[0].get("answer_score")))
    outputs = []
    for beam in beams:
        tokens = beam["tokens"].tolist()
        kept = tuple(token for token in tokens if token != eos)
        answer_score = _number(beam.get("answer_score"))
        outputs.append(Output(score=float(beam["score"]), tokens=kept, answer_score=answer_score, **decode(tokens)))
    possible = tuple(output for output in outputs[1:] if output.score > -float("inf"))
    return replace(outputs[0], alternatives=possible)


def _number(score: Any) -> float | None:
    return None if score is None else float(score)


def with_answer_scores(
    rows: Sequence[Sequence[Mapping[str, Any]]], prompts: Sequence[int], lenpen: float
) -> list[list[dict[str, Any]]]:
    """Add to every hypothesis its ``answer_score``: the log-probability of its tokens and of the end of the sentence.

    Args:
        rows: hypotheses of every row, best first, without the given prefix of the target.
        prompts: tokens that this prefix had, which the score does not count.
        lenpen: the sum of log-probabilities is divided by the number of tokens to the power of this.
    """

    def answer_score(beam: Mapping[str, Any], prompt: int) -> Any:
        own = beam["positional_scores"]
        return beam["score"] if prompt == 0 else own.sum() / len(own) ** lenpen

    return [[{**beam, "answer_score": answer_score(beam, n)} for beam in beams] for beams, n in zip(rows, prompts, strict=True)]


def reject(rows: Sequence[Sequence[Mapping[str, Any]]], below: float) -> list[list[dict[str, Any]]]:
    """Take the answer from rows whose best one has an ``answer_score`` below the least.

    Returns:
        The hypotheses; of a row without an answer one without tokens, with the scores of the best.
    """
    found = []
    for beams in rows:
        best = beams[0]
        none = {**best, "tokens": best["tokens"][:0], "positional_scores": best["positional_scores"][:0]}
        found.append([none] if float(best["answer_score"]) < below else [dict(beam) for beam in beams])
    return found


def is_rejected(beam: Mapping[str, Any]) -> bool:
    """Whether a hypothesis stands for no answer: others have an end of sentence at least."""
    return len(beam["tokens"]) == 0


def text_of(beam: Mapping[str, Any], decode: Decode) -> str:
    """The text of a hypothesis, empty where it stands for no answer."""
    return "" if is_rejected(beam) else decode(beam["tokens"].tolist())["text"]
