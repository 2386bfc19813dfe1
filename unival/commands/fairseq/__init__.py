"""``unival train``, ``validate`` and ``generate``: fairseq's commands with this package as their plugin.

They add errors of one line, this package's options in the help, a short console output and a complete log file.  fairseq's own entry
points do the work; nothing of fairseq is changed.
"""

import argparse
import contextlib
import os
import pathlib
import re
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from unival.commands.fairseq.composing import compose, known_options, usage_error
from unival.console.explain import INTERRUPTED, TERMINATED, complain, describe, first_line
from unival.console.lines import RunPlan, duration
from unival.console.plugins import OWN, load_user_dir
from unival.console.session import Session, stopped_by_sigterm, temporary_log
from unival.errors import UserError, counted
from unival.quiet_import import uncollected

HELP = {"-h", "--help", "--help-all"}
OWN_FLAGS = {"--verbose", "--traceback"}
LOG_NAME = "train.log"

_sessions: dict[int, Session] = {}  # process id -> session of the running command


@dataclass(frozen=True)
class Request:
    """A command line: fairseq's arguments, and the options of this command alone."""

    command: str
    arguments: tuple[str, ...]
    verbose: bool
    traceback: bool

    def gives(self, option: str) -> bool:
        """Whether an option is on the command line."""
        return any(argument.split("=")[0] == option for argument in self.arguments)

    def value(self, option: str) -> str | None:
        """The value of an option on the command line, the last one if it is repeated; None if there is none."""
        found = None
        for argument, following in zip(self.arguments, [*self.arguments[1:], ""], strict=True):
            name, equals, value = argument.partition("=")
            if name == option:
                found = value if equals else following
        return found


def run(command: str, arguments: Sequence[str]) -> int:
    """Run one of fairseq's commands; returns the exit code."""
    if not arguments or HELP & set(arguments):
        return _print_help(command, arguments)
    request = Request(
        command,
        tuple(argument for argument in arguments if argument not in OWN_FLAGS),
        "--verbose" in arguments,
        "--traceback" in arguments,
    )
    session = _new_session(request)
    _sessions[os.getpid()] = session
    try:
        with session, stopped_by_sigterm():
            RUNNERS[command](request, session)
    except KeyboardInterrupt as stop:
        complain(_interrupted(request, session, str(stop) or "Ctrl-C"))
        return TERMINATED if str(stop) else INTERRUPTED
    except SystemExit as end:  # a run that was finished before
        if end.code:
            raise
    except Exception as error:  # noqa: BLE001  any error becomes one line; the traceback is in the log
        if request.traceback:
            raise
        message = describe(error, session.path)
        if not session.keep and str(session.path) not in message:
            message += f" (the log is {session.path})"  # the log was not named before
        complain(message)
        return 1
    finally:
        _sessions.clear()
    return 0


def _new_session(request: Request) -> Session:
    # another program may read the output of fairseq-generate
    stream = sys.stderr if request.command == "generate" else sys.stdout
    return Session(stream, request.verbose, request.gives("--log-format"), not request.gives("--no-progress-bar"))


def _print_help(command: str, arguments: Sequence[str]) -> int:
    with Session(sys.stderr):  # importing fairseq logs and warns
        try:
            _load_plugins(Request(command, tuple(arguments), verbose=False, traceback=False))
        except UserError as error:
            complain(str(error))
            return 1
        from unival.commands.fairseq.option_help import help_text

        text = help_text(command, arguments)
    sys.stdout.write(text)
    return 0


def _interrupted(request: Request, session: Session, by: str) -> str:
    """The message after Ctrl-C or SIGTERM."""
    if request.command != "train":
        return f"stopped by {by}"
    updates = session.console.seen.updates
    after = f"stopped by {by} after {counted(updates, 'update')}"
    last = pathlib.Path(request.value("--save-dir") or "checkpoints") / "checkpoint_last.pt"
    if last.is_file():
        return f"{after}; the same command goes on from {last}"
    return f"{after}; nothing was saved"


