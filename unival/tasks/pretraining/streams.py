"""The streams of a mixture file as a task reads them: tables, instructions, candidate answers, validation."""

import contextlib
import re
from argparse import Namespace
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from unival.data.builders import ONLY, builder_of
from unival.data.joined import JoinedTable
from unival.data.stream import Stream
from unival.data.table import Table
from unival.errors import InstructionError, UserError, counted
from unival.generation.options import answer_options, as_dict
from unival.generation.outputs import Output
from unival.generation.search import UnivalGenerator
from unival.generation.trie import Trie
from unival.instructions import Instruction, parse
from unival.metrics import MetricOptions
from unival.modalities import MODALITIES, with_media
from unival.tasks.closed_set import read_answers
from unival.tasks.evaluation import Evaluation
from unival.tasks.inputs import media_of_instructions
from unival.tasks.presets import ANY, PRESETS, Preset
from unival.tasks.pretraining.file import READS, STREAM, StreamSpec
from unival.tasks.pretraining.values import Place, nearest

OPTIONS = "|".join(key.replace("_", "-") for key in STREAM)
OPTION = re.compile(rf"--({OPTIONS})\b(?!-)( (?=[A-Z]{{2}}|grouped))?")  # of another task that is a key here, and whether a value follows


@contextlib.contextmanager
def errors_of(place: Place) -> Iterator[None]:
    """Put file and key before the errors of what a mixture file names, which speak of its keys in place of options."""
    try:
        yield
    except InstructionError as error:
        raise place.error(with_keys(error.one_line)) from error
    except UserError as error:
        if str(error).startswith(str(place.file)):
            raise
        raise place.error(with_keys(str(error))) from error


def with_keys(message: str) -> str:
    """A message that names the keys of a stream in place of the options of other tasks: ``--closed-set FILE`` -> ``closed_set: FILE``."""
    return OPTION.sub(lambda found: found[1].replace("-", "_") + (": " if found[2] else ""), message)


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


def instructions_of(spec: StreamSpec) -> dict[str, tuple[Instruction, ...]]:
    """The instructions of a stream, by the names that its builder gives; the first is the main one.

    Raises:
        UserError: the preset, the builder or an instruction cannot be used; names file and key.
    """
    if spec.builder is None or spec.builder in READS:
        preset = preset_of(spec)
        text = spec.instruction or preset.instruction
        if text is None:
            raise (spec.place / "preset").error(f"{preset.name} has no instruction: give instruction instead of preset")
        with errors_of(spec.place / ("instruction" if spec.instruction else "preset")):
            return {ONLY: parse(text, MODALITIES)}
    with errors_of(spec.place / "builder"):
        own = builder_of(spec.builder).instructions(spec.medium or next(iter(with_media())))
    for name in spec.instructions:
        if name not in own:
            raise (spec.place / "instructions" / name).error(f"the builder {spec.builder} has no such instruction{nearest(name, own)}")
    found = {}
    for name, text in {**own, **spec.instructions}.items():
        with errors_of(spec.place / "instructions" / name):
            found[name] = parse(text, MODALITIES)
    return found


def alternatives(named: Mapping[str, Sequence[Instruction]]) -> list[dict[str, list[Instruction]]]:
    """Instructions by name, with one alternative of each at a time, until all were there."""
    most = max(map(len, named.values()))
    return [{name: [each[min(number, len(each) - 1)]] for name, each in named.items()} for number in range(most)]


def media_of(spec: StreamSpec) -> set[str]:
    """The media in the sources of a stream."""
    return {name for alternatives in instructions_of(spec).values() for name in media_of_instructions(alternatives)}


