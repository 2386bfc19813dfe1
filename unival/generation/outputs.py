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
    """

    text: str
    score: float
    tokens: tuple[int, ...] = ()
    alternatives: tuple["Output", ...] = ()
    box: tuple[float, float, float, float] | None = None
    codes: tuple[int, ...] | None = None


Decode = Callable[[list[int]], Mapping[str, Any]]  # token ids of a hypothesis -> its ``text``, ``box`` or ``codes``, as arguments of Output


def make_output(beams: Sequence[Mapping[str, Any]], decode: Decode, eos: int) -> Output:
    """The output of one row.

    Args:
        beams: its hypotheses as fairseq's generators return them, best first, at least one.
        decode: converts token ids to text, box or codes.
        eos: id of the end-of-sentence token.
    """
    outputs = []
    for beam in beams:
        tokens = beam["tokens"].tolist()
        kept = tuple(token for token in tokens if token != eos)
        outputs.append(Output(score=float(beam["score"]), tokens=kept, **decode(tokens)))
    possible = tuple(output for output in outputs[1:] if output.score > -float("inf"))
    return replace(outputs[0], alternatives=possible)
