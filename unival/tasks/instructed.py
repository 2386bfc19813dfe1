"""Tasks with an instruction: settings, tables, data sets, candidate answers, generators."""

import logging
import pathlib
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, ClassVar

from unival.data.builders import ONLY, builder_of
from unival.data.stream import MOST_TOKENS, Stream, TextLimits
from unival.data.table import Table, open_table
from unival.errors import UserError
from unival.generation.options import answer_options
from unival.generation.search import UnivalGenerator, build_generator
from unival.generation.trie import Trie
from unival.instructions import Instruction, parse
from unival.metrics import MetricOptions
from unival.metrics.base import check_box_threshold
from unival.modalities import MODALITIES
from unival.modalities.composed import MediaOptions
from unival.modalities.target import Target, decode, predicted_slot, predicted_slots
from unival.tasks import resume
from unival.tasks.closed_set import build_trie
from unival.tasks.config import UnivalTaskConfig, add_newer_options
from unival.tasks.evaluation import Evaluation
from unival.tasks.inputs import media_of_instructions
from unival.tasks.loop import LoopTask
from unival.tasks.presets import ANY, Preset
from unival.tasks.resume import Settings
from unival.vocab import Vocabulary

logger = logging.getLogger(__name__)

NO_INSTRUCTION = "give --instruction, e.g. '[IMAGE:image] what does the image describe? -> [TEXT:caption]'"


