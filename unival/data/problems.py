"""Find the rows of a table that cannot be read: every row is read as training and evaluation read it, its media decoded, in parallel."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from torch.utils.data import Dataset

from unival.data.example import Example
from unival.data.reading import Reader, in_order
from unival.data.stream import Stream
from unival.errors import UserError, counted
from unival.modalities.target import predicted_slot

SHOWN = 80  # characters of a value
ROWS = 8  # rows that a worker reads at a time


@dataclass(frozen=True)
class Problem:
    """Why a row cannot be read.

    Attributes:
        row, line: its number, from 0 and from 1.
        column: the column that is wrong; None where it is the row itself.
        value: what the column has, shortened; None where there is no column.
        message: file, row, column and the reason.
    """

    row: int
    line: int
    column: str | None
    value: str | None
    message: str


@dataclass(frozen=True)
class Finding:
    """What was found in a row.

    Attributes:
        problem: why it cannot be read; None: it can.
        truncated: texts that are cut to their limit.
        empty: references that are empty beside others.
        outside: the problem that the answer to learn is no candidate; None: it is one, or there are no candidates.
    """

    problem: Problem | None = None
    truncated: int = 0
    empty: int = 0
    outside: Problem | None = None


class Findings(Dataset[Finding]):
    """What is found in each row of a table.

    Args:
        streams: streams over the one table, such as one for each alternative of an instruction.
    """

    def __init__(self, streams: Sequence[Stream]) -> None:
        self.streams = streams

    def __len__(self) -> int:
        return len(self.streams[0])

    def __getitem__(self, row: int) -> Finding:
        truncated = empty = 0
        outside = None
        for stream in self.streams:
            try:
                examples = stream.read(row)
            except UserError as error:
                return Finding(problem_of(stream, row, str(error)))
            truncated = max(truncated, sum(example.truncated for example in examples))
            empty = max(empty, sum(example.empty for example in examples))
            outside = outside or self.outside(stream, row, examples)
        return Finding(None, truncated, empty, outside)

    def outside(self, stream: Stream, row: int, examples: Sequence[Example]) -> Problem | None:
        """The problem of the first example whose answer to learn is no candidate."""
        if stream.candidates is None or not any(example.is_outside for example in examples):
            return None
        names = [name for name, _ in stream.made(row, stream.generator(row))]
        limited = (example for name, example in zip(names, examples, strict=True) if name not in stream.unlimited)
        example = next((example for example in limited if example.is_outside), None)
        if example is None:
            return None
        column = next(str(predicted_slot(i).column) for all_of in stream.instructions.values() for i in all_of)
        said = stream.vocabulary.decode([token for token in example.target.tolist() if token != stream.vocabulary.pad][:-1]).strip()
        message = f"{stream.table.where(row, column)}: {said!r} is none of the {counted(len(stream.candidates), 'candidate answer')}"
        return problem_of(stream, row, message)


def problem_of(stream: Stream, row: int, message: str) -> Problem:
    """The problem that the message of an error about a row tells of."""
    try:
        record = stream.table[row]
    except UserError:  # the row is broken as a whole
        record = {}
    columns = [*record, *(str(slot.column) for all_of in stream.instructions.values() for i in all_of for slot in i.slots if slot.column)]
    named = (column for column in columns if message.startswith(stream.table.where(row, column)))
    column = next(named, None)
    value = repr(record[column]) if column in record else None
    shown = value if value is None or len(value) <= SHOWN else f"{value[:SHOWN]}... ({counted(len(value), 'character')})"
    return Problem(row, row + 1, column, shown, message)


def findings(every: Findings, workers: int = 0) -> Iterator[Finding]:
    """What is found in each row, in order.

    Args:
        workers: processes that read; 0: this one reads.
    """
    reader = Reader(every, list, in_order(len(every), ROWS), workers=workers)
    try:
        for batch in reader:
            yield from batch
    finally:
        reader.close()
