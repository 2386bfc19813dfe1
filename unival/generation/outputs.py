"""What a model says about a row."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any


@dataclass(frozen=True)
class Output:
    """What the model says about one row.

    Attributes:
        text: the best hypothesis as text.
        score: its log-probability, length-normalised unless ``unnormalized=True``.
        tokens: its ids, without those of the target's given prefix and without end of sentence.
        alternatives: with ``nbest=n`` the n - 1 next best hypotheses (fewer where a closed set has fewer answers), best first.
        box: where the target is a box, its left, top, right and bottom edges in pixels of the image as it was given, as predicted: a
            model may swap left and right, or top and bottom; else None.
        codes: where the target is image codes, these, row by row; else None.
    """

    text: str
    score: float
    tokens: tuple[int, ...] = ()
    alternatives: tuple["Output", ...] = ()
    box: tuple[float, float, float, float] | None = None
    codes: tuple[int, ...] | None = None


Decode = Callable[[list[int]], Mapping[str, Any]]  # ids of a hypothesis -> those of ``text``, ``box`` and ``codes`` that it has


def make_output(beams: Sequence[Mapping[str, Any]], decode: Decode, eos: int) -> Output:
    """The output of one row.

    Args:
        beams: its hypotheses as fairseq's generators give them, best first, at least one.
        decode: what ids say.
        eos: the id that ends a sentence.
    """
    outputs = []
    for beam in beams:
        tokens = beam["tokens"].tolist()
        kept = tuple(token for token in tokens if token != eos)
        outputs.append(Output(score=float(beam["score"]), tokens=kept, **decode(tokens)))
    possible = tuple(output for output in outputs[1:] if output.score > -float("inf"))
    return replace(outputs[0], alternatives=possible)
