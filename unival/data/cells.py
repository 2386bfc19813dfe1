"""Cells of tables: their texts, and the bytes of the image, video or audio file that they name or contain."""

from __future__ import annotations

import base64
import binascii
import contextlib
import logging
import pathlib
from collections.abc import Iterator
from typing import Any

from unival.data.table import Table, row_errors
from unival.errors import UserError, counted, kind_of
from unival.text import references_of, texts_of

logger = logging.getLogger(__name__)

MIN_MEDIA_BYTES = 24  # smaller than any image, video or audio file; a misspelled path may be valid base64 of fewer bytes
MAX_PATH_CHARACTERS = 1024


@contextlib.contextmanager
def cell_errors(table: Table, row: int, column: str | None) -> Iterator[None]:
    """Turn every exception inside, also a UserError, into a UserError that names file, row and column."""
    with row_errors(table, row, column):
        try:
            yield
        except UserError as error:
            raise UserError(f"{table.where(row, column)}: {error}") from error


def is_joined(table: Table) -> bool:
    """Whether a cell may have several texts joined by ``&&``, as in TSV tables, which have no lists."""
    return table.joins_values


def cell_texts(value: Any, table: Table, row: int, column: str) -> list[str]:
    """The texts of a cell: a string or a list of strings, in TSV tables separated by ``&&``.

    Args:
        value: the cell.
        table: its table.
        row: its row, for messages.
        column: its column, for messages.

    Raises:
        UserError: the cell has another type, or a string that is not valid text.
    """
    with cell_errors(table, row, column):
        return texts_of(value, is_joined(table))


def cell_references(value: Any, table: Table, row: int, column: str) -> tuple[list[str], int]:
    """The references in a cell: its texts that are not blank.

    Args:
        value: the cell.
        table: its table.
        row: its row, for messages.
        column: its column, for messages.

    Returns:
        The references, and the number of blank texts.

    Raises:
        UserError: the cell has no text, only blank texts, or weighted answers in the published VQA format.
    """
    with cell_errors(table, row, column):
        return references_of(value, is_joined(table))


def warn_of_empty(count: int, table: Table) -> None:
    """Log the number of empty references of a table that are ignored, if there are any."""
    if count:
        logger.warning("%s: ignoring %s (their rows have others)", table.path, counted(count, "empty reference"))


# --- media in columns -------------------------------------------------------------------------------------------------


def media_path(value: str, table: Table, row: int) -> pathlib.Path | None:
    """The file that ``value`` names, absolute or relative to the table's media root or folder; None if there is no such file."""
    if not value or len(value) > MAX_PATH_CHARACTERS or "\0" in value:
        return None
    for folder in table.folders(row):
        try:
            if (folder / value).is_file():
                return folder / value
        except OSError:  # too long for a file name: it is base64
            return None
    return None


def check_media(value: Any, table: Table, row: int, column: str) -> None:
    """Raise the errors of :func:`decode_media`, without reading the file or decoding long base64."""
    is_long = isinstance(value, str) and len(value) > MAX_PATH_CHARACTERS
    if not is_long and not (isinstance(value, str) and media_path(value, table, row)):
        decode_media(value, table, row, column)


def decode_media(value: Any, table: Table, row: int, column: str) -> bytes:
    """The bytes of an image, video or audio file.

    Args:
        value: path of the file, or its content: bytes, or base64 (standard or URL-safe alphabet, with or without padding).
        table: the table of the cell.
        row: its row, for messages.
        column: its column, for messages.

    Raises:
        UserError: ``value`` is neither, or the file cannot be read; names file, row and column.
    """
    if isinstance(value, bytes):
        return value
    if not isinstance(value, str):
        raise UserError(f"{table.where(row, column)}: expected a path or base64 text, got {kind_of(value)}")
    path = media_path(value, table, row)
    if path is not None:
        try:
            return path.read_bytes()
        except OSError as error:
            raise UserError(f"{table.where(row, column)}: cannot read {path}: {error.strerror}") from None
    text = value.strip().rstrip("=").replace("-", "+").replace("_", "/")
    try:
        content = base64.b64decode(text + "=" * (-len(text) % 4), validate=True)
    except (binascii.Error, ValueError):
        content = b""
    if len(content) < MIN_MEDIA_BYTES:
        shown = repr(value) if len(value) <= 80 else f"{value[:60]!r}... ({counted(len(value), 'character')})"
        folders = " and ".join(str(folder) for folder in table.folders(row))
        raise UserError(f"{table.where(row, column)}: {shown} is neither a file (searched in {folders}) nor base64")
    return content
