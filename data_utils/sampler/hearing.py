"""Captions of a recording, and questions with their answers."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations, permutations

import numpy as np

from .language import ask
from .names import join_words, with_article

ALONE, SEQUENCE, MIXED = "alone", "one after the other", "at the same time"


@dataclass(frozen=True)
class Heard:
    """A named sound in a recording, from ``onset`` to ``offset`` in seconds."""

    name: str
    onset: float
    offset: float


def captions(heard: Sequence[Heard], layout: str) -> list[str]:
    """Every acceptable caption, the canonical one first. ``heard`` is in the order of the onsets."""
    said = [with_article(sound.name) for sound in heard]
    if layout == ALONE:
        return [said[0], f"the sound of {said[0]}", f"{said[0]} is heard"]
    if layout == MIXED:
        return [f"{join_words(order)} {MIXED}" for order in permutations(sorted(said, key=_without_article))]
    found = [", then ".join(said), " followed by ".join(said), " and then ".join(said)]
    if len(said) == 2:
        found += [f"{said[1]} after {said[0]}", f"{said[0]} before {said[1]}"]
    return found


def _without_article(said: str) -> str:
    return said.partition(" ")[2]


def questions(
    heard: Sequence[Heard], layout: str, absent: Sequence[str], rng: np.random.Generator
) -> list[dict[str, str]]:
    """Questions about a recording with unambiguous answers, as {"kind", "question", "answer"}.

    ``absent`` names sounds that are not in it. Yes and no are equally likely.
    """
    asked = [ask("how many", "how many sounds are heard?", str(len(heard))), presence(heard, absent, rng)]
    if layout == ALONE:
        return [*asked, ask("what", "what is heard?", heard[0].name)]
    asked.append(ask("when", "are the sounds heard at the same time or one after the other?", layout))
    if layout == MIXED:
        if len(heard) == 2:
            one, other = (heard[index] for index in rng.permutation(2))
            asked.append(ask("what", f"what is heard together with the {one.name}?", other.name))
        return asked
    asked.append(ask("what", "what is heard first?", heard[0].name))
    asked.append(ask("what", "what is heard last?", heard[-1].name))
    number = int(rng.integers(len(heard) - 1))
    one, other = heard[number], heard[number + 1]
    asked.append(ask("what", f"what is heard right after the {one.name}?", other.name))
    asked.append(ask("what", f"what is heard right before the {other.name}?", one.name))
    pairs = list(combinations(heard, 2))
    earlier, later = pairs[rng.integers(len(pairs))]
    if rng.integers(2):
        return [*asked, ask("yes/no", f"is the {earlier.name} heard before the {later.name}?", "yes")]
    return [*asked, ask("yes/no", f"is the {later.name} heard before the {earlier.name}?", "no")]


def presence(heard: Sequence[Heard], absent: Sequence[str], rng: np.random.Generator) -> dict[str, str]:
    """Whether something is heard; yes and no are equally likely."""
    if len(absent) and rng.integers(2):
        return ask("yes/no", f"is {with_article(absent[int(rng.integers(len(absent)))])} heard?", "no")
    return ask("yes/no", f"is {with_article(heard[int(rng.integers(len(heard)))].name)} heard?", "yes")
