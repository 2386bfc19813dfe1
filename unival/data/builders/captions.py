"""Captions, and matching: does a caption describe the image, video or audio of the row?

As published (UnIVAL's code, as measured): half of the captions to match are right. Of the wrong ones 40% have an object of the caption
swapped for a random one of another row, where the row names objects; all others are random captions of other rows. Here an object counts
only if the caption has it as whole words, and a wrong caption is none of the row's own, as the model reads them.

Columns: ``caption``; for negatives ``objects`` (optional: names, in TSV joined by ``&&``); ``dataset`` (optional): of rows of ``cc12m`` the
first two tokens of captions carry no loss, as published.
"""

import re
from collections.abc import Callable, Sequence

import numpy as np

from unival.data.builders.base import Builder, Made, Negatives, Record, cell_of, slot_of
from unival.data.builders.negatives import NO, YES, Reading, none_other, one_of, other_value
from unival.data.cells import is_joined
from unival.data.table import Table
from unival.text import not_empty, references_of, texts_of

RIGHT = 0.5  # share of the captions to match that are the row's own
SWAPPED = 0.4  # share of the wrong ones in which an object is swapped
NOISY, SKIPPED = "cc12m", 2  # the data set whose captions carry no loss on so many first tokens


def caption_instructions(medium: str) -> dict[str, str]:
    """The published prompt of captions."""
    prompt = f"{slot_of(medium)} what does the {medium} describe? ->"
    return {
        "caption": f"{prompt} [TEXT:caption,clean=caption]",
        f"caption_{NOISY}": f"{prompt} [TEXT:caption,clean=caption,loss_from={SKIPPED}]",
    }


def matching_instructions(medium: str) -> dict[str, str]:
    """The published prompt of matching."""
    return {"matching": f'{slot_of(medium)} does the {medium} describe " [TEXT:caption,clean=caption] "? -> [TEXT:match]'}


def instructions(medium: str) -> dict[str, str]:
    """The published prompts of both."""
    return caption_instructions(medium) | matching_instructions(medium)


def captions(record: Record, table: Table) -> list[str]:
    """The captions of a row."""
    return cell_of(record, "caption", lambda cell: references_of(cell, is_joined(table))[0])


def objects(record: Record, table: Table) -> list[str]:
    """The names of objects of a row, which may have none."""
    if not record.get("objects"):
        return []
    return cell_of(record, "objects", lambda cell: not_empty(texts_of(cell, is_joined(table))))


def caption(record: Record, table: Table, rng: np.random.Generator) -> Sequence[Made]:
    """The row's caption."""
    return [(f"caption_{NOISY}" if record.get("dataset") == NOISY else "caption", record)]


def matching(record: Record, table: Table, rng: np.random.Generator, reading: Reading) -> Sequence[Made]:
    """A caption of the row or a wrong one, and which it is."""
    own = captions(record, table)
    text = one_of(own, rng)
    is_right = bool(rng.random() < RIGHT)
    if not is_right:
        text = wrong_caption(text, record, table, rng, reading.differs(own))
    return [("matching", {**record, "caption": text, "match": YES if is_right else NO})]


def caption_and_matching(record: Record, table: Table, rng: np.random.Generator, reading: Reading) -> Sequence[Made]:
    """Both of the row's image, video or audio."""
    return [*caption(record, table, rng), *matching(record, table, rng, reading)]


def wrong_caption(
    text: str, record: Record, table: Table, rng: np.random.Generator, fits: Callable[[str], bool]
) -> str:
    """A wrong caption in place of a right one.

    Args:
        text: the right one.
        record: its row.
        table: the rows.
        rng: the only source of randomness.
        fits: whether a text is wrong.
    """
    own = objects(record, table)
    there = [pattern for name in own if (pattern := whole_words(name)).search(text)]
    if there and rng.random() < SWAPPED:
        pattern, known = one_of(there, rng), {name.lower() for name in own}

        def swapped(name: str) -> str:
            return pattern.sub(lambda match: name, text)

        name = other_value(table, rng, objects, lambda name: name.lower() not in known and fits(swapped(name)))
        if name is not None:
            return swapped(name)
    other = other_value(table, rng, captions, fits)
    if other is None:
        raise none_other("caption")
    return other


def whole_words(name: str) -> re.Pattern[str]:
    """Finds a name in a text where no letter or digit touches it."""
    return re.compile(rf"(?<!\w){re.escape(name.strip())}(?!\w)", re.IGNORECASE)


NEGATIVES = Negatives("matching", "caption", captions)
CAPTION = Builder(caption, instructions=caption_instructions)
MATCHING = Builder(matching, ("match",), matching_instructions, NEGATIVES)
CAPTION_AND_MATCHING = Builder(caption_and_matching, ("match",), instructions, NEGATIVES)
