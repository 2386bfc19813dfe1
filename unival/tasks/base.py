"""The base class of all tasks: fairseq's hooks."""

import logging
import pathlib
from argparse import Namespace
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, ClassVar

import torch
from fairseq.data import Dictionary
from fairseq.distributed import utils as distributed
from fairseq.logging import metrics as log
from fairseq.tasks import register_task
from torch import Tensor

from unival.checkpoints.files import ema_weights, read
from unival.checkpoints.published_options import is_published_cfg, model_options
from unival.criterions.label_smoothed import LabelSmoothedCriterion
from unival.criterions.scst import ScstCriterion
from unival.data.collate import source_rows
from unival.errors import UserError, counted
from unival.generation.options import answer_options, as_dict, drop_device_options
from unival.generation.outputs import Decode, Output, make_output, reject, text_of, with_answer_scores
from unival.generation.search import UnivalGenerator, without_prompts
from unival.models.config import FOLLOWING, check_counts, saved_config
from unival.models.trainable import choose_trainable, chooses, said_of_trained
from unival.models.uninitialised import without_initial_values
from unival.tasks import averages, hours, restore, resume
from unival.tasks.checks import TrainingChecks, check_generation
from unival.tasks.closed_set import limit_loss
from unival.tasks.config import UnivalTaskConfig
from unival.tasks.copying import TaskState
from unival.tasks.inputs import data_folder, find_table, shard_of
from unival.tasks.instructed import InstructedTask
from unival.tasks.loop import weightless
from unival.tasks.progress import Progress
from unival.tasks.resume import Settings, given_settings
from unival.tasks.rollouts import RolloutMaker
from unival.vocab import FairseqBpe, Vocabulary

logger = logging.getLogger(__name__)


