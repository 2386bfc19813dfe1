"""Run the programs that download and unpack packages, with failures as errors of one line."""

import os
import pathlib
import subprocess

from .errors import UserError

DOWNLOAD_SECONDS = 900
_IDLE_WORDS = ("npm notice", "npm error code", "npm ERR! code", "npm error A complete log", "npm ERR! A complete log")


def run(command: list[str], room: pathlib.Path, what: str, error: type[UserError]) -> None:
    """Run ``command`` in the folder ``room``.

    Raises:
        UserError: of class ``error``: it failed or took too long; the message has the last informative line of its output.
    """
    environment = {**os.environ, "LC_ALL": "C"}
    try:
        subprocess.run(
            command, cwd=room, env=environment, check=True, capture_output=True, text=True,
            stdin=subprocess.DEVNULL, timeout=DOWNLOAD_SECONDS,
        )  # fmt: skip
    except subprocess.TimeoutExpired as problem:
        raise error(f"{what} took longer than {DOWNLOAD_SECONDS} s") from problem
    except (OSError, subprocess.CalledProcessError) as problem:
        said = str(getattr(problem, "stderr", None) or problem).strip().splitlines()
        telling = [line.strip() for line in said if line.strip() and not line.startswith(_IDLE_WORDS)]
        raise error(f"{what} failed: {telling[-1] if telling else 'it did not say why'}") from problem