# Configuration ------------------------------------------------------------------------------------------------------------------


def _load_plugins(request: Request) -> None:
    """Register the user's own plugin first, since it may add modalities, then this package's tasks and models."""
    with uncollected():
        load_user_dir(request.value("--user-dir"))
        import unival.tasks.user_dir  # noqa: F401


def _arguments(request: Request) -> list[str]:
    """fairseq's arguments, the plugin and the checkpoint's task among them."""
    plugin = [] if request.gives("--user-dir") else ["--user-dir", str(OWN)]
    task = [] if request.gives("--task") else ["--task", check_named_checkpoints(_named_checkpoints(request))]
    return [*request.arguments, *plugin, *task]


def _named_checkpoints(request: Request) -> list[pathlib.Path]:
    from unival.tasks.resume import named_checkpoints

    return named_checkpoints(request.value("--path") or "", request.value("--checkpoint-suffix") or "")


def _prepare(parser: argparse.ArgumentParser) -> argparse.ArgumentParser:
    """Make a parser report usage errors in one line."""

    def error(message: str) -> Any:
        raise UserError(usage_error(message, known_options(parser)))

    parser.error = error  # type: ignore[method-assign,assignment]
    return parser


def _check_task(request: Request) -> None:
    from unival.commands.options import our_models, our_tasks

    if request.command == "train" and not request.gives("--task"):
        raise UserError(f"give --task: {', '.join(our_tasks())}")
    if request.command == "train" and not (request.gives("--arch") or request.gives("-a")):
        raise UserError(f"give --arch: {', '.join(our_models())}")
    if request.command != "train" and not request.gives("--path"):
        raise UserError("give --path: the checkpoint to use")


def _parse(request: Request, parser: argparse.ArgumentParser, **kwargs: Any) -> argparse.Namespace:
    from fairseq import options

    return options.parse_args_and_arch(_prepare(parser), _arguments(request), **kwargs)


def _configure(request: Request, args: argparse.Namespace) -> Any:
    """Make fairseq's configuration from parsed arguments, after checks that need no files.

    Raises:
        UserError: an option is missing or wrong on which fairseq would fail later or not at all.
    """
    if args.batch_size is None:
        raise UserError("give --batch-size N: batches are counted in rows here, not in tokens (--max-tokens)")
    if request.command == "train" and args.optimizer is None:
        raise UserError("give --optimizer, e.g. --optimizer adam --lr 1e-4")
    if request.command == "train" and not request.gives("--lr"):
        raise UserError("give --lr, the learning rate, e.g. --lr 1e-4: fairseq would take 0.25")
    if not request.gives("--tpu"):
        args.tpu = False  # fairseq looks for a TPU whenever --bf16 is given
    if args.tensorboard_logdir:
        check_tensorboard()
    if request.command == "generate" and not request.gives("--scoring"):
        args.scoring = "unival"  # the task's metrics: unival.generation.scorer
    if not request.gives("--log-format") and not request.verbose:
        args.log_format = "json"  # what the console reads
    return compose(args)


def _with_stage(request: Request) -> Request:
    """The request with what a mixture file says of its stage."""
    from unival.tasks.pretraining.arguments import with_stage

    return replace(request, arguments=with_stage(request.arguments, request.value("--task"), request.value("--stage")))


def check_tensorboard() -> None:
    """Check that TensorBoard is installed; without it, fairseq would only log a message.

    Raises:
        UserError: it is not.
    """
    from fairseq.logging import progress_bar

    if progress_bar.SummaryWriter is None:
        raise UserError(
            "--tensorboard-logdir needs TensorBoard: pip install tensorboard (it is in the extra: pip install -e '.[log]')"
        )


# Commands -----------------------------------------------------------------------------------------------------------------------


