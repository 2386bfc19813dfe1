"""Make fairseq's configuration from parsed arguments, with errors of one line for options that fairseq or its parser refuses."""

import argparse
import contextlib
import difflib
import logging
import re
from collections.abc import Iterator, Sequence
from typing import Any

from unival.errors import UserError, counted, flag

COMPOSER = "fairseq.dataclass.utils"  # logs every override before it lets the error through


def compose(args: argparse.Namespace) -> Any:
    """Make fairseq's configuration from the parsed arguments.

    Raises:
        UserError: a required option has no value, or an option has a value of a wrong type.
    """
    from fairseq.dataclass.utils import convert_namespace_to_omegaconf
    from hydra.errors import HydraException
    from omegaconf.errors import OmegaConfBaseException

    try:
        with _without_errors_of(COMPOSER):
            return convert_namespace_to_omegaconf(args)
    except (HydraException, OmegaConfBaseException) as error:
        cause = error if isinstance(error, OmegaConfBaseException) else error.__cause__ or error.__context__
        key = getattr(cause, "full_key", None) or str(getattr(error, "override", None) or "").partition("=")[0]
        if not key:
            raise
        raise UserError(_refusal(args, key, str(cause or error).splitlines()[0])) from error


def _refusal(args: argparse.Namespace, key: str, reason: str) -> str:
    """The message about the option at ``key``, such as ``lr_scheduler.total_num_update``."""
    group, _, name = key.rpartition(".")
    option, owner = flag(name), vars(args).get(group)
    value = vars(args).get(name)
    if value is None:
        whose = f"{flag(group)} {owner}" if isinstance(owner, str) else "fairseq"
        return f"give {option}: {whose} needs it"
    return f"{option} {value}: {reason}"


@contextlib.contextmanager
def _without_errors_of(name: str) -> Iterator[None]:
    """Silence a logger: the exception that follows has the message."""
    logger = logging.getLogger(name)
    before, logger.disabled = logger.disabled, True
    try:
        yield
    finally:
        logger.disabled = before


def known_options(parser: argparse.ArgumentParser) -> list[str]:
    """The names of a parser's options."""
    return sorted(set(re.findall(r"(?<![\w-])--?[a-zA-Z][\w-]*", parser.format_usage())))


FEW = 8  # choices that a message lists in full


def usage_error(message: str, options: Sequence[str]) -> str:
    """Rewrite argparse's message with the nearest of the choices, whose list can be pages long."""
    unknown = re.fullmatch(r"unrecognized arguments: (.*)", message, flags=re.S)
    if unknown:
        words = unknown[1].split()
        name = next((word for word in words if word.startswith("-")), words[0]).split("=")[0]
        near = difflib.get_close_matches(name, options, 3, 0.7)
        if not name.startswith("-"):
            return f"unexpected argument {name!r}: the data folder is the only one without an option's name"
        return f"unknown option {name}" + (f"; did you mean {' or '.join(near)}?" if near else " (--help lists the options)")
    choice = re.fullmatch(r"argument (\S+): invalid choice: '(.*)' \(choose from (.*)\)", message, flags=re.S)
    if choice:
        option, given, names = choice[1].split("/")[0], choice[2], re.findall(r"[\w.@-]+", choice[3])
        ours = [name for name in names if name.startswith("unival")]
        near = difflib.get_close_matches(given, names, 3, 0.5)
        shown = names if len(names) <= FEW else list(dict.fromkeys([*ours, *near])) or names
        rest = f" and {counted(len(names) - len(shown), 'other')}" if len(names) > len(shown) else ""
        return f"{option} {given}: choose from {', '.join(shown)}{rest}"
    if message.endswith("are required: data"):
        return "give the data first: unival COMMAND DATA …; DATA is a folder with <split>.jsonl or <split>.tsv"
    return re.sub(r"^argument (--?[\w-]+)(/\S+)?: ", r"\1: ", message).replace("<lambda> ", "")
