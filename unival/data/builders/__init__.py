"""Builders make the examples of a row before it is read: negatives, spans to fill in, several questions about one image.

A builder takes a row and returns pairs (name of an instruction of the stream, record); each is read as one example.  The record may be the
row itself, a changed copy or a new one.  Examples of one row share the media that they have in common: decoded once, embedded once.

A builder is a function and a line in :data:`BUILDERS`, also in somebody else's package:

    def caption_and_question(record, table, rng):
        return [("caption", record), ("question", {**record, "question": "what colour is it?"})]

    BUILDERS["caption_and_question"] = Builder(caption_and_question, columns=("question",))

Most bring instructions of their own, so that a stream is a table, a builder and a medium:

    builder = builder_of("caption_and_matching")
    named = {name: parse(text, MODALITIES) for name, text in builder.instructions("video").items()}
    Stream(table, named, vocabulary, media, limits, train=True, builder="caption_and_matching")

The names of ``builder.instructions(medium)`` are those that its examples have (``{**builder.instructions("video"), "matching": "…"}``
replaces one); they are empty for ``plain`` and ``grouped``, which read rows through the stream's only instruction, :data:`ONLY`.
"""

from collections.abc import Sequence

import numpy as np

from unival.data.builders.base import ONLY, Builder, Made, Negatives, Record, no_instructions, slot_of
from unival.data.builders.captions import CAPTION, CAPTION_AND_MATCHING, MATCHING
from unival.data.builders.grounding import GROUNDING, GROUNDING_AND_REGION, REGION
from unival.data.builders.grouped import GROUPED
from unival.data.builders.questions import QUESTION, QUESTION_AND_MATCHING
from unival.data.builders.texts import INFILLING, PLAIN_TEXT
from unival.data.table import Table
from unival.errors import UserError, unknown

__all__ = ["BUILDERS", "ONLY", "Builder", "Made", "Negatives", "Record", "builder_of", "no_instructions", "plain", "slot_of"]


def plain(record: Record, table: Table, rng: np.random.Generator) -> Sequence[Made]:
    """The row as it is, through the only instruction."""
    return [(ONLY, record)]


BUILDERS: dict[str, Builder] = {
    "plain": Builder(plain, reads_rows=True),
    "grouped": GROUPED,
    "caption": CAPTION,
    "matching": MATCHING,
    "caption_and_matching": CAPTION_AND_MATCHING,
    "question": QUESTION,
    "question_and_matching": QUESTION_AND_MATCHING,
    "grounding": GROUNDING,
    "region": REGION,
    "grounding_and_region": GROUNDING_AND_REGION,
    "infilling": INFILLING,
    "text": PLAIN_TEXT,
}


def builder_of(name: str) -> Builder:
    """A builder by its name.

    Raises:
        UserError: no builder has this name.
    """
    if name not in BUILDERS:
        raise UserError(unknown("builder", name, BUILDERS))
    return BUILDERS[name]