def _train(request: Request, session: Session) -> None:
    start = time.monotonic()
    _load_plugins(request)
    from fairseq import options
    from fairseq.distributed import utils as distributed

    request = _with_stage(request)
    _check_task(request)
    cfg = _configure(request, _parse(request, options.get_training_parser()))
    _check_validation_tables(cfg)
    has_place = not cfg.checkpoint.no_save or request.gives("--save-dir")
    session.open(pathlib.Path(cfg.checkpoint.save_dir) / LOG_NAME if has_place else temporary_log("train"))
    distributed.call_main(cfg, training_process, request=request, log=session.path, start=start)


def _check_validation_tables(cfg: Any) -> None:
    """Refuse what fairseq would refuse after building the model: more tables named ``valid…`` than ``--valid-subset`` names."""
    data = cfg.dataset
    if data.ignore_unused_valid_subsets or data.combine_valid_subsets or data.disable_validation or not os.path.isdir(cfg.task.data):
        return
    folder = pathlib.Path(cfg.task.data)
    named = data.valid_subset.split(",")
    others = sorted(
        path.name for path in folder.iterdir() if re.match(r"valid*[0-9].*", path.name) and path.stem not in named
    )
    if others:
        stems = ",".join(dict.fromkeys(pathlib.Path(name).stem for name in others))
        raise UserError(
            f"{folder} also holds {', '.join(others)}: give --valid-subset {data.valid_subset},{stems} to validate on"
            " it, too, or --ignore-unused-valid-subsets"
        )


def training_process(cfg: Any, request: Request, log: pathlib.Path, start: float) -> None:
    """Train, in every process of a run; with several GPUs these are not the command's process, and only the first one prints."""
    _load_plugins(request)
    from fairseq_cli.train import main

    with _session_of_process(cfg, request, log) as session:
        session.console.plan = RunPlan(
            max_update=cfg.optimization.max_update,
            max_epoch=cfg.optimization.max_epoch,
            metric=cfg.checkpoint.best_checkpoint_metric,
            maximize=cfg.checkpoint.maximize_best_checkpoint_metric,
        )
        session.tell(f"the whole log is {log}")
        with session.prints_to_file():
            try:
                main(cfg)
            except FloatingPointError as error:
                raise UserError(not_finite(error)) from error
        _sum_up(cfg, session, time.monotonic() - start)


@contextlib.contextmanager
def _session_of_process(cfg: Any, request: Request, log: pathlib.Path) -> Iterator[Session]:
    """The command's session, or a new one in a process that fairseq spawned; only rank 0 prints."""
    from unival.data.reading import close_reader

    rank = cfg.distributed_training.distributed_rank
    with contextlib.ExitStack() as stack:
        session = _sessions.get(os.getpid())
        if session is None:
            session = stack.enter_context(_new_session(request))
            session.open(log)
        if rank > 0:
            session.silence()
        stack.callback(close_reader)
        yield session


def not_finite(error: FloatingPointError) -> str:
    """Explain fairseq's error about losses or gradients that are not finite."""
    update, rows = _where_in_training(error)
    place = f"update {update}: " if update is not None else ""
    named = f" in rows {', '.join(map(str, rows))}" if rows else ""
    reason = "" if "Nan/Inf" in str(error) else f" ({first_line(error)})"
    return (
        f"{place}the loss or its gradients are NaN or infinite{named}{reason}; a smaller --lr, --clip-norm 1 or more"
        " warm-up updates help most often, and the log names the layer where it began"
    )


def _where_in_training(error: Exception) -> tuple[int | None, list[int]]:
    """The update that failed and its row numbers, taken from the frame of fairseq's ``Trainer.train_step``."""
    trace = error.__traceback__
    while trace is not None:
        names = trace.tb_frame.f_locals
        if trace.tb_frame.f_code.co_name == "train_step" and "samples" in names:
            rows = [int(row) for sample in names["samples"] if sample for row in sample["id"]]
            return names["self"].get_num_updates() + 1, rows
        trace = trace.tb_next
    return None, []


