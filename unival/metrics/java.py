"""Find Java and the Java programs that pycocoevalcap ships: METEOR, SPICE and the PTB tokenizer."""

import importlib.util
import pathlib
import shutil

from unival.errors import UserError

PACKAGE = "pycocoevalcap"
UTF8 = "-Dfile.encoding=UTF-8"  # before Java 18 the default depends on the locale


def java_command(purpose: str) -> str:
    """Path of the ``java`` program.

    Args:
        purpose: what needs it ("METEOR"), for the message.

    Raises:
        UserError: Java is not installed.
    """
    command = shutil.which("java")
    if command is None:
        raise UserError(
            f"{purpose} needs Java, and there is no `java` on PATH: install a Java runtime "
            "(Debian, Ubuntu: apt-get install default-jre-headless) or leave it out"
        )
    return command


def java_program(purpose: str, relative: str) -> pathlib.Path:
    """Path of a file that pycocoevalcap ships.

    Args:
        purpose: what needs it ("METEOR"), for the message.
        relative: path within the package, such as "meteor/meteor-1.5.jar".

    Raises:
        UserError: the package or the file is missing.
    """
    spec = importlib.util.find_spec(PACKAGE)
    if spec is None or not spec.submodule_search_locations:
        raise UserError(
            f"{purpose} needs {PACKAGE}: pip install {PACKAGE}==1.2 (part of the extra unival[eval]), or leave it out"
        )
    file = pathlib.Path(next(iter(spec.submodule_search_locations)), relative)
    if not file.is_file():
        raise UserError(
            f"{purpose} needs {file}, which is missing in this {PACKAGE}: pip install --force-reinstall {PACKAGE}==1.2"
        )
    return file


def last_line(text: str) -> str:
    """The last line of a program's output, for a message."""
    return next(iter(text.strip().splitlines()[-1:]), "no output")
