"""The files of a vocabulary: ``encoder.json``, ``vocab.bpe``, ``dict.txt`` and ``sizes.json``, read and checked."""

from __future__ import annotations

import json
import pathlib
import re
from typing import Any

from unival.errors import UserError, counted
from unival.text import read_text

ENCODER_FILE, MERGES_FILE, DICT_FILE = "encoder.json", "vocab.bpe", "dict.txt"
SIZES_FILE = "sizes.json"  # only in folders that this package wrote: {"num_codes": 0, "num_bins": 0}
MASK_TOKEN = "<mask>"
FILLER = "madeupword"  # prefix of the dummy tokens with which fairseq pads a dictionary to a multiple of 8
VERSION_LINE = "#version: 0.2"
MIXED_FILES = "are these files of two vocabularies?"
HOW_TO_GET = (
    "train one with `unival train-vocab --table FILE --column caption --size 400 --out DIR`, "
    "or put GPT-2's encoder.json and vocab.bpe and BART's dict.txt there"
)


def check_files(folder: pathlib.Path) -> None:
    if not folder.is_dir():
        raise UserError(f"there is no vocabulary folder {folder}: {HOW_TO_GET}")
    missing = [name for name in (ENCODER_FILE, MERGES_FILE, DICT_FILE) if not (folder / name).is_file()]
    if missing:
        raise UserError(f"the vocabulary folder {folder} lacks {' and '.join(missing)}: {HOW_TO_GET}")


def read_sizes(path: pathlib.Path) -> dict[str, int] | None:
    """Read the numbers of codes and bins in ``sizes.json``; None if there is no such file."""
    if not path.is_file():
        return None
    text = read_text(path)
    try:
        sizes = json.loads(text)
        return {name: int(sizes[name]) for name in ("num_codes", "num_bins")}
    except (ValueError, KeyError, TypeError, RecursionError):
        raise UserError(f'{path}: expected an object such as {{"num_codes": 0, "num_bins": 0}}') from None


def read_encoder(path: pathlib.Path) -> dict[str, int]:
    text = read_text(path)
    try:
        encoder: Any = json.loads(text)
    except json.JSONDecodeError as error:
        raise UserError(f"{path}, line {error.lineno}, character {error.colno}: not JSON: {error.msg}") from None
    except (ValueError, RecursionError) as error:  # a number with thousands of digits, or too deeply nested
        raise UserError(f"{path}: not JSON that can be read: {error}") from None
    numbers_only = isinstance(encoder, dict) and all(type(n) is int and n >= 0 for n in encoder.values())
    if not numbers_only or len(set(encoder.values())) != len(encoder):
        raise UserError(f"{path}: expected one JSON object that gives every token a different number, 0 or more")
    from tokenizers import pre_tokenizers

    lacking = sorted(set(pre_tokenizers.ByteLevel.alphabet()) - set(encoder))
    if lacking:  # the tokenizer would silently drop these bytes from texts
        raise UserError(f"{path} lacks {len(lacking)} of the 256 byte tokens (the first is {lacking[0]!r})")
    return encoder


def read_merges(path: pathlib.Path, encoder: dict[str, int]) -> list[tuple[str, str]]:
    lines = read_text(path).split("\n")
    if not lines[0].startswith("#version"):
        raise UserError(f"{path}, line 1: expected '{VERSION_LINE}', got {lines[0]!r}")
    merges = []
    for number, line in enumerate(lines[1:], start=2):
        if not line.strip():
            continue
        parts = line.rstrip("\r").split(" ")
        if len(parts) != 2:
            raise UserError(f"{path}, line {number}: expected two tokens separated by one space, got {line!r}")
        absent = next((token for token in (*parts, "".join(parts)) if token not in encoder), None)
        if absent is not None:
            raise UserError(f"{path}, line {number}: token {absent!r} is not in {ENCODER_FILE}; {MIXED_FILES}")
        merges.append((parts[0], parts[1]))
    return merges


def read_dict(path: pathlib.Path) -> list[tuple[str, int]]:
    entries: dict[str, int] = {}
    for number, line in enumerate(read_text(path).splitlines(), start=1):
        token, _, count = line.strip().rpartition(" ")
        if not line.strip():
            continue
        if not token or not re.fullmatch(r"-?\d+", count):
            raise UserError(f"{path}, line {number}: expected 'token count', got {line!r}")
        if token in entries:
            raise UserError(f"{path}, line {number}: token {token!r} is listed twice")
        entries[token] = int(count)
    return list(entries.items())


def without_appended(
    entries: list[tuple[str, int]], path: pathlib.Path, num_codes: int, num_bins: int
) -> list[tuple[str, int]]:
    """Remove ``<mask>``, codes and bins from the end of a complete dictionary, if they are exactly what ``Vocabulary`` appends."""
    names = [token for token, _ in entries]
    first = next((i for i, name in enumerate(names) if re.fullmatch(r"<mask>|<(code|bin)_\d+>", name)), None)
    if first is None:
        return entries
    expected = [MASK_TOKEN, *(f"<code_{i}>" for i in range(num_codes)), *(f"<bin_{i}>" for i in range(num_bins))]
    if names[first:] != expected:
        codes, bins = (sum(name.startswith(f"<{kind}_") for name in names) for kind in ("code", "bin"))
        raise UserError(
            f"{path} already holds {codes} <code_i> and {bins} <bin_i> tokens, but num_codes={num_codes} and "
            f"num_bins={num_bins} were given; give the numbers of the file, whose last tokens must be {MASK_TOKEN}, codes "
            "and bins in this order"
        )
    return entries[:first]


def check_same_numbers(entries: list[tuple[str, int]], encoder: dict[str, int], path: pathlib.Path) -> None:
    listed = {token for token, _ in entries if not token.startswith(FILLER)}
    known = {str(number) for number in encoder.values()}
    unknown, unlisted = listed - known, known - listed
    if unknown:
        example = next(token for token, _ in entries if token in unknown)
        raise UserError(
            f"{path} lists {counted(len(unknown), 'token')} not among the numbers of {ENCODER_FILE} (the first is {example!r}); "
            f"{MIXED_FILES}"
        )
    if unlisted:
        raise UserError(
            f"{path} lacks {counted(len(unlisted), 'number')} of {ENCODER_FILE} (the first is {min(unlisted, key=int)}); "
            f"texts that need them could not be encoded; {MIXED_FILES}"
        )
