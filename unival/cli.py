"""`unival`: the command line.  Every command's code lives in its own module and is imported when it runs; this one imports nothing heavy.

A mistake is one line and exit code 1; ``--traceback`` shows where it came from.
"""

import argparse
import importlib
import sys
from collections.abc import Sequence
from typing import Any, NoReturn

from unival.console.explain import INTERRUPTED, complain, describe
from unival.console.plugins import add_user_dir, load_user_dir
from unival.console.session import Session
from unival.errors import UserError
from unival.quiet_import import keep_imports, quiet_import

# name -> (module with add_arguments and run, what it does)
COMMANDS: dict[str, tuple[str, str]] = {
    "train-vocab": ("unival.commands.train_vocab", "train a small byte-level BPE on the text columns of tables"),
    "validate-data": ("unival.commands.validate_data", "read every row of a table, and explain those that cannot be read"),
    "score": ("unival.commands.score", "score generated text against a table's references"),
    "report": ("unival.commands.report", "write a page and a picture of what a model generated"),
    "convert": ("unival.commands.convert", "convert checkpoints: published UnIVAL, OFA and BART to ours, ours back, to safetensors"),
    "inspect": ("unival.commands.inspect", "show what is in a checkpoint, or how two differ"),
    "merge": ("unival.commands.merge", "merge checkpoints: interpolation, soups, task vectors, TIES, …"),
    "sweep": ("unival.commands.sweep", "evaluate merged models along a path between checkpoints, without writing them"),
    "barrier": ("unival.commands.barrier", "the loss on the straight path between two models, and how high its barrier is"),
    "statistics": ("unival.commands.statistics", "compute what merging by Fisher information or RegMean needs, of a checkpoint on a table"),
    "adapter": ("unival.commands.adapter", "extract what --peft or --trainable trained, and stack or merge it with its base"),
    "mixture": ("unival.commands.mixture", "show what the stages of a pretraining will do, and their options"),
    "run": ("unival.commands.run", "run an instruction on media files or rows with a checkpoint"),
}
# take --user-dir; imported after the plugin
WITH_PLUGIN = ("adapter", "barrier", "convert", "inspect", "merge", "mixture", "run", "statistics", "sweep", "validate-data")
# fairseq's commands with this plugin loaded; unival.commands.fairseq runs them
FAIRSEQ: dict[str, str] = {
    "train": "train a model (fairseq-train with this plugin)",
    "validate": "loss and metrics of a checkpoint (fairseq-validate with this plugin)",
    "generate": "generate for a split (fairseq-generate with this plugin)",
}


class Parser(argparse.ArgumentParser):
    """A parser whose usage errors are one line."""

    def error(self, message: str) -> NoReturn:
        """Raises UserError."""
        raise UserError(f"{message} ({self.prog} --help)")


def build_parser(command: str | None) -> argparse.ArgumentParser:
    """The parser; only the options of ``command`` are loaded, since loading costs imports."""
    parser = Parser(
        prog="unival",
        description="Train, evaluate and use one model for image, video, audio and text.",
        epilog="unival COMMAND --help tells more.",
    )
    parser.add_argument("--version", action="store_true", help="show the version")
    parser.add_argument("--traceback", action="store_true", help="show where an error came from")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND")
    for name, text in FAIRSEQ.items():
        commands.add_parser(name, help=text, add_help=False)
    for name, (module, text) in COMMANDS.items():
        sub = commands.add_parser(name, help=text, description=text)
        if name == command:
            load(module).add_arguments(sub)
            if name in WITH_PLUGIN:
                add_user_dir(sub)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command, by default that of this process; returns the exit code."""
    if argv is None:
        keep_imports()
    arguments = list(sys.argv[1:] if argv is None else argv)
    command = next((argument for argument in arguments if not argument.startswith("-")), None)
    if command in FAIRSEQ:
        arguments.remove(command)
        return importlib.import_module("unival.commands.fairseq").run(command, arguments)
    try:
        with Session(sys.stderr):
            return _run(command, arguments)
    except KeyboardInterrupt:
        complain("stopped by Ctrl-C")
        return INTERRUPTED
    except Exception as error:  # noqa: BLE001  one line for all
        if "--traceback" in arguments:
            raise
        complain(describe(error))
        return 1


def _load_plugin(command: str, arguments: Sequence[str]) -> None:
    parser = Parser(prog=f"unival {command}", add_help=False)
    add_user_dir(parser)
    load_user_dir(parser.parse_known_args(arguments)[0].user_dir)


def _run(command: str | None, arguments: Sequence[str]) -> int:
    if command in WITH_PLUGIN:
        _load_plugin(command, arguments)
    parser = build_parser(command)
    args = parser.parse_args(arguments)
    if args.version:
        from unival import __version__

        sys.stdout.write(f"unival {__version__}\n")
        return 0
    if args.command is None:
        parser.print_help()
        return 0
    return int(load(COMMANDS[args.command][0]).run(args))


def load(module: str) -> Any:
    """Import a command's module, and with some of them fairseq."""
    with quiet_import():
        return importlib.import_module(module)


if __name__ == "__main__":
    sys.exit(main())
