"""Decides between command line, checkpoint and defaults (in this order) for all settings of a task's inputs and outputs.

Training, validation, generation, the Python API and the commands all read the settings of a checkpoint with :func:`settings_of` or
:func:`read_settings`, those of the command line with :func:`given_settings`, and choose with :func:`resolve`.
"""

import functools
import logging
import pathlib
import tempfile
from argparse import Namespace
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any

from fairseq import utils
from fairseq.checkpoint_utils import get_maybe_sharded_checkpoint_filename
from fairseq.tasks import TASK_REGISTRY
from omegaconf import OmegaConf

from unival.checkpoints.published_options import is_published_cfg, task_options
from unival.errors import MISSING_PLUGIN, UserError, counted, flag
from unival.modalities.composed import TRAINING_ONLY, MediaOptions, options_in
from unival.models.config import FOLLOWING
from unival.tasks.closed_set import read_answers
from unival.tasks.config import UnivalTaskConfig
from unival.tasks.ensemble import check_ensemble
from unival.tasks.inputs import data_folder
from unival.tasks.presets import ANY, PRESETS, Preset
from unival.tasks.restore import Start, open_start, read_for_fairseq, saved_model_options
from unival.vocab import NUM_BINS, NUM_CODES, Vocabulary, train_vocabulary

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class KeptVocabulary:
    """The vocabulary that a checkpoint was trained with: its fingerprint, and its files (name -> text; None: not in the checkpoint)."""

    fingerprint: str
    files: Mapping[str, str] | None = None

    def load(self, num_codes: int | None, num_bins: int | None) -> Vocabulary:
        """Load the vocabulary from the files."""
        assert self.files is not None, "a checkpoint without a vocabulary"
        with tempfile.TemporaryDirectory() as folder:
            for name, text in self.files.items():
                (pathlib.Path(folder) / pathlib.Path(name).name).write_text(text, encoding="utf-8")
            return Vocabulary.load(folder, num_codes, num_bins)


@dataclass(frozen=True)
class Settings:
    """Settings of inputs and outputs from one source; None, and in ``media`` a missing name, mean that the source does not set it.

    Attributes:
        task: name of the task (``--task``).
        instruction: the instruction.
        closed_set: candidate answers of a slot with ``closed_set``.
        num_codes, num_bins: number of image codes and location bins in the vocabulary.
        vocabulary: the vocabulary in a checkpoint.
        media: options of reading cells, also of texts: option -> value.
        metrics: names of the metrics of validation.
    """

    task: str | None = None
    instruction: str | None = None
    closed_set: tuple[str, ...] | None = None
    num_codes: int | None = None
    num_bins: int | None = None
    vocabulary: KeptVocabulary | None = None
    media: Mapping[str, Any] = field(default_factory=dict)
    metrics: tuple[str, ...] | None = None

    def over(self, other: "Settings") -> "Settings":
        """These settings, completed with those of another source."""
        chosen = {f.name: getattr(self, f.name) for f in fields(self) if getattr(self, f.name) is not None}
        return replace(other, **{**chosen, "media": {**other.media, **self.media}})

    def flat(self) -> dict[str, Any]:
        """The settings that change the evaluation of a row, by name of the task's option."""
        media = {name: value for name, value in self.media.items() if name not in TRAINING_ONLY}
        return {**media, "instruction": self.instruction, "closed_set": self.closed_set}


def resolve(given: Settings, trained: Settings, defaults: Settings) -> tuple[Settings, list[str]]:
    """Choose every setting: the given one, else the one that the checkpoint was trained with, else the default.

    Args:
        given: settings of the command line.
        trained: settings of the checkpoint that is used or that training starts from; empty without a checkpoint.
        defaults: settings of the task.

    Returns:
        The settings, and a line to log for each one that differs from the checkpoint's.

    Raises:
        UserError: a switch differs from the checkpoint's.
    """
    asked, differences = given.flat(), []
    for name, value in trained.flat().items():
        choice = asked.get(name)
        if choice is None or value is None or choice == value:
            continue
        option = flag(name)
        if isinstance(value, bool):
            raise UserError(f"the checkpoint was trained {'with' if value else 'without'} {option}; use it the same way")
        if name == "closed_set":
            differences.append(f"{option}: {counted(len(choice), 'candidate')}, other than the {len(value)} of the checkpoint's training")
        elif name == "instruction":
            differences.append(f"{option} {choice!r}, trained with {value!r}")
        else:
            differences.append(f"{option} {choice}, trained with {value}")
    return given.over(trained).over(defaults), differences


