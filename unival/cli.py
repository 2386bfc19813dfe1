"""`unival`: the command line.  Every command's code lives in its own module and is imported when it runs.

A UserError is printed as one line with exit code 1; ``--traceback`` shows where it came from.
"""

import argparse
import importlib
import logging
import os
import pathlib
import pickle
import sys
from collections.abc import Sequence
from typing import Any, TextIO

from unival.errors import UserError
from unival.quiet_import import quiet_import

# name -> (module with add_arguments and run, what it does)
COMMANDS: dict[str, tuple[str, str]] = {
    "train-vocab": ("unival.train_vocab", "train a small byte-level BPE on the text columns of tables"),
    "score": ("unival.score", "score generated text against a table's references"),
    "report": ("unival.report", "write a page and a picture of what a model generated"),
    "convert": ("unival.convert", "convert checkpoints: published UnIVAL, OFA and BART to ours, ours back, to safetensors"),
    "inspect": ("unival.inspect_checkpoint", "show what is in a checkpoint, or how two differ"),
    "run": ("unival.run", "run an instruction on files or tables with a checkpoint"),
}
# name -> fairseq's command line with this plugin loaded and errors in one line
FAIRSEQ: dict[str, tuple[str, str]] = {
    "train": ("fairseq_cli.train", "fairseq-train --user-dir unival"),
    "validate": ("fairseq_cli.validate", "fairseq-validate --user-dir unival"),
    "generate": ("fairseq_cli.generate", "fairseq-generate --user-dir unival"),
}


def build_parser(command: str | None) -> argparse.ArgumentParser:
    """The parser; only the options of ``command`` are loaded, since loading costs imports."""
    parser = argparse.ArgumentParser(prog="unival", description="Train, evaluate and use one model for image, video, audio and text.")
    parser.add_argument("--traceback", action="store_true", help="show where an error came from")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name, (module, text) in COMMANDS.items():
        sub = commands.add_parser(name, help=text, description=text)
        if name == command:
            load(module).add_arguments(sub)
    for name, (_, text) in FAIRSEQ.items():
        commands.add_parser(name, help=text, add_help=False)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command; returns the exit code."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    command = next((argument for argument in arguments if argument in COMMANDS or argument in FAIRSEQ), None)
    show = "--traceback" in arguments
    set_up_logging(stream=sys.stdout if command in FAIRSEQ else sys.stderr)
    try:
        if command in FAIRSEQ:
            rest = [argument for argument in arguments if argument != "--traceback"]
            return run_fairseq(FAIRSEQ[command][0], rest[rest.index(command) + 1 :])
        args = build_parser(command).parse_args(arguments)
        return int(load(COMMANDS[args.command][0]).run(args))
    except Exception as error:  # noqa: BLE001  fairseq wraps some of ours; whatever is not ours goes on
        message = explain(error)
        if message is None or show:
            raise
        sys.stderr.write(f"unival: error: {message}\n")
        return 1


def load(module: str) -> Any:
    """Import a command's module, and with some of them fairseq."""
    with quiet_import():
        return importlib.import_module(module)


def set_up_logging(stream: TextIO) -> None:
    """fairseq's format at level INFO (LOGLEVEL changes it); importing fairseq alone would leave the root logger at DEBUG."""
    logging.basicConfig(
        format="%(asctime)s | %(levelname)s | %(name)s | %(message)s",
        datefmt="%Y-%m-%d %H:%M:%S",
        level=os.environ.get("LOGLEVEL", "INFO").upper(),
        stream=stream,
        force=True,
    )


def run_fairseq(module: str, arguments: Sequence[str]) -> int:
    """Run one of fairseq's commands with this package as its plugin."""
    if arguments and not {"-h", "--help", "--batch-size", "--max-sentences"} & {a.split("=")[0] for a in arguments}:
        raise UserError("give --batch-size N: batches are counted in rows here, not in tokens (--max-tokens)")
    if "--user-dir" not in arguments:
        arguments = [*arguments, "--user-dir", str(pathlib.Path(__file__).resolve().parent)]
    check_named_checkpoints(module, arguments)
    import unival.tasks  # noqa: F401  fairseq imports no part of a plugin that is imported already

    before = sys.argv
    sys.argv = [module, *arguments]
    try:
        importlib.import_module(module).cli_main()
    finally:
        sys.argv = before
    return 0


def check_named_checkpoints(module: str, arguments: Sequence[str]) -> None:
    """Read what ``--path`` names safely before fairseq does: it builds the tasks and models that a checkpoint names.

    Raises:
        UserError: a file was refused, or is none of ours or of the published ones.
    """
    if module == FAIRSEQ["train"][0] or "--path" not in arguments[:-1]:
        return
    from unival.hub import from_container  # imports fairseq
    from unival.tasks.restore import read_for_fairseq

    for path in arguments[list(arguments).index("--path") + 1].split(os.pathsep):
        from_container(path, read_for_fairseq(path))


def explain(error: BaseException | None) -> str | None:
    """What to tell the user about an exception, or about one that it wraps; None when it is not about their input."""
    while error is not None:
        if isinstance(error, UserError):
            return str(error).rsplit("UserError: ", 1)[-1].strip()  # data workers wrap theirs into a traceback
        if isinstance(error, pickle.UnpicklingError):
            return f"the checkpoint was refused, nothing in it was run: it holds more than tensors and plain values ({first_line(error)})"
        if isinstance(error, OSError):
            return first_line(error)
        error = error.__cause__ or error.__context__
    return None


def first_line(error: BaseException) -> str:
    """The first line of a message."""
    return (str(error).splitlines() or [type(error).__name__])[0]


if __name__ == "__main__":
    sys.exit(main())