class TaskStream:
    """A stream of a mixture file, with what its evaluation asks of a task.

    Args:
        spec: the stream in the file.
        task: the task, whose options and vocabulary it has.

    Raises:
        UserError: the preset, the builder, an instruction or the candidate answers cannot be used; names file and key.
    """

    def __init__(self, spec: StreamSpec, task: Any):
        self.spec, self.task = spec, task
        self.cfg, self.target_dictionary = task.cfg, task.target_dictionary
        self.preset = preset_of(spec)
        self.builder = "plain" if spec.builder is None else spec.builder
        self.named = instructions_of(spec)  # by the names that the builder gives
        self.instructions: Sequence[Instruction] = next(iter(self.named.values()))  # the main one, by which it is evaluated
        self.trie: Trie | None = self._trie()
        metrics = self._metrics()
        with errors_of(spec.place / "metrics"):
            options = MetricOptions(task.cfg.eval_box_threshold, task.cfg.eval_cider_df)
            generation = {**self.preset.generation, **answer_options(task.cfg)}
            printed = task.cfg.eval_print_samples
            self.evaluation = Evaluation(metrics, generation, task.cfg.eval_args, printed, options, prefix=f"{spec.name}/")

    def _trie(self) -> Trie | None:
        spec = self.spec
        if spec.closed_set is not None and spec.builder is not None:
            raise (spec.place / "closed_set").error("is for a stream with a preset or an instruction")
        with errors_of(spec.place / "closed_set"):
            answers = self.preset.closed_set if spec.closed_set is None else read_answers(spec.closed_set)
            return self.task.build_trie(self.instructions, answers or ())

    def _metrics(self) -> Sequence[str]:
        if self.cfg.eval_metrics == "":  # validation by loss alone
            return ()
        if self.spec.metrics is not None:
            return self.spec.metrics
        if self.spec.builder is not None:
            return ()
        return self.preset.metrics or self.target_of(self.instructions).metrics

    @property
    def name(self) -> str:
        """Its name in the file."""
        return self.spec.name

    # --- data -----------------------------------------------------------------------------------------------------------------

    def training_data(self) -> Stream:
        """Its rows to train on."""
        tables = [self._open(path, self.spec.place / "table") for path in self.spec.table]
        with errors_of(self.spec.place / "table"):
            streams = [self._stream(table, True, self.named, self.builder) for table in tables]  # checks columns table by table
            return streams[0] if len(tables) == 1 else self._stream(JoinedTable(tables), True, self.named, self.builder)

    def every_reading(self, data: Stream) -> list[Stream]:
        """The rows of :meth:`training_data` or :meth:`validation_data` as they are read without chance, by each alternative of their
        instructions."""
        is_evaluated = not data.is_train and bool(self.evaluation.metrics)
        named, builder = ({ONLY: self.instructions}, "plain") if is_evaluated else (self.named, self.builder)
        return [self._stream(data.table, False, each, builder) for each in alternatives(named)]

    def validation_data(self) -> Stream:
        """Its rows for validation: with metrics of what the main instruction predicts, else of all that its builder makes."""
        assert self.spec.valid is not None, "a stream without a validation table"
        table = self._open(self.spec.valid, self.spec.place / "valid")
        with errors_of(self.spec.place / "valid"):
            if self.evaluation.metrics:
                return self._stream(table, False, {ONLY: self.instructions}, "plain")
            return self._stream(table, False, self.named, self.builder)

    def _open(self, path: Any, place: Place) -> Table:
        spec = self.spec
        columns = spec.columns or self.preset.tsv_columns
        selected = spec.selected_cols or (None if spec.columns else self.preset.tsv_selected)
        with errors_of(place):
            table = self.task.open_table_with(path, columns, selected, spec.media_root)
        read = [str(slot.column) for each in self.named.values() for part in each for slot in part.slots if slot.column is not None]
        if table.joins_values and columns is None and not all(name in table.columns for name in read):
            names = ", ".join(dict.fromkeys(read))
            has = f"{path} has {counted(len(table.columns), 'column')} without names, and {names} are read"
            raise spec.place.error(f"{has}: give columns, the name of each (with selected_cols, their numbers, of those only)")
        return table

    def _stream(self, table: Table, train: bool, named: Mapping[str, Sequence[Instruction]], builder: str) -> Stream:
        candidates = None if self.trie is None else self.trie.answers
        stream = self.task.stream(table, named, train, builder=builder, candidates=candidates)
        stream.name = self.name
        return stream

    # --- what evaluation asks of a task ---------------------------------------------------------------------------------------

    def target_of(self, instructions: Sequence[Instruction]) -> Any:
        """What encodes and decodes the values that its instruction predicts."""
        return self.task.target_of(instructions)

    def generation_options(self) -> Namespace:
        """Generation options of its validation."""
        is_limited = self.target_of(self.instructions).length is not None or self.trie is not None
        return self.evaluation.options(is_limited)

    def build_generator(self, models: list[Any], args: Any) -> UnivalGenerator:
        """The generator of its validation."""
        options = {**answer_options(self.cfg), **as_dict(args)}
        return self.task.generator_for(models, options, self.trie, instructions=self.instructions)

    def outputs(self, generator: UnivalGenerator, models: list[Any], sample: dict[str, Any]) -> list[Output]:
        """Generate an output for every row of a batch."""
        return self.task.outputs(generator, models, sample)