def default_settings(preset: Preset) -> Settings:
    """The settings of a task without command line and checkpoint."""
    return Settings(task=preset.name, instruction=preset.instruction, closed_set=preset.closed_set, media=vars(MediaOptions()))


# What the command line says ---------------------------------------------------------------------------------------------------


def given_settings(cfg: Any, preset: Preset, training: bool = False, saved: Mapping[str, Any] | None = None) -> Settings:
    """The settings in a task's options.

    A switch with its default value is not a setting, except for switches that only training uses.

    Args:
        cfg: the options.
        preset: the task's preset; in training its instruction and candidate answers take precedence over the checkpoint's.
        training: True: a model is trained.
        saved: the checkpoint's options, if ``cfg`` is a copy of them with the command line's changes (fairseq-validate).  Files that they
            name were used in training and may no longer exist.
    """
    answers = cfg.closed_set if saved is None or cfg.closed_set != saved.get("closed_set") else None
    defaults = vars(MediaOptions())
    said = {name: cfg[name] for name in defaults if name in cfg and cfg[name] is not None}
    return Settings(
        instruction=cfg.instruction or (preset.instruction if training else None),
        closed_set=tuple(read_answers(answers)) if answers else (preset.closed_set if training else None),
        num_codes=cfg.num_codes,
        num_bins=cfg.num_bins,
        media={name: v for name, v in said.items() if name in TRAINING_ONLY or not isinstance(v, bool) or v != defaults[name]},
    )


def vocabulary_folder(cfg: Any, saved: Mapping[str, Any] | None = None) -> pathlib.Path | None:
    """The folder of ``--vocab-dir``, else ``vocab`` next to the tables, else None; ``saved`` as in :func:`given_settings`."""
    if cfg.vocab_dir and (saved is None or cfg.vocab_dir != saved.get("vocab_dir")):
        return pathlib.Path(cfg.vocab_dir)
    default = data_folder(cfg.data) / "vocab"
    return default if default.is_dir() else None


# What a checkpoint says -------------------------------------------------------------------------------------------------------


def options_of(container: Mapping[str, Any]) -> Any:
    """A checkpoint's task options, those of a published one converted to ours; empty if it has none."""
    saved = (container.get("cfg") or {}).get("task") or container.get("args") or {}
    return our_task_options(vars(saved) if isinstance(saved, Namespace) else saved)


def our_task_options(saved: Any) -> Any:
    """Convert the task options of a published checkpoint to ours; others are returned as they are."""
    if not is_published_cfg(saved):
        return saved
    options = task_options(saved)
    name = options.pop("_name")
    cfg = OmegaConf.structured(UnivalTaskConfig(data=".", seed=1, cpu=True, bf16=False, fp16=False, **options))
    cfg._name = name
    return cfg


def settings_of(container: Mapping[str, Any]) -> Settings:
    """The settings that a checkpoint was trained with.  Its task's state, which has those in effect, takes precedence over its options."""
    return saved_in(container).settings


def settings_of_options(saved: Any, model: Mapping[str, Any] | None = None) -> Settings:
    """The settings in a checkpoint's options; media options that it does not have were at their default.

    Args:
        saved: options of the task, ours or published.
        model: options of the model; they also have the media options that the model depends on, which the task's may lack in older files.
    """
    saved = our_task_options(saved)
    name = saved.get("_name")
    followed = {option: model[option] for option in FOLLOWING if model and model.get(option) is not None}
    return Settings(
        task=name,
        instruction=trained_instruction(saved),
        num_codes=saved.get("num_codes"),
        num_bins=saved.get("num_bins"),
        media={**vars(MediaOptions()), **followed, **options_in(saved)},
        metrics=metric_names(saved.get("eval_metrics"), PRESETS.get(str(name), ANY)) or None,
    )


