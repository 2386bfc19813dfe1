"""Extract short object names from captions ("A very small pumpkin." -> "pumpkin"), and choose the article of a name."""

import re
from collections.abc import Sequence

MAX_WORDS = 3

_COUNTED = re.compile(r"^an?\s+(.*)$", re.IGNORECASE)  # only things one can say "a" or "an" before
_ASIDE = re.compile(r"\s*\([^)]*\)")
_SENTENCE_END = re.compile(r"[.!?;:—]|\s-\s")
_PLAIN = re.compile(r"^[a-z]+(?:['-][a-z]+)*(?: [a-z]+(?:['-][a-z]+)*)*$")
_ABBREVIATION = re.compile(r"\b[A-Z]{2,}\b")
# Dropped from the front of a name: a sprite is drawn at any size, and its mood cannot be seen at any of them.
_DROPPED_WORDS = frozenset({"very", "small", "little", "large", "big", "huge", "tiny", "long", "colorful", "happy"})
# A name with one of these is a phrase or a sentence, not a name.
_PHRASE_WORDS = frozenset(
    {"a", "an", "and", "are", "at", "by", "covered", "called", "dancing", "for", "from", "in", "is", "like", "of", "on"}
    | {"or", "out", "playing", "resembles", "that", "the", "to", "with"}
)
# "an hour", "an umbrella", but "a unicorn", "a ukulele", "a utensil", "a european bear", "a ewe", "a one-way sign"
_VOWEL_SOUND = re.compile(r"^(?:hour|honest|heir|(?!eu|ewe|one\b|u(?:ni(?![mn])|k|s[ae]|t[ei]|r[ae]))[aeiou])")


def object_name(caption: str) -> str | None:
    """The name of the one thing that ``caption`` is about, in lower case and without article; None if it has no short name.

    Words of size and mood at the front are dropped; what comes after the first sentence or in brackets is ignored.
    """
    counted = _COUNTED.match(caption.strip().replace("’", "'"))
    if counted is None:
        return None
    head = _SENTENCE_END.split(_ASIDE.sub("", counted.group(1)), maxsplit=1)[0].strip()
    if _ABBREVIATION.search(head):
        return None
    words = head.lower().split()
    while words and words[0] in _DROPPED_WORDS:
        words = words[1:]
    name = " ".join(words)
    if not 1 <= len(words) <= MAX_WORDS or not _PLAIN.match(name) or _PHRASE_WORDS.intersection(words):
        return None
    return name


def with_article(name: str) -> str:
    """``name`` with its indefinite article, by pronunciation: "an owl", "a unicycle"."""
    return f"{'an' if _VOWEL_SOUND.match(name) else 'a'} {name}"


def contain(one: str, other: str) -> bool:
    """Whether either name holds all words of the other: "tiger", "sumatran tiger" do, "ant", "elephant" do not."""
    return f" {one} " in f" {other} " or f" {other} " in f" {one} "


def join_words(words: Sequence[str]) -> str:
    """ "a", "a and b", "a, b and c"."""
    return " and ".join([", ".join(words[:-1]), words[-1]] if len(words) > 1 else words)
