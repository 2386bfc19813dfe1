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


Decode = Callable[[list[int]], Mapping[str, Any]]  # token ids of a hypothesis -> its ``text``, ``box`` or ``codes``, as arguments of Output


def make_output(beams: Sequence[Mapping[str, Any]], decode: Decode, eos: int) -> Output:
    """The output of one row.

    Args:
        beams: its hypotheses as fairseq's generators return them, best first, at least one.
        decode: converts token ids to text, box or codes.
        eos: id of the end-of-sentence token.
    """
    if is_rejected(beams[0]):
        return Output("", float(beams[0]["score"]), rejected=True)
    outputs = []
    for beam in beams:
        tokens = beam["tokens"].tolist()
        kept = tuple(token for token in tokens if token != eos)
        outputs.append(Output(score=float(beam["score"]), tokens=kept, **decode(tokens)))
    possible = tuple(output for output in outputs[1:] if output.score > -float("inf"))
    return replace(outputs[0], alternatives=possible)


def reject(
    rows: Sequence[Sequence[Mapping[str, Any]]], prompts: Sequence[int], below: float, lenpen: float
) -> list[list[dict[str, Any]]]:
    """Take the answer from rows whose best one scores too low.

    Args:
        rows: hypotheses of every row, best first, without the given prefix of the target.
        prompts: tokens that this prefix had.
        below: the least score of an answer: the log-probability of its tokens and of the end of the sentence, the prefix not counted.
        lenpen: the sum of log-probabilities is divided by the number of tokens to the power of this.

    Returns:
        The hypotheses; of a row without an answer one without tokens, with the score of the best.
    """
    found = []
    for beams, prompt in zip(rows, prompts, strict=True):
        best, own = beams[0], beams[0]["positional_scores"]
        score = float(best["score"]) if prompt == 0 else float(own.sum() / len(own) ** lenpen)
        none = {**best, "tokens": best["tokens"][:0], "positional_scores": own[:0]}
        found.append([none] if score < below else [dict(beam) for beam in beams])
    return found


def is_rejected(beam: Mapping[str, Any]) -> bool:
    """Whether a hypothesis stands for no answer: others have an end of sentence at least."""
    return len(beam["tokens"]) == 0


def text_of(beam: Mapping[str, Any], decode: Decode) -> str:
    """The text of a hypothesis, empty where it stands for no answer."""
    return "" if is_rejected(beam) else decode(beam["tokens"].tolist())["text"]