def metric_names(eval_metrics: str | None, preset: Preset) -> tuple[str, ...]:
    """The metrics of ``--eval-metrics``; without it, those of a task's preset."""
    return preset.metrics if eval_metrics is None else tuple(name for name in eval_metrics.split(",") if name)


def settings_of_state(state: Mapping[str, Any]) -> Settings:
    """The settings in the task's state of a checkpoint."""
    fingerprint = state.get("vocabulary")
    return Settings(
        instruction=state.get("instruction") or None,
        closed_set=tuple(state.get("closed_set") or ()) or None,
        num_codes=state.get("num_codes"),
        num_bins=state.get("num_bins"),
        vocabulary=KeptVocabulary(fingerprint, state.get("vocabulary_files")) if fingerprint else None,
        media=options_in(state["media"]) if "media" in state else {},
    )


def trained_instruction(saved: Any, state: Mapping[str, Any] | None = None) -> str | None:
    """The instruction that a checkpoint was trained with: from its task's state, if it has one, else its options, else its preset."""
    return (state or {}).get("instruction") or saved.get("instruction") or PRESETS.get(str(saved.get("_name")), ANY).instruction


@dataclass(frozen=True)
class SavedSettings:
    """What a checkpoint says: settings, task options (ours, as given in training), and whether it has model options."""

    settings: Settings = field(default_factory=Settings)
    options: Any = field(default_factory=dict)
    has_model: bool = False


def named_checkpoints(paths: str, suffix: str) -> list[pathlib.Path]:
    """The checkpoints of ``--path``, found as fairseq does; several are an ensemble.

    Args:
        paths: value of ``--path``.
        suffix: value of ``--checkpoint-suffix``.
    """
    return [pathlib.Path(get_maybe_sharded_checkpoint_filename(path, suffix, 0, 1)) for path in utils.split_paths(paths)]


def read_settings(path: str | pathlib.Path) -> SavedSettings:
    """The settings in a checkpoint that fairseq will load; cached until the file changes.

    Raises:
        UserError: the file is refused, or fairseq cannot read it.
    """
    place = pathlib.Path(path)
    if not place.is_file():
        read_for_fairseq(place)  # raises an error that says what is wrong
    stat = place.stat()
    return _read_settings(place, (stat.st_ino, stat.st_size, stat.st_mtime_ns))


@functools.lru_cache(maxsize=8)
def _read_settings(path: pathlib.Path, stamp: tuple[int, ...]) -> SavedSettings:
    return saved_in(read_for_fairseq(path))


def saved_in(container: Mapping[str, Any]) -> SavedSettings:
    """The settings in the content of a checkpoint."""
    options, settings = options_of(container), settings_of_state(container.get("task_state") or {})
    if options:
        settings = settings.over(settings_of_options(options, saved_model_options(container)))
    return SavedSettings(settings, options, bool((container.get("cfg") or {}).get("model")))


def task_name(path: str | pathlib.Path, saved: SavedSettings) -> str:
    """The name of the task that a checkpoint was trained for, one of this package or a plugin.

    Raises:
        UserError: the checkpoint has no options, or is of another task.
    """
    if not saved.has_model or not saved.options:
        raise UserError(
            f"{path}: has no model and task options; expected a checkpoint of fairseq-train --user-dir unival, a published one"
            " of UnIVAL, or one that `unival convert` wrote"
        )
    ours, name = [name for name, cls in TASK_REGISTRY.items() if hasattr(cls, "preset")], saved.settings.task
    if name is None or name not in ours:
        raise UserError(f"{path}: is of task {name!r}; expected one of {', '.join(ours)}; {MISSING_PLUGIN}")
    return name


# The vocabulary ---------------------------------------------------------------------------------------------------------------


def load_vocabulary(folder: pathlib.Path | None, given: Settings, trained: Settings) -> Vocabulary | None:
    """Load the vocabulary from a folder, else from the checkpoint; None if neither has one.

    Raises:
        UserError: the vocabulary cannot be used, or differs from the one that the checkpoint was trained with.
    """
    sizes = given.over(trained)
    if folder is not None:
        found = Vocabulary.load(folder, sizes.num_codes, sizes.num_bins)
    elif trained.vocabulary is not None and trained.vocabulary.files is not None:
        found = trained.vocabulary.load(sizes.num_codes, sizes.num_bins)
    else:
        return None
    check_vocabulary(found, trained)
    return found