def _sum_up(cfg: Any, session: Session, seconds: float) -> None:
    """Print the last line of a training: its duration and the path of the model."""
    seen, folder = session.console.seen, pathlib.Path(cfg.checkpoint.save_dir)
    text = f"done in {duration(seconds)}: {counted(seen.updates, 'update')}"
    if seen.best is not None:
        text += f", best {cfg.checkpoint.best_checkpoint_metric} {seen.best:.4g}"
    best = "checkpoint_best.pt" if cfg.task.validate_with == "model" else "checkpoint_best_ema.pt"
    names = [name for name in (best, "checkpoint_last.pt") if (folder / name).is_file()]
    if cfg.checkpoint.no_save:
        text += "; nothing was saved (--no-save)"
    elif names:
        text += f"; the model is {folder / names[0]}" + (f", the newest {folder / names[1]}" if names[1:] else "")
    session.tell(text)


def _validate(request: Request, session: Session) -> None:
    _load_plugins(request)
    from fairseq import options
    from fairseq.distributed import utils as distributed

    from unival.tasks.averages import check_validated_weights
    from unival.tasks.inputs import find_tables

    _check_task(request)
    cfg = _configure(request, _parse(request, options.get_validation_parser()))
    given = _parse(request, options.get_validation_parser(), suppress_defaults=True)  # these precede the checkpoint's options
    find_tables(cfg.task.data, cfg.dataset.valid_subset.split(","), cfg.dataset.train_subset)
    session.open(temporary_log("validate"), keep=False)
    check_named_checkpoints(_named_checkpoints(request))
    if cfg.task.weights == "ema":
        check_validated_weights(_named_checkpoints(request)[0])
    distributed.call_main(cfg, validating_process, override_args=given, request=request, log=session.path)


def validating_process(cfg: Any, override_args: argparse.Namespace, request: Request, log: pathlib.Path) -> None:
    """Validate, in every process of a run."""
    _load_plugins(request)
    from fairseq_cli.validate import main

    with _session_of_process(cfg, request, log) as session, session.prints_to_file():
        main(cfg, override_args=override_args)


def _generate(request: Request, session: Session) -> None:
    _load_plugins(request)
    from fairseq import options
    from fairseq_cli.generate import main

    from unival.generation.scorer import TaskScorer
    from unival.tasks.inputs import shard_of

    _check_task(request)
    parser = options.get_generation_parser()
    parser.add_argument("--arch", "-a", default="wav2vec2", help=argparse.SUPPRESS)  # the default of fairseq-generate
    cfg = _configure(request, _parse(request, parser))
    results = cfg.common_eval.results_path
    shard, shards = shard_of(cfg.dataset, is_training=False)
    if results and shards > 1:  # fairseq names the file by the split alone: shards would overwrite each other's
        results = cfg.common_eval.results_path = os.path.join(results, f"shard-{shard}-of-{shards}")
    name = f"generate-{cfg.dataset.gen_subset}.log"
    session.open(pathlib.Path(results) / name if results else temporary_log("generate"), keep=bool(results))
    check_named_checkpoints(_named_checkpoints(request))
    scorer = main(cfg)
    if results:  # without it the last line of the output has the scores
        session.tell(f"{cfg.dataset.gen_subset}: {scorer.result_string()}")
        if isinstance(scorer, TaskScorer) and scorer.answer_scores:
            session.tell(scorer.said_of_answer_scores())
        session.tell(f"the texts are in {pathlib.Path(results) / name.replace('.log', '.txt')}, the whole log is {session.path}")


def check_named_checkpoints(paths: Sequence[pathlib.Path]) -> str:
    """Read the checkpoints of ``--path`` safely before fairseq builds the tasks and models that they name.

    Returns:
        The task of the first.

    Raises:
        UserError: a file was refused, or is neither one of ours nor a published one.
    """
    from unival.tasks.resume import read_settings, task_name

    return [task_name(path, read_settings(path)) for path in paths][0]


RUNNERS: dict[str, Callable[[Request, Session], None]] = {"train": _train, "validate": _validate, "generate": _generate}
