"""What a model says about a row."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Output:
    """What the model says about one row.

    Attributes:
        text: the best hypothesis.
        score: its log-probability, length-normalised unless ``unnormalized=True``.
        tokens: its ids, without those of the target's given prefix and without end of sentence.
        alternatives: with ``nbest=n`` the n - 1 next best hypotheses (fewer where a closed set has fewer answers), best first.
    """

    text: str
    score: float
    tokens: tuple[int, ...] = ()
    alternatives: tuple["Output", ...] = ()
