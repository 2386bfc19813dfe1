"""Answers of a training table that are none of the candidates, counted before training."""

import logging

from unival.data.stream import Stream
from unival.errors import UserError, counted
from unival.instructions import Slot
from unival.modalities.target import Context, predicted_slot

logger = logging.getLogger(__name__)

MOST_ROWS = 100_000  # that are looked at: seconds
MOST_BYTES = 1 << 30  # that are read, where rows hold their media


def check_answers(stream: Stream) -> None:
    """Look at the answers of a table to train on, in its first rows if it is large; media are not decoded.

    Raises:
        BadAnswerError: one is no candidate, and such rows are not skipped; the first row is named, the others are counted.
        UserError: a row cannot be read, and such rows are not skipped.
    """
    if stream.candidates is None:
        return
    rows = min(len(stream), MOST_ROWS, max(1, len(stream) * MOST_BYTES // max(stream.table.file_bytes, 1)))
    known: dict[str, bool] = {}
    count = 0
    first: tuple[Slot, str, int] | None = None
    for row in range(rows):
        try:
            made = stream.made(row, stream.generator(row))
            for name, record in [(name, record) for name, record in made if name not in stream.unlimited]:
                slot = predicted_slot(stream.instructions[name][0])
                for value in stream.slot_references(slot, record, row).values:
                    if value not in known:
                        ids, _ = stream.encode(slot, value, Context(stream.limits.target), row)
                        known[value] = stream.is_outside(ids)
                    if known[value]:
                        count, first = count + 1, first or (slot, value, row)
        except UserError as error:
            if not stream.is_skipped(error):
                raise
    if first is None:
        return
    more = f" (nor are {counted(count, 'answer')} of the first {counted(rows, 'row')})" if count > 1 else ""
    found = stream.bad_answer(*first, more)
    if not stream.is_skipped(found):
        raise found
    logger.warning("%s", found)
