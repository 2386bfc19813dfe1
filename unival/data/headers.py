"""Whether what a table says of its images, such as boxes, fits them: checked by their headers, at a hundredth of the cost of decoding."""

from collections.abc import Mapping
from typing import Any

from unival.data.cells import decode_media
from unival.data.table import Table
from unival.errors import UserError
from unival.instructions import Instruction, Slot
from unival.modalities import MODALITIES
from unival.modalities.geometry import Geometry
from unival.modalities.target import Context, Target


def fits_headers(
    target: Target, slot: Slot, value: Any, instruction: Instruction, record: Mapping[str, Any], table: Table, row: int
) -> bool:
    """Whether a value fits the media of its row, as far as the headers of these tell.

    Where it does not, the row has to be read: that gives the error, or shows that a header says another size than the image has.

    Args:
        target: encodes the value.
        slot: the predicted slot.
        value: the value; one that needs no geometry of media always fits.
        instruction, record, table, row: what the row is read by, and where it is.
    """
    if not target.needs_geometry:
        return True
    geometry: dict[str, Geometry] = {}
    try:
        for source in instruction.source:
            media, column = MODALITIES[source.modality].media, str(source.column)
            if media is None or not media.has_geometry:
                continue
            if media.geometry_of is None:
                return True  # decoding is left to the evaluation
            geometry[column] = media.geometry_of(target.options, decode_media(record[column], table, row, column))
        target.encode(value, slot, Context(0, geometry))
    except (UserError, KeyError):
        return False
    return True