class InstructedTask(LoopTask):
    """A task with an instruction; its preset has the defaults (see :mod:`unival.tasks.presets`).

    The methods that fairseq calls are in :class:`unival.tasks.base.UnivalTask`.

    Args:
        cfg: options of the task.
        vocabulary: the vocabulary.
        given: settings of the command line.
        trained: settings that the task's checkpoint was trained with, as far as they are known.
    """

    preset: ClassVar[Preset] = ANY

    cfg: UnivalTaskConfig

    def __init__(self, cfg: UnivalTaskConfig, vocabulary: Vocabulary, given: Settings, trained: Settings):
        add_newer_options(cfg)
        super().__init__(cfg)
        self.vocabulary = vocabulary
        self.given = given
        self.trained = trained
        self.positions = (MOST_TOKENS, MOST_TOKENS)  # of source and target in the models, as far as they are known
        check_box_threshold("--eval-box-threshold", cfg.eval_box_threshold)
        options = MetricOptions(cfg.eval_box_threshold, cfg.eval_cider_df)
        generation = {**self.preset.generation, **answer_options(cfg)}
        names = resume.metric_names(cfg.eval_metrics, self.preset)
        self.evaluation = Evaluation(names, generation, cfg.eval_args, cfg.eval_print_samples, options)
        self.decide()

    def decide(self) -> None:
        """Resolve the settings from command line, checkpoint and defaults; differences from the checkpoint are logged."""
        settings, differences = resume.resolve(self.given, self.trained, resume.default_settings(self.preset))
        for difference in differences:
            logger.warning(difference)
        self.media = MediaOptions(**settings.media)
        self.answers = list(settings.closed_set or ())
        self.instruction_text = settings.instruction or ""
        self.instructions: tuple[Instruction, ...] = parse(self.instruction_text, MODALITIES) if self.instruction_text else ()
        self.trie: Trie | None = self.build_trie(self.instructions, self.answers) if self.instructions else None
        if self.instructions and self.cfg.eval_metrics is None and not self.preset.metrics:
            self.evaluation.measure(self.target_of(self.instructions).metrics)

    def learn(self, trained: Settings) -> None:
        """Take settings of the task's checkpoint that were not known before, and resolve again."""
        known = self.trained.over(trained)
        if known != self.trained:
            self.trained = known
            self.decide()

    def does_what_was_trained(self) -> bool:
        """Whether task and instruction are the checkpoint's, and no metrics are given: the metrics are the checkpoint's then."""
        asked, trained = self.given.instruction, self.trained
        return self.cfg.eval_metrics is None and trained.task == self.preset.name and asked in (None, trained.instruction)

    def build_trie(self, instructions: Sequence[Instruction], answers: Sequence[str]) -> Trie | None:
        """Build the trie of the candidate answers; None if the instruction has no closed set (alternatives have equal targets)."""
        return build_trie(instructions[0], answers, self.target_of(instructions), self.media.max_tgt_length)

    def target_of(self, instructions: Sequence[Instruction]) -> Target:
        """The target that encodes and decodes the values that an instruction predicts."""
        if not instructions:
            raise UserError(NO_INSTRUCTION)
        kind = MODALITIES[predicted_slot(instructions[0]).modality].target
        assert kind is not None, "the parser lets only those predict that can"
        return kind(self.vocabulary, self.media)

    def needed_media(self) -> set[str] | None:
        """The media that a model of this task takes; None: not known without an instruction."""
        return media_of_instructions(self.instructions) if self.instructions else None

    def fit_positions(self, cfg: Any) -> None:
        """Limit the tokens of sources and targets to the positions of a model with these options; of an ensemble, the fewest."""
        source, target = self.positions
        self.positions = min(source, cfg.max_source_positions), min(target, cfg.max_target_positions)

    def open_table(self, path: str | pathlib.Path) -> Table:
        """Open a table of this task (TSV: with the columns of the published tables)."""
        columns = self.cfg.columns.split(",") if self.cfg.columns else self.preset.tsv_columns
        selected = self.cfg.selected_cols or self.preset.tsv_selected
        return self.open_table_with(path, columns, selected)

    def open_table_with(
        self, path: str | pathlib.Path, columns: Sequence[str] | None, selected: str | None, media_root: Any = None
    ) -> Table:
        """Open a table; names and numbers of its columns are for TSV."""
        media_root = media_root or self.cfg.media_root
        if pathlib.Path(path).suffix == ".tsv":
            return open_table(path, columns, selected, media_root)
        return open_table(path, media_root=media_root)

    def absent_columns(self, table: Table) -> list[str]:
        """The columns that the instruction predicts and a table lacks, as tables whose answers only a benchmark's server has."""
        slots = predicted_slots(self.instructions[0]) if self.instructions else []
        return [slot.column for slot in slots if slot.column is not None and slot.column not in table.columns]

    def build_dataset(
        self,
        table: Table,
        train: bool = False,
        with_target: bool = True,
        instructions: Sequence[Instruction] | None = None,
    ) -> Stream:
        """Make the data set of a table with this task's instruction, or with another one."""
        if not instructions and not self.instruction_text:
            raise UserError(NO_INSTRUCTION)
        candidates = None if instructions or self.trie is None else self.trie.answers
        if train and not instructions:
            return self.stream(table, self.to_build(), train, candidates=candidates, builder=self.cfg.builder)
        return self.stream(table, instructions or self.instructions, train, with_target=with_target, candidates=candidates)

    def to_build(self) -> dict[str, Sequence[Instruction]]:
        """The instructions of ``--builder``, of which the task's own is the first.

        Raises:
            UserError: there is no such builder, or its instructions need a medium and the task's has none.
        """
        media = (MODALITIES[slot.modality] for slot in self.instructions[0].source)
        medium = next((kind.key for kind in media if kind.media is not None), "")
        builder = builder_of(self.cfg.builder)
        try:
            own = builder.instructions(medium)
        except UserError as error:
            reason = str(error) if medium else f"its instructions are about a medium, and {self.instruction_text!r} has none"
            raise UserError(f"--builder {self.cfg.builder}: {reason}") from error
        first, *others = own or [ONLY]
        return {first: self.instructions, **{name: parse(own[name], MODALITIES) for name in others}}

    def stream(
        self, table: Table, instructions: Sequence[Instruction] | Mapping[str, Sequence[Instruction]], train: bool, **kwargs: Any
    ) -> Stream:
        """Make a data set with this task's options; ``kwargs`` are those of :class:`unival.data.stream.Stream` that differ."""
        return Stream(
            table,
            instructions,
            self.vocabulary,
            self.media,
            TextLimits(self.media.max_src_length, self.media.max_tgt_length, *self.positions),
            train=train,
            seed=self.cfg.seed,
            skip_bad=train and self.cfg.on_bad_sample == "skip",
            skip_answers=train and self.cfg.on_bad_answer == "skip",
            **kwargs,
        )

    def generator_for(
        self,
        models: list[Any],
        args: Any,
        trie: Trie | None,
        extra_gen_cls_kwargs: dict[str, Any] | None = None,
        instructions: Sequence[Instruction] = (),
    ) -> UnivalGenerator:
        """Build a generator, constrained to what an instruction (default: the task's) predicts.

        Args:
            trie: the closed set of its answers.
        """
        instructions = instructions or self.instructions
        target, slot = self.target_of(instructions), predicted_slot(instructions[0])
        generator = build_generator(
            models,
            self.target_dictionary,
            args,
            trie=trie,
            constraint_range=target.span,
            extra_gen_cls_kwargs=extra_gen_cls_kwargs,
            length=target.length,
        )
        generator.decode, generator.has_own_text = partial(decode, target, slot), target.has_own_text
        return generator
