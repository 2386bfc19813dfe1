"""Visual grounding (a text to its box) and grounded captioning (a box to its text), with the published prompts.

Columns: ``text``, ``box`` (in pixels of the image; location bins in the source and in the target).  A row of JSON lines may have lists of
both, equally long: several boxes in one image, which is decoded and embedded once.
"""

from collections.abc import Sequence

import numpy as np

from unival.data.builders.base import Builder, Made, Record, slot_of
from unival.data.builders.grouped import has_places, places
from unival.data.table import Table


def grounding_instructions(medium: str) -> dict[str, str]:
    """The published prompt of grounding."""
    return {"grounding": f'{slot_of(medium)} which region does the text " [TEXT:text,clean=caption] " describe? -> [BOX:box]'}


def region_instructions(medium: str) -> dict[str, str]:
    r"""The published prompt of region captions; it begins with two spaces, of which ``\ `` is one."""
    return {"region": rf"{slot_of(medium)} \ what does the region describe? region: [BOX:box] -> [TEXT:text,clean=caption]"}


def instructions(medium: str) -> dict[str, str]:
    """The published prompts of both."""
    return grounding_instructions(medium) | region_instructions(medium)


def objects(record: Record) -> Sequence[Record]:
    """The row, or one record for each of its boxes where it has a list of them, with the text at the same place of theirs."""
    if not has_places(record.get("box")):
        return [record]
    return places(record, ("text", "box"))


def grounding(record: Record, table: Table, rng: np.random.Generator) -> Sequence[Made]:
    """The box of the row's text."""
    return [("grounding", each) for each in objects(record)]


def region(record: Record, table: Table, rng: np.random.Generator) -> Sequence[Made]:
    """The text of the row's box."""
    return [("region", each) for each in objects(record)]


def grounding_and_region(record: Record, table: Table, rng: np.random.Generator) -> Sequence[Made]:
    """Both of the row's image."""
    return [(name, each) for each in objects(record) for name in ("grounding", "region")]


GROUNDING = Builder(grounding, instructions=grounding_instructions)
REGION = Builder(region, instructions=region_instructions)
GROUNDING_AND_REGION = Builder(grounding_and_region, instructions=instructions)
