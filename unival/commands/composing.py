"""fairseq's configuration of parsed arguments, with one line for an option that it refuses."""

import argparse
import contextlib
import logging
from collections.abc import Iterator
from typing import Any

from unival.errors import UserError

COMPOSER = "fairseq.dataclass.utils"  # logs every override before it lets the error through


def compose(args: argparse.Namespace) -> Any:
    """fairseq's configuration of the parsed arguments.

    Raises:
        UserError: an option has no value although it needs one, or one of another type.
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
    """What to tell about the option at ``key``, such as ``lr_scheduler.total_num_update``."""
    group, _, name = key.rpartition(".")
    option, owner = f"--{name.replace('_', '-')}", vars(args).get(group)
    value = vars(args).get(name)
    if value is None:
        whose = f"--{group.replace('_', '-')} {owner}" if isinstance(owner, str) else "fairseq"
        return f"give {option}: {whose} needs it"
    return f"{option} {value}: {reason}"


@contextlib.contextmanager
def _without_errors_of(name: str) -> Iterator[None]:
    """Nothing that a logger says meanwhile is kept: the exception that follows tells it."""
    logger = logging.getLogger(name)
    before, logger.disabled = logger.disabled, True
    try:
        yield
    finally:
        logger.disabled = before
