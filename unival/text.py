"""Text: reading UTF-8 files, deciding what counts as empty, and captions without punctuation, as in the published recipes."""

from __future__ import annotations

import codecs
import json
import os
import pathlib
import re
import string
from collections.abc import Callable, Iterable
from typing import Any

from unival.errors import UserError, kind_of

BOM = codecs.BOM_UTF8
# Byte order mark -> encoding, as iconv names it. Longer marks come first, since UTF-32LE's starts with UTF-16LE's.
MARKS = {
    codecs.BOM_UTF32_LE: "UTF-32",
    codecs.BOM_UTF32_BE: "UTF-32",
    codecs.BOM_UTF16_LE: "UTF-16",
    codecs.BOM_UTF16_BE: "UTF-16",
}
HEAD = 4096  # bytes from which UTF-16 and UTF-32 are detected

_NO_PUNCTUATION = str.maketrans("", "", string.punctuation)


def strip_punctuation(text: str) -> str:
    """Remove ASCII punctuation and outer spaces; inner spaces stay ("dogs & a cat" keeps two in a row)."""
    return text.translate(_NO_PUNCTUATION).strip()


LEADING_MARKS = ",.!?*#:;~"  # that cleaning drops where a text starts with them
_JOINERS_TO_SPACES = str.maketrans("-/", "  ")


def clean_question(text: str) -> str:
    """A question as published recipes clean it: lower case, without leading marks, ``-`` and ``/`` as spaces, single spaces."""
    return " ".join(text.lower().lstrip(LEADING_MARKS).translate(_JOINERS_TO_SPACES).split())


def clean_caption(text: str) -> str:
    """A caption as published recipes clean it: like a question, and the placeholder ``<person>`` becomes ``person``."""
    return clean_question(text).replace("<person>", "person")


CLEANING: dict[str, Callable[[str], str]] = {"question": clean_question, "caption": clean_caption}  # values of the attribute ``clean``


def split_names(text: str) -> tuple[str, ...]:
    """Split a comma-separated option: ``"Image, video"`` -> ``("image", "video")``."""
    return tuple(name.strip().lower() for name in text.split(",") if name.strip())


# --- files ------------------------------------------------------------------------------------------------------------


def read_text(path: str | os.PathLike[str]) -> str:
    """Read a UTF-8 text file, with ``\\n`` between lines and without a byte order mark.

    Raises:
        UserError: the file cannot be read, or has another encoding; the message names it and the command that converts it.
    """
    file = pathlib.Path(path)
    try:
        data = file.read_bytes()
    except OSError as error:
        raise UserError(f"{file}: cannot be read: {error.strerror}") from error
    refuse_wide(data[:HEAD], file)
    return decode(data.removeprefix(BOM), str(file), file).replace("\r\n", "\n").replace("\r", "\n")


def check_writable(option: str, path: str | os.PathLike[str]) -> None:
    """Check that a file can be written, before there is anything to write; nothing is made.

    Raises:
        UserError: it is a folder, or its folder cannot be written to; names the option.
    """
    file = pathlib.Path(path).absolute()
    folder = next(parent for parent in file.parents if parent.exists())
    if file.is_dir() or not folder.is_dir() or not os.access(file if file.exists() else folder, os.W_OK):
        reason = "it is a folder" if file.is_dir() else "no permission" if file.exists() else f"{folder} is not a folder to write to"
        raise UserError(f"{option} {path}: cannot be written: {reason}")


def check_new(out: str | os.PathLike[str], inputs: Iterable[str | os.PathLike[str]], is_forced: bool) -> None:
    """Check that the file of ``--out`` is none that is read, and does not exist.

    Args:
        out: the file.
        inputs: files that are read.
        is_forced: ``--force`` was given: an existing file is overwritten.

    Raises:
        UserError: it is one of the inputs, or exists.
    """
    file = pathlib.Path(out)
    if any(file.resolve() == pathlib.Path(name).resolve() for name in inputs):
        raise UserError(f"--out {out} is an input itself; give another file")
    if file.exists() and not is_forced:
        raise UserError(f"--out {out} exists; --force overwrites it")


def write_json(path: str | os.PathLike[str], value: Any) -> None:
    """Write JSON, in folders that are made where they are missing.

    Raises:
        UserError: the file cannot be written.
    """
    file = pathlib.Path(path)
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(value, indent=1) + "\n", encoding="utf-8")
    except OSError as error:
        raise UserError(f"{file}: cannot be written: {error.strerror}") from error


def lone_returns(path: str | os.PathLike[str]) -> str:
    """Message for a file whose lines end with ``\\r`` alone (old Mac OS), which does not end a row here."""
    return f"rows end with a carriage return alone; convert them: tr '\\r' '\\n' < {path} > NEW"


def refuse_wide(head: bytes, path: str | os.PathLike[str]) -> None:
    """Raise an error if the first bytes of a file are UTF-16 or UTF-32; ``decode`` detects other encodings.

    Raises:
        UserError: names the encoding and the command that converts the file.
    """
    encoding = _wide_encoding(head)
    if encoding:
        raise UserError(f"{path}, line 1: looks like {encoding}, not UTF-8; {conversion(encoding, path)}")


