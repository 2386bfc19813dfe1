"""What a stage of a mixture file says of training, as arguments of ``fairseq-train``.

``unival train mixture.yaml --stage S`` puts them before the user's own, which win; ``unival mixture mixture.yaml --stage S --options``
prints them.
"""

import argparse
import math
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from fairseq import options
from fairseq.dataclass.utils import convert_namespace_to_omegaconf

from unival.errors import flag
from unival.tasks.pretraining import values
from unival.tasks.pretraining.file import StageSpec, is_mixture, read_mixture
from unival.tasks.pretraining.values import Place, nearest

TASK = "unival_pretrain"
# Parts of a run that have options of their own, and which is taken to know these where none is named.
CHOICES = {"arch": "unival_base", "criterion": "unival_label_smoothed", "optimizer": "adam", "lr_scheduler": "unival_polynomial"}
BY_STAGE = {"data": "the mixture file", "stage": "the stage", "task": TASK, "max_epoch": "epochs", "schedule_epochs": "schedule_epochs"}
PROCESSES = "--distributed-world-size"
KINDS: dict[Any, str] = {int: "a whole number", float: "a number"}
# Options that name files and folders to be read; with those of any modality's backbone.
PATHS = ("vocab_dir", "media_root", "user_dir", "finetune_from_model", "eval_cider_df", "cider_df")
OF_BACKBONE = "_backbone_weights"


def mixture_among(arguments: Sequence[str], task: str | None) -> str | None:
    """The mixture file among the arguments of training; None: training is of another task, or has no such file."""
    if task not in (None, TASK):
        return None
    return next((argument for argument in arguments if not argument.startswith("-") and is_mixture(argument)), None)


def with_stage(arguments: Sequence[str], task: str | None, stage: str | None) -> tuple[str, ...]:
    """The arguments of a training; where it is on a mixture file, what that says of the stage stands before them, so that they win.

    Args:
        arguments: of the command line.
        task: value of ``--task``.
        stage: value of ``--stage``.

    Raises:
        UserError: the mixture file cannot be used.
    """
    path = mixture_among(arguments, task)
    if path is None:
        return tuple(arguments)
    given = stage_arguments(read_mixture(path).stage(stage), processes_of(arguments))
    return (*given, *arguments)


def processes_of(arguments: Sequence[str]) -> int | None:
    """The number of processes that arguments of training ask for; None: as many as there are GPUs."""
    if "--cpu" in arguments:
        return 1
    joined = [argument.removeprefix(f"{PROCESSES}=") for argument in arguments if argument.startswith(f"{PROCESSES}=")]
    apart = [value for name, value in zip(arguments, arguments[1:], strict=False) if name == PROCESSES]
    found = [value for value in (*joined, *apart) if value.isdigit()]
    return int(found[-1]) if found else None


def stage_arguments(stage: StageSpec, processes: int | None = None) -> list[str]:
    """The arguments of a stage, but for the mixture file itself.

    Args:
        stage: the stage.
        processes: how many train, for ``rows_per_update``; default: what its options say, else as many as there are GPUs.

    Raises:
        UserError: an option is unknown or has a value that it cannot have; names file and key.
    """
    given = dict(stage.options)
    place = stage.place / "options"
    for name, instead in BY_STAGE.items():
        if name in given:
            raise (place / name).error(f"the file says it already: {instead}")
    arguments = ["--task", TASK, "--stage", stage.name]
    if stage.epochs:
        arguments += ["--max-epoch", str(stage.epochs)]
    if stage.schedule_epochs:
        given = {"lr_scheduler": "unival_polynomial", **given}
        arguments += ["--schedule-epochs", str(stage.schedule_epochs)]
    if stage.rows_per_update and given.get("update_freq") is not None:
        raise (stage.place / "rows_per_update").error("give rows_per_update or the option update_freq, not both")
    known = known_actions({name: str(given.get(name) or default) for name, default in CHOICES.items()}, place)
    for name, value in given.items():
        if name.replace("-", "_") not in known:
            raise (place / name).error(f"training has no such option{nearest(name, known, shown=0)}")
        found = located(value, place / name) if is_path(name) and value is not None else value
        arguments += option_arguments(known[name.replace("-", "_")], found, place / name)
    if stage.rows_per_update:
        arguments += option_arguments(known["update_freq"], update_freq(stage, given, processes), place / "update_freq")
    return arguments