@register_task("unival", dataclass=UnivalTaskConfig)
class UnivalTask(InstructedTask):
    """A task for any instruction over any table, with the methods that fairseq calls."""

    training_checks: ClassVar[type[TrainingChecks]] = TrainingChecks

    def __init__(
        self,
        cfg: UnivalTaskConfig,
        vocabulary: Vocabulary,
        answers: Sequence[str] | None = None,
        given: Settings | None = None,
        trained: Settings | None = None,
    ):
        """Build a task.

        Args:
            cfg: options of the task.
            vocabulary: the vocabulary.
            answers: the candidate answers, instead of ``--closed-set``.
            given: settings of the command line (default: those of ``cfg``).
            trained: settings that the task's checkpoint was trained with (default: not known yet).
        """
        given = given_settings(cfg, self.preset) if given is None else given
        if answers is not None:
            given = replace(given, closed_set=tuple(answers) or None)
        super().__init__(cfg, vocabulary, given, Settings() if trained is None else trained)
        self.state = TaskState()
        self.start: restore.Start | None = None  # the checkpoint that a run starts from, until it begins
        self.checks: TrainingChecks | None = None  # until the run begins
        self.averages_late = False  # --store-ema is off until the run begins
        self.seconds_before = 0.0  # of training before this run, which fairseq counts as its own
        self.paths_of_averages: list[pathlib.Path] = []  # checkpoints still to be loaded whose moving average is used
        self.is_training = False  # else trained models are evaluated
        self.is_generating = False  # whether this is fairseq-generate, which takes tables without answers, too
        self.shard = (0, 1)  # (index, number) of shards of the rows to evaluate
        self.rollouts: RolloutMaker | None = None  # of self-critical training
        self.progress = Progress()
        self.bpe: FairseqBpe | None = None  # for fairseq-generate

    @classmethod
    def setup_task(cls, cfg: UnivalTaskConfig, from_checkpoint: bool = False, **kwargs: Any) -> "UnivalTask":
        """Load the vocabulary and build the task; with ``from_checkpoint``, ``cfg`` has the options of a checkpoint (fairseq-validate)."""
        from unival.tasks import user_dir  # noqa: F401  checkpoints that this process reads

        on_cpu = cfg.cpu or not (torch.cuda.is_available() or from_checkpoint)
        if on_cpu and (cfg.bf16 or cfg.fp16):
            raise UserError("--bf16 and --fp16 of fairseq need a GPU; on a CPU --autocast-bf16 trains in bfloat16")
        if from_checkpoint and not torch.cuda.is_available():
            drop_device_options(cfg)
        data_folder(cfg.data)  # raises an error if it does not exist, before anything is built
        training = not from_checkpoint and cfg.path is None
        if not from_checkpoint and not training:
            check_generation(cfg)
        origin = resume.find_origin(cfg, cls.preset, training, from_checkpoint)
        task = cls(cfg, origin.vocabulary, given=origin.given, trained=origin.trained)
        task.start = origin.start
        task.shard = shard_of(cfg, is_training=training)
        task.is_generating = not (training or from_checkpoint)
        if training:
            task.checks = cls.training_checks(task)
        elif cfg.weights == "ema" and cfg.path is not None:
            task.paths_of_averages = resume.named_checkpoints(cfg.path, cfg.checkpoint_suffix or "")
        return task

    # --- data -----------------------------------------------------------------------------------------------------------------

    def load_dataset(self, split: str, combine: bool = False, task_cfg: Any = None, epoch: int = 1, **kwargs: Any) -> None:
        """Load a split: for training (shuffled, augmented) if it is ``--train-subset``, else for evaluation.

        ``task_cfg`` has the checkpoint's task options, which fairseq-generate and fairseq-validate pass here.
        """
        if task_cfg is not None:
            self.learn(resume.settings_of_options(task_cfg))
        is_train_subset = split == self.cfg.train_subset
        path = find_table(self.cfg.data, split, is_train_subset, epoch)
        table = self.open_table(path)
        absent = self.absent_columns(table) if self.is_generating else []
        if self.is_generating and self.trained.metrics and self.does_what_was_trained():
            self.evaluation.measure(self.trained.metrics)
        dataset = self.build_dataset(table, train=self.is_training and is_train_subset, with_target=not absent)
        dataset.split = split
        dataset.take_shard(*((0, 1) if dataset.is_train else self.shard))
        is_over = epoch > 1 and dataset.is_train and 0 < (self.cfg.max_epoch or 0) < epoch  # fairseq loads the table of one more epoch
        logger.log(logging.DEBUG if is_over else logging.INFO, "%s: %s from %s", split, counted(len(dataset), "row"), path)
        self.datasets[split] = dataset
        if absent:
            columns = ", ".join(table.columns)
            logger.warning("%s: no column %r to score with; generating without (the columns are %s)", path, absent[0], columns)
        elif not dataset.is_train and self.evaluation.metrics:
            known = self.checks.references.pop(split, None) if self.checks is not None else None
            self.evaluation.fit(split, dataset.references() if known is None else known, dataset.where_reference)

    def max_positions(self) -> None:
        """None: rows are not filtered by length; texts are truncated to their limits instead, and counted."""
        return None

    @property
    def source_dictionary(self) -> Dictionary:
        """The one dictionary."""
        return self.vocabulary.dictionary

    target_dictionary = source_dictionary

    def build_bpe(self, args: Any) -> FairseqBpe:
        """The BPE by which fairseq-generate decodes its output."""
        self.bpe = FairseqBpe(self.vocabulary)
        return self.bpe

    # --- model ------------------------------------------------------------------------------------------------------------------

    def build_model(self, cfg: Any, from_checkpoint: bool = False) -> Any:
        """Build the model of a configuration, ours or that of a published checkpoint.

        In training, options that the command line leaves open follow from the task: the media of its instruction, and the options
        of loading that the model depends on.  They are written to ``cfg``, which is stored in checkpoints.
        """
        if is_published_cfg(cfg):
            cfg = saved_config(model_options(cfg))
        restore.refuse_other_models(cfg)
        if from_checkpoint:
            cfg = saved_config(cfg)
            self.fit_positions(cfg)
            for name in [name for name in FOLLOWING if cfg[name] is None]:  # an option that was added after the checkpoint
                cfg[name] = getattr(self.media, name)
            model = without_initial_values(partial(super().build_model, cfg, from_checkpoint))
            model.keeps_to_checkpoint, model.inference_type = True, self.cfg.dtype
            if self.paths_of_averages:  # fairseq loads one after the other
                path = self.paths_of_averages.pop(0)
                model.weights_instead = ema_weights(read(path), path)
            return model
        check_counts(cfg)
        self.is_training = True
        start, self.start = self.start, None
        if start is not None:
            if self.cfg.validate_with != "model" and distributed.get_global_rank() == 0:  # of a run that was stopped while saving
                averages.keep_best(pathlib.Path(self.cfg.save_dir), self.cfg.checkpoint_suffix)
            restore.end_if_finished(self.cfg, start)
        needed = self.needed_media()
        if cfg.modalities is None and needed is not None:
            cfg.modalities = ",".join(sorted(needed))
        for name in FOLLOWING:
            cfg[name] = getattr(self.media, name)
        self.fit_positions(cfg)
        if self.checks is not None:
            self.checks.before_model(start.container if start else None)
        model = super().build_model(cfg, from_checkpoint)
        model.load_backbones()
        choose_trainable(model)
        if chooses(cfg):
            logger.info(said_of_trained(model))
        if self.checks is not None:
            self.checks.after_model(model)
        if start is not None:
            restore.check_trained(self.cfg, start, model)
            restore.warn_of_silent_options(start.container, model)
        elif cfg.peft or cfg.trainable:
            logger.warning("no checkpoint to start from: what --peft and --trainable leave frozen keeps its initial weights")
        self.averages_late = averages.start_from_weights(self.cfg, start)
        self.seconds_before = hours.seconds_before(self.cfg, start)
        hours.extend_limit(self.cfg, self.seconds_before)
        return model

    @property
    def uses_ema(self) -> bool:
        """fairseq's question, whether steps are given the moving average: always, so that it starts before the first update."""
        return bool(self.cfg.store_ema)

    def build_criterion(self, cfg: Any, from_checkpoint: bool = False) -> Any:
        """Build the criterion; fairseq-validate builds the one that a checkpoint names."""
        restore.refuse_other_criterions(cfg)
        criterion = super().build_criterion(cfg, from_checkpoint)
        if self.checks is not None:
            self.checks.after_criterion(criterion)
        if isinstance(criterion, ScstCriterion) and self.is_training:
            self.rollouts = RolloutMaker(self, criterion)
        return criterion

    # --- checkpoints ------------------------------------------------------------------------------------------------------------

    def state_dict(self) -> dict[str, Any]:
        """The task's state in checkpoints: the vocabulary itself, so that its files are not needed, and the settings of training."""
        sizes = {"num_codes": self.vocabulary.num_codes, "num_bins": self.vocabulary.num_bins}
        state: dict[str, Any] = {
            **sizes,
            "vocabulary": self.vocabulary.fingerprint,
            "vocabulary_files": self.vocabulary.files(),
            "media": dict(vars(self.media)),  # including those taken from the checkpoint that training started from
            "instruction": self.instruction_text,  # likewise
            "seconds_before": self.seconds_before,
        }
        return {**state, "closed_set": self.answers} if self.answers else state

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take the state of the task in a checkpoint, if it was not read before.

        Raises:
            UserError: the checkpoint was trained with another vocabulary.
        """
        trained = resume.settings_of_state(state_dict)
        resume.check_vocabulary(self.vocabulary, trained)
        self.learn(trained)

    # --- steps --------------------------------------------------------------------------------------------------------------------

    def train_step(
        self,
        sample: dict[str, Any],
        model: Any,
        criterion: Any,
        optimizer: Any,
        update_num: int,
        ignore_grad: bool = False,
        ema_model: Any = None,
    ) -> Any:
        """fairseq's training step, with the loss restricted to the candidate answers."""
        if self.rollouts is None:
            sample = self.with_limits(sample)
        elif sample["nsentences"]:
            sample = self.rollouts(sample, model, update_num)
        if isinstance(criterion, LabelSmoothedCriterion):
            criterion.set_num_updates(update_num)
        step = super().train_step(sample, model, criterion, optimizer, update_num, ignore_grad)
        self.progress.trained(update_num, step[2], self.planned_updates)
        return step

    def idle_batch(self, model: Any) -> dict[str, Any]:
        """The batch of a step without rows."""
        batch = super().idle_batch(model)
        return batch if self.rollouts is None else self.rollouts.trivial(batch)

    def valid_step(self, sample: dict[str, Any], model: Any, criterion: Any, ema_model: Any = None) -> Any:
        """The validation step: loss, and the metrics' statistics of generated texts; of the moving average by ``--validate-with``."""
        first, second = averages.validated(self.cfg.validate_with, model, ema_model)
        if sample["nsentences"]:
            step = self.measure(self.with_limits(sample), first, second, criterion)
        else:  # fewer rows than processes
            row = self.stand_in(model) | {key: sample[key] for key in ("split", "stream_names") if key in sample}
            step = weightless(self.measure(row, first, second, criterion))
        self.progress.rows("validating", sample, self.datasets)
        return step

    def measure(self, sample: dict[str, Any], model: Any, second: Any, criterion: Any) -> Any:
        """A validation step of a model, and of a second one beside it, on a batch that is not empty."""
        loss, sample_size, logging_output = super().valid_step(sample, model, criterion)
        logging_output.update(self.evaluation.step(self, model, sample))
        if second is not None:
            values = super().valid_step(sample, second, criterion)[2] | self.evaluation.step(self, second, sample, prints=False)
            logging_output.update(averages.beside(values))
        logging_output["num_truncated"] = sample["num_truncated"]
        logging_output["num_outside"] = int(sample["outside"].sum()) if "outside" in sample else 0
        return loss, sample_size, logging_output

    def with_limits(self, sample: dict[str, Any]) -> dict[str, Any]:
        """Add the constraints of the loss to a batch: candidate answers, or the range of tokens of its targets."""
        if not sample["nsentences"]:
            return sample
        target, size = sample["target"], len(self.vocabulary)
        sample = limit_loss(sample, size)
        if self.trie is None:
            return sample
        self.trie.to(target.device)
        masks = self.trie.target_masks(target, self.vocabulary.pad, size)
        if "outside" in sample:  # in evaluation: an answer that is no candidate has its loss over the whole vocabulary
            masks[sample["outside"]] = True
        counts = torch.full_like(sample["stream"], self.trie.size)
        return {**sample, "constraint_masks": masks, "num_candidates": counts}

    def begin_epoch(self, epoch: int, model: Any) -> None:
        """Prepare an epoch; fairseq calls this before its first update."""
        super().begin_epoch(epoch, model)
        if self.averages_late:
            averages.keep_average(self.cfg)
            self.averages_late = False
        if self.checks is not None:
            self.checks.before_first_update(model)
            self.checks = None

    def post_save(self, path: str, num_updates: int) -> None:
        """fairseq's hook after it has saved a checkpoint, in the process that saved it."""
        if self.cfg.validate_with != "model":
            averages.keep_best(pathlib.Path(path).parent, self.cfg.checkpoint_suffix)

    def begin_valid_epoch(self, epoch: int, model: Any) -> None:
        """Prepare a validation; fairseq calls this before each."""
        self.evaluation.begin()
        self.progress.begin_validation()

    def generation_options(self) -> Namespace:
        """Generation options of validation: the task's defaults, changed by ``--eval-args``."""
        is_limited = bool(self.instructions) and self.target_of(self.instructions).length is not None
        return self.evaluation.options(is_limited or self.trie is not None)

    def build_generator(
        self,
        models: list[Any],
        args: Any,
        seq_gen_cls: Any = None,
        extra_gen_cls_kwargs: dict[str, Any] | None = None,
        prefix_allowed_tokens_fn: Callable[..., Any] | None = None,
    ) -> UnivalGenerator:
        """Build the task's generator, for validation, fairseq-generate and the Python API."""
        return self.generator_for(models, {**answer_options(self.cfg), **as_dict(args)}, self.trie, extra_gen_cls_kwargs)

    def inference_step(
        self,
        generator: UnivalGenerator,
        models: list[Any],
        sample: dict[str, Any],
        prefix_tokens: Tensor | None = None,
        constraints: Any = None,
    ) -> list[list[dict[str, Any]]]:
        """The generation step of fairseq-generate, which prints the sources: they replace the groups in the batch."""
        hypotheses = self.hypotheses(generator, models, sample, prefix_tokens)
        sample["net_input"] = {"src_tokens": source_rows(sample["net_input"]["groups"], self.vocabulary.pad)}
        self.evaluation.announce(sample, self.progress, self.datasets, [float(beams[0]["answer_score"]) for beams in hypotheses])
        if self.bpe is not None and generator.has_own_text:
            decoders = self.decoders(generator, sample)
            rows = zip(hypotheses, decoders, strict=True)
            self.bpe.expect([text_of(beam, read) for beam in beams[: generator.nbest]] for beams, read in rows)
        return hypotheses

    def hypotheses(
        self, generator: UnivalGenerator, models: list[Any], sample: dict[str, Any], prefix_tokens: Tensor | None = None
    ) -> list[list[dict[str, Any]]]:
        """Generate hypotheses per row, best first, without the given prefix of the target."""
        prefix = sample.get("prefix_tokens", prefix_tokens)
        with torch.no_grad():
            hypotheses = generator.generate(models, sample, prefix_tokens=prefix, bos_token=self.vocabulary.bos)
        prompts = [0] * len(hypotheses) if prefix is None else prefix.ne(self.vocabulary.pad).sum(dim=1).tolist()
        hypotheses = with_answer_scores(without_prompts(hypotheses, prompts), prompts, generator.lenpen)
        return hypotheses if generator.reject_below is None else reject(hypotheses, generator.reject_below)

    def outputs(self, generator: UnivalGenerator, models: list[Any], sample: dict[str, Any], nbest: int = 1) -> list[Output]:
        """Generate an output for every row of a batch, with the ``nbest`` - 1 next best hypotheses as alternatives."""
        hypotheses = self.hypotheses(generator, models, sample)
        rows = zip(hypotheses, self.decoders(generator, sample), strict=True)
        return [make_output(beams[:nbest], read, self.vocabulary.eos) for beams, read in rows]

    @staticmethod
    def decoders(generator: UnivalGenerator, sample: dict[str, Any]) -> list[Decode]:
        """Functions that decode the token ids of hypotheses, one for every row of a batch."""
        return [partial(generator.decode, geometry=where) for where in sample.get("geometry", [{}] * sample["nsentences"])]

    # --- logging --------------------------------------------------------------------------------------------------------------------

    def reduce_metrics(self, logging_outputs: list[dict[str, Any]], criterion: Any) -> None:
        """Log the criterion's values, the counts of a training step, and the metrics' scores."""
        super().reduce_metrics(logging_outputs, criterion)
        for key in ("num_skipped", "num_truncated", "num_empty", "num_outside"):
            counts = [float(output[key]) for output in logging_outputs if key in output]
            if sum(counts) or (counts and key not in ("num_empty", "num_outside")):
                log.log_scalar_sum(key, sum(counts))
        self.evaluation.log(logging_outputs)
        averages.log_beside(logging_outputs, [criterion.reduce_metrics, self.evaluation.log])
