"""Clean-up of questions and captions before they are tokenised, as the published recipes do it."""

from __future__ import annotations

import string

LEADING_MARKS = ",.!?*#:;~"
_NO_PUNCTUATION = str.maketrans("", "", string.punctuation)
_JOINERS_TO_SPACES = str.maketrans("-/", "  ")


def truncate_words(text: str, max_words: int | None) -> str:
    """The first `max_words` words separated by single spaces; all of them when `max_words` is None."""
    return " ".join(text.split()[:max_words])


def normalize_question(text: str, max_words: int | None = None) -> str:
    """Lower case, no marks in front, "-" and "/" as spaces, single spaces, at most `max_words` words."""
    return truncate_words(text.lower().lstrip(LEADING_MARKS).translate(_JOINERS_TO_SPACES), max_words)


def normalize_caption(text: str, max_words: int | None = None) -> str:
    """As `normalize_question`, and the placeholder "<person>" becomes "person"."""
    text = text.lower().lstrip(LEADING_MARKS).translate(_JOINERS_TO_SPACES).replace("<person>", "person")
    return truncate_words(text, max_words)


def strip_punctuation(text: str) -> str:
    """Without ASCII punctuation and outer spaces; inner spaces stay ("dogs & a cat" keeps two in a row)."""
    return text.translate(_NO_PUNCTUATION).strip()
