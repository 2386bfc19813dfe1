"""The streams of a mixture file as a task reads them: tables, instructions, candidate answers."""

import contextlib
from collections.abc import Iterator
from typing import Any

from unival.data.stream import Stream
from unival.data.table import Table
from unival.errors import InstructionError, UserError
from unival.generation.trie import Trie
from unival.instructions import Instruction, parse
from unival.modalities import MODALITIES
from unival.tasks.closed_set import read_answers
from unival.tasks.inputs import media_of_instructions
from unival.tasks.presets import ANY, PRESETS, Preset
from unival.tasks.pretraining.file import StreamSpec
from unival.tasks.pretraining.values import Place, nearest


@contextlib.contextmanager
def errors_of(place: Place) -> Iterator[None]:
    """Put file and key before the errors of what a mixture file names."""
    try:
        yield
    except InstructionError as error:
        raise place.error(error.one_line) from error
    except UserError as error:
        raise error if str(error).startswith(str(place.file)) else place.error(str(error)) from error


class TaskStream:
    """A stream of a mixture file, with the options of a task.

    Args:
        spec: the stream in the file.
        task: the task, whose options and vocabulary it has.

    Raises:
        UserError: the preset, the instruction or the candidate answers cannot be used; names file and key.
    """

    def __init__(self, spec: StreamSpec, task: Any):
        self.spec, self.task = spec, task
        self.preset = preset_of(spec)
        text = spec.instruction or self.preset.instruction
        with errors_of(spec.place):
            if text is None:
                raise UserError(f"{self.preset.name} has no instruction of its own: give instruction instead of preset")
            self.instructions: tuple[Instruction, ...] = parse(text, MODALITIES)
            answers = self.preset.closed_set if spec.closed_set is None else read_answers(spec.closed_set)
            self.trie: Trie | None = task.build_trie(self.instructions, answers or ())

    @property
    def media(self) -> set[str]:
        """The media in its sources."""
        return media_of_instructions(self.instructions)

    def open_table(self) -> Table:
        """Open its table."""
        spec = self.spec
        if len(spec.table) > 1:
            raise (spec.place / "table").error("several tables are not read yet")
        columns = spec.columns or self.preset.tsv_columns
        selected = spec.selected_cols or (None if spec.columns else self.preset.tsv_selected)
        with errors_of(spec.place / "table"):
            return self.task.open_table_with(spec.table[0], columns, selected, spec.media_root)

    def training_data(self) -> Stream:
        """Its rows to train on."""
        table = self.open_table()
        with errors_of(self.spec.place):
            candidates = None if self.trie is None else self.trie.answers
            stream = self.task.stream(table, self.instructions, True, candidates=candidates)
        stream.name = self.spec.name
        return stream


def preset_of(spec: StreamSpec) -> Preset:
    """The preset of a stream; without one, a preset that says nothing.

    Raises:
        UserError: there is no such preset.
    """
    if spec.preset is None:
        return ANY
    if spec.preset not in PRESETS:
        raise (spec.place / "preset").error(f"no preset {spec.preset!r}{nearest(spec.preset, PRESETS)}")
    return PRESETS[spec.preset]
