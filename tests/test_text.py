"""Text files of every encoding: a byte order mark is dropped, what is no UTF-8 is named with the command that converts it."""

import codecs

import pytest

from tests import tiny
from unival.commands.report.reading import read_json, read_log
from unival.commands.run import _row as row_of_command_line
from unival.data.rows import plain
from unival.data.table import open_table
from unival.errors import UserError
from unival.instructions import parse
from unival.metrics.score import read_generated
from unival.modalities import MODALITIES
from unival.tasks.closed_set import read_answers
from unival.text import is_weighted_answer, read_text
from unival.vocab import Vocabulary


def rows(path):
    table = open_table(path)
    return [table[0], table[1]]


# What reads a text file, a text that suits it, the file's name.
READERS = {
    "read_text": (read_text, "a café\n", "a.txt"),
    "answers": (read_answers, "oui, café\nnon\n", "answers.txt"),
    "a JSONL table": (rows, '{"a": "café"}\n{"a": "thé"}\n', "t.jsonl"),
    "a TSV table": (rows, "a.png\tcafé\nb.png\tthé\n", "t.tsv"),
    "outputs": (read_generated, "D-0\t-0.5\tun café\nD-1\t-0.25\tthé\n", "generate-valid.txt"),
    "scores": (read_json, '{"é": 1}', "scores.json"),
    "a log": (lambda path: read_log(path, "é"), '{"num_updates": "1", "loss": "2"}\né\n', "log.jsonl"),
}


@pytest.mark.parametrize("what", READERS)
def test_encodings(tmp_path, what):
    read, text, name = READERS[what]
    path = tmp_path / name

    def result(data):
        path.write_bytes(data)
        for index in tmp_path.glob(".*.npy"):
            index.unlink()
        return read(path)

    plain = result(text.encode())
    dos = text.replace("\n", "\r\n").encode()
    for data in (codecs.BOM_UTF8 + text.encode(), dos, codecs.BOM_UTF8 + dos):
        assert result(data) == plain, data[:12]
    for encoding in ("utf-16", "utf-16-le", "utf-16-be", "utf-32", "utf-32-le", "utf-32-be"):
        with pytest.raises(UserError, match=f"{name}, line 1: looks like {encoding[:6].upper()}") as caught:
            result(text.encode(encoding))
        assert "iconv -f UTF-" in str(caught.value) and "\n" not in str(caught.value)
    for encoding, known in (("latin-1", "ISO-8859-1"), ("cp1252", "WINDOWS-1252")):
        data = text.replace("é", "é€" if encoding == "cp1252" else "é").encode(encoding)
        place = rf"{name}.*byte 0xe9 at position \d+ of the line"
        with pytest.raises(UserError, match=rf"{place}.*looks like {known};.*-f {known} -t UTF-8") as caught:
            result(data)
        assert "\n" not in str(caught.value)


def test_a_damaged_character_is_no_other_encoding(tmp_path):
    path = tmp_path / "a.txt"
    path.write_bytes("un café\nété\nthé ".encode() + b"\xc3 x\n")
    with pytest.raises(UserError, match=r"a.txt, line 3: not UTF-8 text \(byte 0xc3 at position 5 of the line; .*damaged\)"):
        read_text(path)
    with pytest.raises(UserError, match="cannot be read"):
        read_text(tmp_path)


def test_lines_of_old_macs(tmp_path):
    (tmp_path / "answers.txt").write_bytes(b"yes\rno\r")
    assert read_answers(tmp_path / "answers.txt") == ["yes", "no"]
    (tmp_path / "t.tsv").write_bytes(b"a.png\ta\rb.png\tb\r")
    with pytest.raises(UserError, match="rows end with a carriage return alone; convert them: tr"):
        open_table(tmp_path / "t.tsv")


def test_tables_that_were_joined_with_their_byte_order_marks(tmp_path):
    (tmp_path / "t.tsv").write_bytes((codecs.BOM_UTF8 + b"a.png\ta\r\n") * 2)
    table = open_table(tmp_path / "t.tsv")
    assert table[0] == table[1] == {"0": "a.png", "1": "a"}


