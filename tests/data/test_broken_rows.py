"""Broken rows of every kind: one line that names the row, ``skip`` leaves out that row alone; and which references count."""

import base64
import json
import re

import pytest

from tests import tiny
from unival.data.example import BadSample
from unival.data.rows import RowTable
from unival.data.stream import Stream, TextLimits
from unival.data.table import Table, open_table
from unival.errors import UserError
from unival.instructions import parse
from unival.modalities import MODALITIES
from unival.modalities.composed import MediaOptions

DEEP = "[" * 5000 + "]" * 5000
IMAGE = "images/train.jsonl-0.png"


def row(caption='"a red square"', image=f'"{IMAGE}"', more=""):
    return f'{{{more}"image": {image}, "caption": {caption}}}'


BROKEN = {
    "caption of 5,000 brackets": (row(DEEP), "nested too deeply"),
    "image of 5,000 brackets": (row(image=DEEP), "nested too deeply"),
    "another column of 5,000 objects": (row(more='"x": ' + '{"a":' * 5000 + "1" + "}" * 5000 + ", "), "nested too deeply"),
    "900 brackets": (row("[" * 900 + "]" * 900), "'caption': expected a string"),
    "number of 5,000 digits": (row("9" * 5000), "5000 digits"),
    "another column of 5,000 digits": (row(more='"x": ' + "9" * 5000 + ", "), "5000 digits"),
    "half of a character": (row('"a \\ud800 b"'), r"'caption': \\ud800 is half of a surrogate pair"),
    "half of a character in a list": (row('["a", "\\udfff"]'), r"\\udfff is half"),
    "half of a character in a path": (row(image='"\\ud800.png"'), "'image': .*is neither a file"),
    "zero in a path": (row(image='"a\\u0000.png"'), "'image': .*is neither a file"),
    "path of 300 characters": (row(image=f'"{"a" * 300}.png"'), "'image': .*is neither a file"),
    "path of 5,000 characters": (row(image=f'"{"a" * 5000}.png"'), "'image': .*is neither a file"),
    "folder": (row(image='"images"'), "'image': .*is neither a file"),
    "zero in a text": (row('"a\\u0000b"'), r"'caption': \\u0000 \(NUL\) is not a text character"),
    "zero in a list of texts": (row('["a", "\\u0000"]'), r"'caption': \\u0000 \(NUL\) is not a text character"),
    "raw zero in a text": (row('"a\0b"'), "not valid JSON"),
    "zero without width": (row('["\u200b", "\ufeff\u00ad"]'), "'caption': a reference must not be empty"),
    "NaN": (row("NaN"), "'caption': expected a string .*a number"),
    "infinite": (row(image="-Infinity"), "'image': expected a path"),
    "null": (row("null"), "'caption': expected a string"),
    "object": (row('{"a": "b"}'), "'caption': expected a string"),
    "list in a list": (row('[["a"]]'), "'caption': expected a string"),
    "no texts": (row("[]"), "'caption': expected a string .*empty list"),
    "blank": (row('" \\u00a0"'), "'caption': a reference must not be empty"),
    "blank texts": (row('["", "\\t"]'), "'caption': a reference must not be empty"),
    "column twice": (row(more='"caption": "x", '), "'caption': the row names this column twice"),
    "no columns": ("{}", "the row has no columns"),
    "list": ("[1]", "expected a JSON object, got a list"),
    "text": ('"a"', "expected a JSON object, got a string"),
    "cut": (row()[:-3], "not valid JSON"),
    "blank line": ("", "blank line between rows"),
    "zeros": ("\0\0", "not valid JSON"),
    "no UTF-8": (b'{"caption": "\xe9"}', "not UTF-8 text .*looks like ISO-8859-1; .*iconv -f ISO-8859-1 -t UTF-8"),
    "rows that end as on old Macs": (row() + "\r" + row(), "not valid JSON: .*carriage return"),
    "base64 of no image": (row(image=json.dumps(base64.b64encode(b"x" * 100).decode())), "'image'"),
    "a VQA cell": (row('"1.0|!+two cats&&0.6|!+2 cats"'), "'caption': '1.0.*published VQA format"),
    "a list of VQA cells": (row('["a", "1|!+two cats"]'), "'caption': '1.*published VQA format"),
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("rows")
    tiny.write_table(folder, 2)
    return folder


@pytest.fixture(scope="module")
def vocabulary(folder):
    return tiny.vocabulary(folder / "vocab", 0, 0)


def dataset(table, vocabulary, target="[TEXT:caption]", **options):
    instruction = parse(f"[IMAGE:image] what does the image describe? -> {target}", MODALITIES)
    return Stream(table, instruction, vocabulary, MediaOptions(patch_image_size=32), TextLimits(), **options)


def write(path, *lines):
    path.write_bytes(b"".join((line if isinstance(line, bytes) else line.encode()) + b"\n" for line in lines))
    return open_table(path)


@pytest.mark.parametrize("kind", BROKEN)
def test_a_broken_row_is_one_line_and_skipped_alone(folder, vocabulary, kind):
    line, message = BROKEN[kind]
    table = write(folder / "broken.jsonl", row(), line, row())
    train = dataset(table, vocabulary, train=True, skip_bad=True)
    assert [type(train[i]) for i in range(3)] == [list, BadSample, list]
    train.skip_bad = False
    evaluation = dataset(table, vocabulary)
    reads = [lambda: train[1], lambda: evaluation[1]]
    if kind not in ("base64 of no image", "path of 5,000 characters"):  # long texts and their contents are not looked at before
        reads.append(evaluation.check_rows)
    for read in reads:
        with pytest.raises(UserError, match=message) as caught:
            read()
        assert str(caught.value).startswith(f"{table.path}, row 1 (line 2)") and "\n" not in str(caught.value)
        str(caught.value).encode("utf-8")
    assert train.collater([train[0], BadSample(1, str(caught.value)), train[2]])["nsentences"] == 2


def test_the_first_row_may_be_the_broken_one(folder, vocabulary):
    table = write(folder / "first.jsonl", *(line for line, _ in list(BROKEN.values())[:4]), row())
    train = dataset(table, vocabulary, train=True, skip_bad=True)
    assert [type(train[i]) for i in range(5)] == [BadSample] * 4 + [list]
    tsv = folder / "first.tsv"
    tsv.write_bytes(b"\xfd\t\xe9\n" + f"{IMAGE}\ta dog\n".encode())
    train = dataset(open_table(tsv, ["image", "caption"]), vocabulary, train=True, skip_bad=True)
    assert [type(train[i]) for i in range(2)] == [BadSample, list]


GOOD_ROW = f"7\ta dog\t{IMAGE}"
BROKEN_FIRST = {
    "a tab too many": (f"{GOOD_ROW}\tx", "as in row 2, got 4"),
    "a tab too few": ("7\ta dog", "as in row 2, got 2"),
    "spaces for tabs": (GOOD_ROW.replace("\t", "    "), "as in row 2, got 1"),
    "blank": ("", "blank line between rows"),
    "no UTF-8": (b"7\t\xe9\t" + IMAGE.encode(), "not UTF-8 text"),
    "an old Mac's rows": (f"{GOOD_ROW}\r{GOOD_ROW}", "rows end with a carriage return alone"),
}


@pytest.mark.parametrize("kind", BROKEN_FIRST)
@pytest.mark.parametrize("selected", ["2,1", None])
def test_the_first_rows_of_a_tsv_table_may_be_broken(folder, vocabulary, kind, selected):
    """Most of the first rows tell how many columns there are, not the first."""
    line, message = BROKEN_FIRST[kind]
    table = write(folder / "first_rows.tsv", line, line, *[GOOD_ROW] * 3)
    columns = ["image", "caption"] if selected else ["id", "caption", "image"]
    table = open_table(table.path, columns, selected)
    train = dataset(table, vocabulary, train=True, skip_bad=True)
    assert [type(train[i]) for i in range(5)] == [BadSample] * 2 + [list] * 3
    assert train[0].message.startswith(f"{table.path}, row 0 (line 1)") and message in train[0].message
    with pytest.raises(UserError, match=r"no column 3; .*first_rows.tsv, row \d \(line \d\), like most .* has columns 0 to 2"):
        open_table(table.path, None, "3,1")


def test_of_two_widths_it_is_the_one_that_is_named(folder):
    path = write(folder / "tie.tsv", "7\ta", GOOD_ROW).path
    assert open_table(path, ["id", "caption", "image"])[1]["image"] == IMAGE
    assert open_table(path, ["id", "caption"])[0] == {"id": "7", "caption": "a"}
    blank = write(folder / "blank.tsv", "", "a", "b")
    assert blank[1] == {"0": "a"} and blank[0] == {"0": ""}


ERRORS = [MemoryError(), RecursionError("deep"), ValueError("two\nlines"), RuntimeError("torch"), OSError(5, "I/O")]


@pytest.mark.parametrize("error", ERRORS, ids=repr)
@pytest.mark.parametrize("place", ["image", "caption", "row"])
def test_any_exception_of_a_row_is_its_fault(folder, vocabulary, monkeypatch, place, error):
    """Where reading goes wrong in a way that nobody foresaw; Ctrl-C and exits are no row's."""

    def fail(*arguments, **options):
        raise error

    train = dataset(write(folder / "any.jsonl", row(), row()), vocabulary, train=True, skip_bad=True)
    if place == "image":
        train.loaders["IMAGE"] = fail
    else:
        monkeypatch.setattr(*((type(vocabulary), "encode") if place == "caption" else (Table, "_line")), fail)
    bad = train[1]
    assert isinstance(bad, BadSample) and "row 1 (line 2)" in bad.message and "\n" not in bad.message
    assert place == "row" or "column" in bad.message or place == "caption"  # a prompt has no column
    train.skip_bad = False
    with pytest.raises(UserError) as caught:
        train[1]
    assert caught.value.__cause__ is error
    error = KeyboardInterrupt()
    with pytest.raises(KeyboardInterrupt):
        train[1]


def test_rows_in_memory(vocabulary):
    nested = None
    for _ in range(5000):
        nested = [nested]
    rows = RowTable([{"image": "x"}, {"image": nested}, {"image": "\ud800"}, {"image": IMAGE, "caption": "\ud800"}, {}])
    read = dataset(rows, vocabulary, "[TEXT:image]", skip_bad=True)
    assert all(isinstance(read[i], BadSample) and read[i].message.startswith(f"row {i}") for i in range(5))
    with pytest.raises(UserError, match="row 1: column names must be strings, got '2' of type int"):
        RowTable([{"image": "x"}, {2: "x"}])


# --- references ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("cell", ["a dog&&&&two dogs", "a dog&&two dogs&&", "&&a dog&& \u3000&&two dogs"])
def test_empty_references_in_a_tsv_cell(folder, vocabulary, cell, caplog):
    path = folder / "joined.tsv"
    path.write_text(f"{IMAGE}\t{cell}\n{IMAGE}\ta cat\n", encoding="utf-8")
    read = dataset(open_table(path, ["image", "caption"]), vocabulary)
    assert read.references() == [["a dog", "two dogs"], ["a cat"]]
    assert "joined.tsv: " in caplog.text and re.search(r" empty references? \(their rows have others\)", caplog.text)
    assert read[0][0].references == ["a dog", "two dogs"] and read[0][0].empty == cell.count("&&") - 1
    assert read.collater([read[0], read[1]])["num_empty"] == read[0][0].empty


def test_targets_that_normalisation_leaves_empty(folder, vocabulary):
    slot = "[TEXT:caption,no_punctuation,uncased]"
    table = write(folder / "marks.jsonl", row('["?!", "A dog.", ""]'), row('["...", " ?"]'), row('"!"'))
    train = dataset(table, vocabulary, slot, train=True, skip_bad=True)
    dog = vocabulary.encode(" a dog")
    for train.epoch in range(1, 9):
        assert train[0][0].target.tolist() == [*dog, vocabulary.eos] and train[0][0].empty == 2
    reason = "is empty after normalisation"
    assert train[1].message == f"{table.path}, row 1 (line 2), column 'caption': '...' {reason}"
    assert isinstance(train[2], BadSample)
    assert dataset(table, vocabulary, slot)[0][0].target.tolist() == [*dog, vocabulary.eos]
    plain = dataset(table, vocabulary)  # marks can be learned where they are kept
    assert [plain[i][0].target.tolist()[:-1] for i in range(3)] == [vocabulary.encode(f" {text}") for text in ("?!", "...", "!")]


@pytest.mark.parametrize("text", ["a |!+ b", "2 cats|!+", "x1.0|!+two", "1.0 |!+two", "1.0|+two"])
def test_texts_that_are_no_vqa_cells_are_learned(folder, vocabulary, text):
    assert dataset(write(folder / "plain.jsonl", row(json.dumps(text))), vocabulary)[0][0].references == [text]