def decode(data: bytes, where: str, path: str | os.PathLike[str]) -> str:
    """Decode UTF-8 bytes.

    Args:
        data: the bytes.
        where: what the bytes are, for the message.
        path: the file that they come from.

    Raises:
        UserError: the bytes are not UTF-8; names line, byte and the encoding that they seem to have.
    """
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start)
        column = error.start - (data.rfind(b"\n", 0, error.start) + 1)
        place = f"{where}, line {line + 1}" if b"\n" in data.rstrip() else where
        found = f"byte 0x{data[error.start]:02x} at position {column} of the line"
        encoding = narrow_encoding(data)
        if encoding is None:
            raise UserError(f"{place}: not UTF-8 text ({found}; the characters around it are UTF-8: this one is damaged)") from None
        raise UserError(f"{place}: not UTF-8 text ({found}); looks like {encoding}; {conversion(encoding, path)}") from None


def conversion(encoding: str, path: str | os.PathLike[str]) -> str:
    """Message with the command that converts a file to UTF-8."""
    return f"if all of the file is, convert it: iconv -f {encoding} -t UTF-8 {path} > NEW"


def _wide_encoding(head: bytes) -> str | None:
    """UTF-16 or UTF-32, detected by a byte order mark or by the zero bytes of most characters; None for any other encoding."""
    mark = next((encoding for mark, encoding in MARKS.items() if head.startswith(mark)), None)
    if mark or len(head) < 4:
        return mark
    zeros = [head[i::4].count(0) / len(head[i::4]) for i in range(4)]
    if min(zeros[1:]) > 0.5 > zeros[0]:
        return "UTF-32LE"
    if min(zeros[:3]) > 0.5 > zeros[3]:
        return "UTF-32BE"
    if min(zeros[1], zeros[3]) > 0.3 and max(zeros[0], zeros[2]) < 0.1:
        return "UTF-16LE"
    if min(zeros[0], zeros[2]) > 0.3 and max(zeros[1], zeros[3]) < 0.1:
        return "UTF-16BE"
    return None


def narrow_encoding(data: bytes) -> str | None:
    """Guess the 8-bit encoding of bytes that are not UTF-8; None if they are UTF-8 with few damaged characters."""
    good = sum(character > "\x7f" for character in data.decode("utf-8", "ignore"))
    bad = data.decode("utf-8", "replace").count("\ufffd") - data.count("\ufffd".encode())
    if good > bad:
        return None
    return "WINDOWS-1252" if any(0x80 <= byte < 0xA0 for byte in data) else "ISO-8859-1"


# --- characters and words ---------------------------------------------------------------------------------------------


def why_not_text(text: str) -> str | None:
    """Why a string is not valid text, naming the character as JSON escapes it; None if it is valid.

    The same rule holds for cells of tables, candidate answers, generated outputs and instructions.
    """
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        return f"\\u{ord(text[error.start]):04x} is half of a surrogate pair, not text"
    return "\\u0000 (NUL) is not a text character" if "\0" in text else None


_INVISIBLE = re.compile("[\u00ad\u200b-\u200f\u2060\ufeff]")  # characters without width


def visible_words(text: str) -> list[str]:
    """The words of a text as a person sees them: without zero-width characters."""
    return _INVISIBLE.sub("", text).split()


def not_empty(texts: Iterable[str], words: Callable[[str], object] = visible_words) -> list[str]:
    """The texts that are not empty; the same rule holds everywhere.

    Args:
        texts: the texts to filter.
        words: splits a text; a text without parts is empty. Default: visible words; a metric passes its tokenizer.
    """
    return [text for text in texts if words(text)]


WEIGHT_MARK = "|!+"  # between weight and answer in the published VQA format
WEIGHTED = re.compile(r"\s*[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?\|!\+")


def is_weighted_answer(text: str) -> bool:
    """Whether a text is a weighted answer in the published VQA format: ``1.0|!+two cats``."""
    return WEIGHTED.match(text) is not None


# --- cells of tables --------------------------------------------------------------------------------------------------

REFERENCE_SEPARATOR = "&&"  # between references in one cell of a TSV table


def texts_of(cell: Any, is_joined: bool) -> list[str]:
    """The texts of a cell.

    Args:
        cell: a string or a list of strings.
        is_joined: whether a string may have several texts joined by ``&&``.

    Raises:
        UserError: the cell has another type, or a string that is not valid text.
    """
    texts = cell if isinstance(cell, list) else [cell]
    if is_joined:
        texts = cell.split(REFERENCE_SEPARATOR)
    if not texts or not all(isinstance(text, str) for text in texts):
        odd = next((text for text in texts if not isinstance(text, str)), None)
        kind = kind_of(cell) if not isinstance(cell, list) else f"a list with {kind_of(odd)}" if texts else "an empty list"
        raise UserError(f"expected a string or a list of strings, got {kind}")
    reason = next(filter(None, map(why_not_text, texts)), None)
    if reason is not None:
        raise UserError(reason)
    return texts


def references_of(cell: Any, is_joined: bool) -> tuple[list[str], int]:
    """The references in a cell: its texts that are not blank.

    Args:
        cell: a string or a list of strings.
        is_joined: whether a string may have several texts joined by ``&&``.

    Returns:
        The references, and the number of blank texts.

    Raises:
        UserError: the cell has no text, only blank texts, or weighted answers in the published VQA format.
    """
    every = texts_of(cell, is_joined)
    texts = not_empty(every)
    if not texts:
        raise UserError("a reference must not be empty")
    refuse_weighted(texts)
    return texts, len(every) - len(texts)


def refuse_weighted(texts: Iterable[str]) -> None:
    """Check that no text is a weighted answer, which would be read as it is written.

    Raises:
        UserError: one is.
    """
    weighted = next(filter(is_weighted_answer, texts), None)
    if weighted is not None:
        raise UserError(
            f"{weighted[:40]!r} is a weighted answer in the published VQA format: read it by a slot with the attribute weighted, as in"
            " [TEXT:answer,weighted], or give answers without weights"
        )