def test_a_vocabulary_edited_elsewhere(tmp_path):
    vocabulary = tiny.vocabulary(tmp_path / "v", 0, 0)
    for file in (tmp_path / "v").iterdir():
        file.write_bytes(codecs.BOM_UTF8 + file.read_bytes().replace(b"\n", b"\r\n"))
    assert Vocabulary.load(tmp_path / "v").fingerprint == vocabulary.fingerprint
    for file in (tmp_path / "v").iterdir():
        before = file.read_bytes()
        file.write_bytes(before.decode("utf-8-sig").encode("utf-16"))
        with pytest.raises(UserError, match=f"{file.name}, line 1: looks like UTF-16"):
            Vocabulary.load(tmp_path / "v")
        file.write_bytes(before)


@pytest.mark.parametrize("text", ["1.0|!+two cats", " 0.6|!+2", "1|!+a", ".5|!+a", "1e-1|!+a", "1.|!+"])
def test_weighted_answers(text):
    assert is_weighted_answer(text)


WHAT = "[IMAGE:image] what? -> [TEXT:answer]"


CULPRITS = {"\0": r"\\u0000 \(NUL\) is not a text character", "\ud800": r"\\ud800 is half of a surrogate pair"}


@pytest.mark.parametrize("culprit, said", CULPRITS.items(), ids=ascii)
def test_what_is_no_text(tmp_path, culprit, said):
    """One rule for cells (see test_broken_rows), outputs, answers and instructions."""
    with pytest.raises(UserError, match=said) as caught:
        parse(WHAT.replace("what", f"wh{culprit}at"), MODALITIES)
    assert caught.value.position == WHAT.index("at?") and str(caught.value).encode("utf-8")
    if culprit == "\0":  # UTF-8 has no half characters
        (tmp_path / "a.txt").write_bytes(b"yes\nn\0o\n")
        with pytest.raises(UserError, match=rf"a.txt, line 2, .*{said}"):
            read_answers(tmp_path / "a.txt")
        (tmp_path / "g.txt").write_bytes(b"D-0\t-1\ta\nD-1\t-1\tn\0o\n")
        with pytest.raises(UserError, match=rf"g.txt, line 2: {said}"):
            read_generated(tmp_path / "g.txt")


def test_answers_that_cannot_be_and_repeated_ones(tmp_path, caplog):
    (tmp_path / "a.txt").write_text("yes\n\n1.0|!+two cats\n")
    with pytest.raises(UserError, match="a.txt, line 3, '1.0.*two cats': is a weighted answer in the published VQA format"):
        read_answers(tmp_path / "a.txt")
    (tmp_path / "a.txt").write_text("yes\n\nno\n yes\nYes\n")
    assert read_answers(tmp_path / "a.txt") == ["yes", "no", "Yes"]
    assert "a.txt: ignoring repeated answers (1 line), for example 'yes' in lines 1 and 4" in caplog.text


@pytest.mark.parametrize(
    "text, said",
    [
        ('{"image": "a", "image": "b"}', "column 'image': the row names this column twice"),
        ("{}", "the row has no columns; expected an object such as"),
        ("[1]", "expected a JSON object, got a list"),
        ("[" * 100000, "nested too deeply"),
        ('{"a": ' + "9" * 9000 + "}", "4300 digits"),
        ('{"image":', "character 10: not valid JSON"),
    ],
)
def test_rows_of_the_command_line_follow_the_rules_of_tables(text, said):
    with pytest.raises(UserError, match=said) as caught:
        row_of_command_line(text)
    assert str(caught.value).startswith("--row '") and "\n" not in str(caught.value) and len(str(caught.value)) < 500


def test_a_closed_file(tmp_path):
    with (tmp_path / "a.png").open("wb") as file:
        pass
    with pytest.raises(UserError, match="a.png'> is closed$"):
        plain(file)
