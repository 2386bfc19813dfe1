"""Captions of a scene, and questions with their answers."""

from collections.abc import Iterator, Sequence
from itertools import chain, permutations, product

import numpy as np

from .names import join_words, with_article
from .relations import ABOVE, BELOW, LEFT, OPPOSITE, RELATIONS, RIGHT, Thing, half, reading_order, relation

_SIDE_WORD = {LEFT: "left", RIGHT: "right", ABOVE: "above", BELOW: "below"}


def captions(things: Sequence[Thing]) -> list[str]:
    """Every acceptable caption, the canonical one first.

    A caption names one thing and where it is from each other: "a tiger to the left of a red flag and above a pear".
    The canonical one begins with the thing that is furthest up and left, and names the others in reading order.
    """
    if len(things) == 1:
        return [with_article(things[0].name)]
    found: list[str] = []
    for subject in reading_order(things):
        others = [thing for thing in reading_order(things) if thing is not subject]
        relations = [relation(subject.box, other.box) for other in others]
        if None in relations:
            continue
        groups = {
            wanted: [with_article(other.name) for other, name in zip(others, relations, strict=True) if name == wanted]
            for wanted in RELATIONS
            if wanted in relations
        }
        found.extend(_sentences(with_article(subject.name), groups))
    assert found, f"no caption can be given to {things}"
    return list(dict.fromkeys(found))


def _sentences(subject: str, groups: dict[str, list[str]]) -> Iterator[str]:
    """Every order of the groups and of the things within a group, the given order first."""
    comma = ", and " if len(groups) > 2 or any(len(names) > 1 for names in groups.values()) else " and "
    for order in permutations(groups):
        for parts in product(*(permutations(groups[name]) for name in order)):
            clauses = [f"{name} {join_words(names)}" for name, names in zip(order, parts, strict=True)]
            said = comma.join([", ".join(clauses[:-1]), clauses[-1]]) if len(clauses) > 1 else clauses[0]
            yield f"{subject} {said}"


def questions(
    things: Sequence[Thing], absent: Sequence[str], size: int, rng: np.random.Generator
) -> list[dict[str, str]]:
    """Questions about a scene with unambiguous answers, as {"kind", "question", "answer"}.

    ``absent`` names objects that are not in the scene; ``size`` is the image's side in pixels. Yes and no are equally likely.
    """
    ordered = reading_order(things)
    asked = [ask("how many", "how many objects are there?", str(len(things)))]
    asked.append(presence(ordered, absent, rng))
    sides = [(thing, half(thing.box, size)) for thing in ordered]
    decided = [(thing, side) for thing, side in sides if side]
    if decided:
        thing, side = decided[rng.integers(len(decided))]
        asked.append(ask("which side", f"which side of the picture is the {thing.name} on?", str(side)))
    return asked + list(chain.from_iterable(_about_pairs(ordered, rng)))


def ask(kind: str, question: str, answer: str) -> dict[str, str]:
    """A question of a ``kind`` ("how many", "yes/no", ...) with its answer, as in tables."""
    return {"kind": kind, "question": question, "answer": answer}


def presence(things: Sequence[Thing], absent: Sequence[str], rng: np.random.Generator) -> dict[str, str]:
    """Whether something is in the image; yes and no are equally likely."""
    if len(absent) and rng.integers(2):
        return ask("yes/no", f"is there {with_article(absent[int(rng.integers(len(absent)))])}?", "no")
    return ask("yes/no", f"is there {with_article(things[int(rng.integers(len(things)))].name)}?", "yes")


def _about_pairs(things: Sequence[Thing], rng: np.random.Generator) -> Iterator[list[dict[str, str]]]:
    """What, which side, how many and yes/no about one random pair of things with a clear relation."""
    pairs = [(one, other, name) for one, other in permutations(things, 2) if (name := relation(one.box, other.box))]
    if not pairs:
        return
    one, other, name = pairs[rng.integers(len(pairs))]
    choice = "to the left or to the right of" if name in (LEFT, RIGHT) else "above or below"
    yield [ask("which side", f"is the {one.name} {choice} the {other.name}?", _SIDE_WORD[name])]
    claimed = name if rng.integers(2) else OPPOSITE[name]
    yield [ask("yes/no", f"is the {one.name} {claimed} the {other.name}?", "yes" if claimed == name else "no")]
    around = [relation(thing.box, other.box) for thing in things if thing is not other]
    if None not in around:  # else somebody might count a thing that is partly on that side
        wanted = RELATIONS[rng.integers(len(RELATIONS))]
        yield [ask("how many", f"how many objects are {wanted} the {other.name}?", str(around.count(wanted)))]
        if around.count(name) == 1:
            yield [ask("what", f"what is {name} the {other.name}?", one.name)]
