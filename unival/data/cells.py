"""Cells of tables: the texts in one, and the bytes of the image, video or sound that one names or holds."""

from __future__ import annotations

import base64
import binascii
import contextlib
import logging
import pathlib
from collections.abc import Iterator
from typing import Any

from unival.data.table import Table, TsvTable, row_errors
from unival.errors import UserError
from unival.text import references_of, texts_of

logger = logging.getLogger(__name__)

MIN_MEDIA_BYTES = 24  # no image, sound or film is smaller; a mistyped path can look like shorter base64
MAX_PATH_CHARACTERS = 1024


@contextlib.contextmanager
def cell_errors(table: Table, row: int, column: str | None) -> Iterator[None]:
    """Whatever is wrong with a cell becomes a UserError that names file, row and column, also what those who look at it say themselves."""
    with row_errors(table, row, column):
        try:
            yield
        except UserError as error:
            raise UserError(f"{table.where(row, column)}: {error}") from error


def is_joined(table: Table) -> bool:
    """Whether a cell's text may hold several, joined by ``&&``: TSV has no lists."""
    return isinstance(table, TsvTable)


def cell_texts(value: Any, table: Table, row: int, column: str) -> list[str]:
    """The texts of one cell.

    Raises:
        UserError: the cell holds no text.
    """
    with cell_errors(table, row, column):
        return texts_of(value, is_joined(table))


def cell_references(value: Any, table: Table, row: int, column: str) -> tuple[list[str], int]:
    """The texts of one cell that can be learned or scored, those that are not blank; and how many are.

    Raises:
        UserError: the cell holds no text, none but blank ones, or answers with their weights in the published VQA form.
    """
    with cell_errors(table, row, column):
        return references_of(value, is_joined(table))


def warn_of_empty(count: int, table: Table) -> None:
    """Log how many empty references of a table stand beside others and are left out, if there are any."""
    if count:
        logger.warning("%s: %d empty references beside others are left out", table.path, count)


# --- media in columns -------------------------------------------------------------------------------------------------


def media_path(value: str, table: Table) -> pathlib.Path | None:
    """The file that ``value`` names: absolute, or relative to the table's media root or folder. None if there is none."""
    if not value or len(value) > MAX_PATH_CHARACTERS or "\0" in value:
        return None
    for folder in _media_folders(table):
        try:
            if (folder / value).is_file():
                return folder / value
        except OSError:  # a name too long for the file system: base64 text
            return None
    return None


def _media_folders(table: Table) -> list[pathlib.Path]:
    return [folder for folder in (table.media_root, table.path.parent) if folder is not None]


def check_media(value: Any, table: Table, row: int, column: str) -> None:
    """What :func:`decode_media` would say of a value, without reading the file or a long base64 text."""
    is_long = isinstance(value, str) and len(value) > MAX_PATH_CHARACTERS
    if not is_long and not (isinstance(value, str) and media_path(value, table)):
        decode_media(value, table, row, column)


def decode_media(value: str, table: Table, row: int, column: str) -> bytes:
    """The bytes of an image, sound or film: of the file that ``value`` names, or of ``value`` itself as base64.

    Base64 is taken in its standard and in its URL-safe alphabet, with or without padding.

    Raises:
        UserError: ``value`` is neither, naming file, row and column.
    """
    if not isinstance(value, str):
        raise UserError(f"{table.where(row, column)}: expected a path or base64 text, found {type(value).__name__}")
    path = media_path(value, table)
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
        shown = repr(value) if len(value) <= 80 else f"{value[:60]!r}... ({len(value)} characters)"
        folders = " and ".join(str(folder) for folder in _media_folders(table))
        raise UserError(f"{table.where(row, column)}: {shown} is neither a file (looked in {folders}) nor base64")
    return content