def any_vocabulary(cfg: Any) -> Vocabulary:
    """The vocabulary of a task's options; else one of bytes, bins and codes, by which rows can be read as well."""
    folder = vocabulary_folder(cfg)
    if folder is not None:
        return Vocabulary.load(folder, cfg.num_codes, cfg.num_bins)
    with tempfile.TemporaryDirectory() as made:
        train_vocabulary(["a"], 256, made)
        return Vocabulary.load(made, NUM_CODES, NUM_BINS)


def check_vocabulary(vocabulary: Vocabulary, trained: Settings) -> None:
    """Refuse a vocabulary that differs from the one that a checkpoint was trained with.

    Raises:
        UserError: the fingerprints differ.
    """
    kept = trained.vocabulary
    if kept is not None and kept.fingerprint != vocabulary.fingerprint:
        raise UserError(
            f"the checkpoint was trained with another vocabulary ({kept.fingerprint[:12]}, --num-codes {trained.num_codes}"
            f" --num-bins {trained.num_bins}) than --vocab-dir, --num-codes {vocabulary.num_codes} and"
            f" --num-bins {vocabulary.num_bins} give ({vocabulary.fingerprint[:12]}, {counted(len(vocabulary), 'token')})"
        )


def find_vocabulary(cfg: Any, given: Settings, trained: Settings, place: pathlib.Path | None, saved: Any = None) -> Vocabulary:
    """The vocabulary of a task: from ``--vocab-dir`` or the folder ``vocab`` next to the tables, else from the checkpoint.

    Args:
        cfg: the task's options.
        given, trained: settings of the command line and of the checkpoint.
        place: the checkpoint, if there is one.
        saved: as in :func:`given_settings`.

    Raises:
        UserError: there is no vocabulary, it cannot be used, or it differs from the one that the checkpoint was trained with.
    """
    found = load_vocabulary(vocabulary_folder(cfg, saved), given, trained)
    if found is not None:
        return found
    default = data_folder(cfg.data) / "vocab"
    if place is None:
        return Vocabulary.load(default, given.num_codes, given.num_bins)  # raises an error that says what is missing
    raise UserError(
        f"{place}: has no vocabulary, and there is no folder {default}: give --vocab-dir, the folder with encoder.json, vocab.bpe"
        " and dict.txt that it was trained with"
    )


# fairseq's commands -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Origin:
    """Where a task's settings come from: the command line, and the checkpoint that is used or that training starts from."""

    given: Settings
    trained: Settings
    vocabulary: Vocabulary
    start: Start | None = None


def find_origin(cfg: Any, preset: Preset, training: bool, from_checkpoint: bool) -> Origin:
    """Read the checkpoint of a run, if it has one, and load the vocabulary.

    Args:
        cfg: the task's options.
        preset: the task's preset.
        training: True: a model is trained.
        from_checkpoint: True: ``cfg`` is a copy of a checkpoint's options with the command line's changes.

    Raises:
        UserError: the checkpoint cannot be used; the models of an ensemble differ; there is no vocabulary, or it differs from the
            checkpoint's.
    """
    start, place, saved = None, None, SavedSettings()
    if training:
        start = open_start(cfg)
        if start is not None:
            place, saved = start.path, saved_in(start.container)
    elif cfg.path is not None:
        places = named_checkpoints(cfg.path, cfg.checkpoint_suffix or "")
        read = [read_settings(path) for path in places]
        check_ensemble(cfg, places, [each.settings.flat() for each in read])
        place, saved = places[0], read[0]
    own = saved.options if from_checkpoint and place is not None else None
    given = given_settings(cfg, preset, training, own)
    trained = saved.settings
    if training and given.instruction:  # the new task may be another one than the checkpoint's
        trained = replace(trained, instruction=None)
    vocabulary = find_vocabulary(cfg, given, trained, place, own)
    logger.info("vocabulary: %s, from %s", counted(len(vocabulary), "token"), vocabulary_folder(cfg, own) or place)
    return Origin(given, trained, vocabulary, start)
