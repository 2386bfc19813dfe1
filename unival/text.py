"""Text: files in UTF-8, what counts as empty, and clean-up of questions and captions as the published recipes do it."""

from __future__ import annotations

import codecs
import os
import pathlib
import re
import string
from collections.abc import Callable, Iterable

from unival.errors import UserError

BOM = codecs.BOM_UTF8
# Marks at the beginning of a file, longer ones first, and the names that iconv knows.
MARKS = {
    codecs.BOM_UTF32_LE: "UTF-32",
    codecs.BOM_UTF32_BE: "UTF-32",
    codecs.BOM_UTF16_LE: "UTF-16",
    codecs.BOM_UTF16_BE: "UTF-16",
}
HEAD = 4096  # bytes that tell whether a text is of 16 or 32 bits

LEADING_MARKS = ",.!?*#:;~"
_NO_PUNCTUATION = str.maketrans("", "", string.punctuation)
_JOINERS_TO_SPACES = str.maketrans("-/", "  ")


def truncate_words(text: str, max_words: int | None) -> str:
    """The first ``max_words`` words separated by single spaces; all of them when ``max_words`` is None."""
    return " ".join(text.split()[:max_words])


def normalize_question(text: str, max_words: int | None = None) -> str:
    """Lower case, no marks in front, "-" and "/" as spaces, single spaces, at most ``max_words`` words."""
    return truncate_words(text.lower().lstrip(LEADING_MARKS).translate(_JOINERS_TO_SPACES), max_words)


def normalize_caption(text: str, max_words: int | None = None) -> str:
    """As ``normalize_question``, and the placeholder "<person>" becomes "person"."""
    text = text.lower().lstrip(LEADING_MARKS).translate(_JOINERS_TO_SPACES).replace("<person>", "person")
    return truncate_words(text, max_words)


def strip_punctuation(text: str) -> str:
    """Without ASCII punctuation and outer spaces; inner spaces stay ("dogs & a cat" keeps two in a row)."""
    return text.translate(_NO_PUNCTUATION).strip()


def split_names(text: str) -> tuple[str, ...]:
    """``"image,video"`` -> names in lower case."""
    return tuple(name.strip().lower() for name in text.split(",") if name.strip())


# --- files ------------------------------------------------------------------------------------------------------------


def read_text(path: str | os.PathLike[str]) -> str:
    """The text of a file in UTF-8, with ``\\n`` between lines and without a byte order mark.

    Raises:
        UserError: the file cannot be read or is in another encoding, which is named with the command that converts it.
    """
    file = pathlib.Path(path)
    try:
        data = file.read_bytes()
    except OSError as error:
        raise UserError(f"{file}: cannot be read: {error.strerror}") from error
    refuse_wide(data[:HEAD], file)
    return decode(data.removeprefix(BOM), str(file), file).replace("\r\n", "\n").replace("\r", "\n")


def lone_returns(path: str | os.PathLike[str]) -> str:
    """What is said of a file whose lines end as on old Macs, where that is no end of a row."""
    return f"rows end with a carriage return alone; convert them: tr '\\r' '\\n' < {path} > NEW"


def refuse_wide(head: bytes, path: str | os.PathLike[str]) -> None:
    """Refuse a file whose first bytes show UTF-16 or UTF-32; other encodings show where the text is no UTF-8.

    Raises:
        UserError: names the encoding and the command that converts the file.
    """
    encoding = _wide_encoding(head)
    if encoding:
        raise UserError(f"{path}, line 1: looks like {encoding}, not UTF-8; {conversion(encoding, path)}")


def decode(data: bytes, where: str, path: str | os.PathLike[str]) -> str:
    """UTF-8 bytes as text.

    Args:
        where: what the bytes are, for the message.
        path: the file that they are from.

    Raises:
        UserError: they are no UTF-8; names line, byte and the encoding that they seem to be in.
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
    """How a file gets into UTF-8, for messages."""
    return f"if all of the file is, convert it: iconv -f {encoding} -t UTF-8 {path} > NEW"


def _wide_encoding(head: bytes) -> str | None:
    """UTF-16 or UTF-32 by a byte order mark, or by the zeros that most characters have there; None for all else."""
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
    """What bytes that are no UTF-8 seem to be; None for UTF-8 with few damaged characters."""
    good = sum(character > "\x7f" for character in data.decode("utf-8", "ignore"))
    bad = data.decode("utf-8", "replace").count("\ufffd") - data.count("\ufffd".encode())
    if good > bad:
        return None
    return "WINDOWS-1252" if any(0x80 <= byte < 0xA0 for byte in data) else "ISO-8859-1"


# --- characters and words ---------------------------------------------------------------------------------------------


def why_no_text(text: str) -> str | None:
    """Why a string is no text, with the culprit written as in JSON; None for a text.

    The one rule for cells of tables, closed sets of answers, generated outputs and instructions.
    """
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        return f"\\u{ord(text[error.start]):04x} is half of a character, and no text"
    return "\\u0000 (NUL) is no character of a text" if "\0" in text else None


_INVISIBLE = re.compile("[\u00ad\u200b-\u200f\u2060\ufeff]")  # characters without width


def seen_words(text: str) -> list[str]:
    """What a person sees of a text: its words less characters without width."""
    return _INVISIBLE.sub("", text).split()


def not_empty(texts: Iterable[str], words: Callable[[str], object] = seen_words) -> list[str]:
    """Those of several texts that have words; the one rule for what counts as empty.

    Args:
        words: what a text consists of for its reader: tokens of a metric, ids of a target; by default it is empty if it looks blank.
    """
    return [text for text in texts if words(text)]


WEIGHTED = re.compile(r"\s*[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?\|!\+")


def is_weighted_answer(text: str) -> bool:
    """Whether a text is an answer with its weight in the published VQA form: ``1.0|!+two cats``."""
    return WEIGHTED.match(text) is not None