def configuration(arguments: Sequence[str]) -> Any:
    """fairseq's configuration of a training with these arguments."""
    parser = options.get_training_parser()
    return convert_namespace_to_omegaconf(options.parse_args_and_arch(parser, ["--arch", CHOICES["arch"], *arguments]))


def is_path(name: str) -> bool:
    """Whether an option names a file or folder to be read."""
    plain = name.replace("-", "_")
    return plain in PATHS or plain.endswith(OF_BACKBONE)


def located(value: Any, place: Place) -> str:
    """The path of an option's file or folder: beside the mixture file, else in the working directory.

    Raises:
        UserError: there is none.
    """
    beside = values.path(value, place)
    if beside.exists():
        return str(beside)
    here = pathlib.Path(value)
    if here.exists() or "://" in value:
        return str(value)
    places = dict.fromkeys(str(path.absolute()) for path in (beside, here))
    raise place.error(f"{value}: no such file or folder; looked for {' and '.join(places)}")


def update_freq(stage: StageSpec, given: Mapping[str, Any], processes: int | None) -> int:
    """Batches of every process in an update of ``rows_per_update``, rounded up.

    Args:
        stage: the stage.
        given: its options, whose values have been checked.
        processes: how many train; None: what the options say.

    Raises:
        UserError: there is no batch size.
    """
    if given.get("batch_size") is None:
        raise (stage.place / "rows_per_update").error("give batch_size, the rows of a process at a time, among the options")
    size = values.count(given["batch_size"], stage.place / "options" / "batch_size")
    processes = processes or (1 if given.get("cpu") else given.get("distributed_world_size") or max(torch.cuda.device_count(), 1))
    return math.ceil((stage.rows_per_update or 1) / (size * processes))


def known_actions(chosen: Mapping[str, str], place: Place) -> dict[str, argparse.Action]:
    """The options of training with the chosen parts, by name with underscores.

    Raises:
        UserError: there is no such part.
    """
    parser = options.get_training_parser()
    for action in parser._actions:
        if action.dest in chosen:
            option_arguments(action, chosen[action.dest], place / action.dest)
    words = [word for name, value in chosen.items() for word in (flag(name), value)]
    options.parse_args_and_arch(parser, ["mixture.yaml", "--task", TASK, *words], parse_known=True)  # adds those of the parts
    every = parser._actions  # argparse has no public list of them
    return {action.dest: action for action in every if any(word.startswith("--") for word in action.option_strings)}


def option_arguments(action: argparse.Action, value: Any, place: Place) -> list[str]:
    """The arguments of an option with a value; none for what is the default of a switch, and for no value.

    Raises:
        UserError: the option cannot have this value.
    """
    name = next(word for word in action.option_strings if word.startswith("--"))
    if value is None:
        return []
    if action.nargs == 0:
        if not isinstance(value, bool):
            raise place.wrong(value, "true or false")
        return [name] if value == action.const else []
    if isinstance(value, Mapping):
        raise place.wrong(value, "a value")
    text = ",".join(map(str, value)) if isinstance(value, list) else str(value)
    if action.choices is not None and text not in action.choices:
        raise place.error(f"no {text!r}{nearest(text, sorted(map(str, action.choices)))}")
    if callable(action.type):
        try:
            action.type(text)
        except (ValueError, TypeError, SyntaxError, argparse.ArgumentTypeError):
            raise place.wrong(text, KINDS.get(action.type, f"a value of {name}")) from None
    return [f"{name}={text}"] if text.startswith("-") else [name, text]
