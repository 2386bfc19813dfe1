"""Tables: any row at random, the cached index of lines, media in columns, and what broken files get."""

import base64
import json
import logging
import multiprocessing
import os
import pickle

import numpy as np
import pytest

from unival.data import line_index
from unival.data.cells import decode_media, media_path
from unival.data.table import open_table
from unival.errors import UserError

PIXELS = bytes(range(256)) * 2  # stands for an image file; its base64 has characters of both alphabets
PNG_BASE64 = (  # an 8 x 6 image as the published tables hold it, in the URL-safe alphabet
    "iVBORw0KGgoAAAANSUhEUgAAAAgAAAAGCAIAAABxZ0isAAAAFElEQVR4nGPkOiHHgA0wYRWlkwQAjsYA_Plq4M8AAAAASUVORK5CYII="
)


def index_of(path):
    return path.with_name(f".{path.name}.index.npy")


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.fixture
def tsv(tmp_path):
    path = tmp_path / "rows.tsv"
    path.write_text("".join(f"{i}\timg{i}\tcaption é {i}\t\t{i}.jpg\n" for i in range(100)), encoding="utf-8")
    return path


@pytest.fixture
def jsonl(tmp_path):
    path = tmp_path / "rows.jsonl"
    rows = [{"id": f"t-{i}", "image": f"{i}.jpg", "caption": ["a", f"b {i}"]} for i in range(10)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def test_tsv_with_selected_columns(tsv):
    table = open_table(tsv, ["id", "image", "caption"], "0,4,2")
    assert len(table) == 100 and table.columns == ("id", "image", "caption")
    for i in (99, 0, 42):
        assert table[i] == {"id": str(i), "image": f"{i}.jpg", "caption": f"caption é {i}"}
    assert [row["id"] for row in table] == [str(i) for i in range(100)]
    with pytest.raises(IndexError):
        table[100]
    with pytest.raises(IndexError):
        table[-1]


def test_tsv_names_columns_by_number(tsv):
    assert open_table(tsv)[3] == {"0": "3", "1": "img3", "2": "caption é 3", "3": "", "4": "3.jpg"}
    assert open_table(tsv, selected_cols="4, 0")[3] == {"4": "3.jpg", "0": "3"}
    assert open_table(tsv, list("abcde"))[3]["c"] == "caption é 3"


def test_jsonl_rows_are_whole(jsonl):
    table = open_table(jsonl, columns=["caption"])
    assert table.columns == ("id", "image", "caption")
    assert table[7] == {"id": "t-7", "image": "7.jpg", "caption": ["a", "b 7"]}
    assert table.where(7) == f"{jsonl}, row 7 (line 8)"


@pytest.mark.parametrize(
    "content", [b"a\tb\nc\td\n", b"a\tb\nc\td", b"a\tb\r\nc\td\r\n", b"\xef\xbb\xbfa\tb\nc\td\n\n \r\n\n"]
)
def test_line_ends(tmp_path, content):
    path = tmp_path / "x.tsv"
    path.write_bytes(content)
    for _ in range(2):  # scanned, then from the index
        table = open_table(path, ["p", "q"])
        assert list(table) == [{"p": "a", "q": "b"}, {"p": "c", "q": "d"}]


def test_lines_across_chunks(tmp_path, monkeypatch):
    rng = np.random.default_rng(5)
    lines = ["x" * int(n) + "y" for n in rng.integers(0, 30, 200)]
    path = tmp_path / "x.tsv"
    path.write_text("\n".join(lines), encoding="utf-8")
    for chunk in (1, 7, 64):
        monkeypatch.setattr(line_index, "INDEX_CHUNK", chunk)
        index_of(path).unlink(missing_ok=True)
        assert [row["0"] for row in open_table(path)] == lines


def test_index_is_kept_and_used(tsv, monkeypatch):
    open_table(tsv)
    offsets = np.load(index_of(tsv))
    assert offsets.dtype == np.uint64 and len(offsets) == line_index.INDEX_HEADER + 101
    assert [entry.name for entry in tsv.parent.iterdir() if entry.name.startswith(".rows")] == [index_of(tsv).name]
    monkeypatch.setattr(line_index, "_scan_lines", lambda data: pytest.fail("scanned though an index was there"))
    assert open_table(tsv)[99]["0"] == "99"


def test_index_is_made_anew_when_the_table_changes(tsv):
    assert len(open_table(tsv)) == 100
    tsv.write_text("a\tb\nc\td\n", encoding="utf-8")
    assert [row["1"] for row in open_table(tsv)] == ["b", "d"]
    stat = tsv.stat()
    tsv.write_text("a\nb\nc\nd\n", encoding="utf-8")  # the same size and, below, the same time
    os.utime(tsv, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert [row["0"] for row in open_table(tsv)] == ["a", "b", "c", "d"]


@pytest.mark.parametrize("damage", [b"", b"not an array", b"\x93NUMPY\x01\x00"])
def test_damaged_index_is_made_anew(tsv, damage):
    open_table(tsv)
    index_of(tsv).write_bytes(damage)
    assert open_table(tsv)[99]["0"] == "99"
    assert np.load(index_of(tsv)).shape == (line_index.INDEX_HEADER + 101,)


def test_index_of_wrong_kind_is_made_anew(tsv):
    for wrong in (np.zeros(200), np.zeros((2, 2), dtype=np.uint64), np.zeros(2, dtype=np.uint64)):
        np.save(index_of(tsv), wrong)
        assert open_table(tsv)[99]["0"] == "99"


def test_read_only_folder_uses_the_cache_folder(tsv, tmp_path, monkeypatch, caplog):
    index_of(tsv).mkdir()  # a place that cannot be written, for root too
    assert open_table(tsv)[5]["0"] == "5"
    kept = list((tmp_path / "cache/unival/index").iterdir())
    assert len(kept) == 1 and kept[0].name.endswith(".rows.tsv.index.npy")
    with monkeypatch.context() as patch:
        patch.setattr(line_index, "_scan_lines", lambda data: pytest.fail("scanned though an index was there"))
        assert open_table(tsv)[5]["0"] == "5"
    monkeypatch.setenv("XDG_CACHE_HOME", str(tsv / "no-folder"))
    with caplog.at_level(logging.WARNING):
        assert open_table(tsv)[5]["0"] == "5"
    assert "cannot write the line index" in caplog.text


def read_row(table, i):
    return os.getpid(), table[i]


def test_pickles_without_its_contents(tsv):
    table = open_table(tsv, ["id", "image"], "0,4")
    data = pickle.dumps(table)
    assert len(data) < 1000
    again = pickle.loads(data)
    assert again[42] == table[42] and again.columns == table.columns and len(again) == 100
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        pid, row = pool.apply(read_row, (table, 42))
    assert pid != os.getpid() and row == table[42]


def test_workers_notice_a_changed_table(tsv):
    data = pickle.dumps(open_table(tsv))
    tsv.write_text("other\n", encoding="utf-8")
    with pytest.raises(UserError, match="changed after it was opened"):
        pickle.loads(data)
    tsv.unlink()
    with pytest.raises(UserError, match="was removed after it was opened"):
        pickle.loads(data)


def opening(path, **options):
    with pytest.raises(UserError) as caught:
        open_table(path, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_files_that_cannot_be_tables(tsv, tmp_path):
    assert f"there is no table {tmp_path}/row.tsv; {tmp_path} has rows.tsv" in opening(tmp_path / "row.tsv")
    assert "the folder" in opening(tmp_path / "no/rows.tsv") and "does not exist" in opening(tmp_path / "no/rows.tsv")
    for name, content in (("e.tsv", b""), ("b.tsv", b"\n \r\n"), ("e.jsonl", b""), ("bom.tsv", b"\xef\xbb\xbf")):
        (tmp_path / name).write_bytes(content)
        assert opening(tmp_path / name) == f"{tmp_path / name} has no rows"
    (tmp_path / "x.csv").write_text("a,b\n")
    assert "expected a table with the suffix .tsv, .txt, .jsonl, .ndjson, got '.csv'" in opening(tmp_path / "x.csv")
    assert "is not a folder" in opening(tsv, media_root=tmp_path / "nowhere")


def test_columns_that_are_not_there(tsv, jsonl):
    widths = f"{tsv}, row 0 (line 1), like most of the first rows, has columns 0 to 4"
    assert opening(tsv, selected_cols="0,5").endswith(f"no column 5; {widths}")
    for wrong in ("0,x", "-1", "", "0,,1", "1.5"):
        assert "column numbers such as '0,4,2'" in opening(tsv, selected_cols=wrong)
    assert "selected_cols '0,4,2' has 3 columns, but got 2 names: a, b" in opening(
        tsv, columns=["a", "b"], selected_cols="0,4,2"
    )
    assert f"has 5 columns, but got 1 name: a; {widths}" in opening(tsv, columns=["a"])
    assert "column name 'a' is given twice in a, b, a" in opening(tsv, columns=list("aba"), selected_cols="0,1,2")
    assert opening(jsonl, columns=["id", "captoin"]) == (
        f"{jsonl}, row 0 (line 1), column 'captoin': no such column; the row has 'id', 'image', 'caption'"
    )
    assert "columns of a JSONL file have names" in opening(jsonl, selected_cols="0")


@pytest.mark.parametrize(
    "line,message",
    [
        (b"c\td\te", "row 2 (line 3): expected 2 columns (p, q) as in row 0, got 3"),
        (b"c", "row 2 (line 3): expected 2 columns (p, q) as in row 0, got 1"),
        (b"", "row 2 (line 3): blank line between rows"),
        (b"ab\tc\xff", "row 2 (line 3): not UTF-8 text (byte 0xff at position 4 of the line); looks like ISO-8859-1"),
    ],
)
def test_broken_tsv_rows(tmp_path, line, message):
    path = tmp_path / "x.tsv"
    path.write_bytes(b"a\tb\na\tb\n" + line + b"\ny\tz\n")
    table = open_table(path, ["p", "q"])
    assert len(table) == 4 and table[3] == {"p": "y", "q": "z"}
    with pytest.raises(UserError) as caught:
        table[2]
    assert str(caught.value).split("; if all")[0] == f"{path}, {message}"


@pytest.mark.parametrize(
    "line,message",
    [
        (b'{"a": 1,}', ", character 9: not valid JSON: "),
        (b'{"a": 1', ", character 8: not valid JSON: "),
        (b"[1, 2]", ": expected a JSON object, got a list: [1, 2]"),
        (b"", ": blank line between rows"),
        (b'{"b": 1}', ", column 'a': no such column; the row has 'b'"),
        (b'{"a": "\xe9"}', ": not UTF-8 text (byte 0xe9 at position 7 of the line)"),
    ],
)
def test_broken_json_rows(tmp_path, line, message):
    path = tmp_path / "x.jsonl"
    path.write_bytes(b'{"a": 0}\n' + line + b'\n{"a": 2}\n')
    table = open_table(path, ["a"])
    assert table[2] == {"a": 2}
    with pytest.raises(UserError) as caught:
        table[1]
    assert str(caught.value).startswith(f"{path}, row 1 (line 2){message}")


def test_media_by_path(tsv, tmp_path):
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "3.jpg").write_bytes(b"beside the table")
    (tmp_path / "elsewhere/3.jpg").write_bytes(b"in the media root")
    table, rooted = open_table(tsv), open_table(tsv, media_root=tmp_path / "elsewhere")
    assert decode_media(table[3]["4"], table, 3, "4") == b"beside the table"
    assert decode_media("3.jpg", rooted, 3, "4") == b"in the media root"
    assert decode_media(str(tmp_path / "3.jpg"), rooted, 3, "4") == b"beside the table"
    (tmp_path / "elsewhere/3.jpg").unlink()
    assert decode_media("3.jpg", rooted, 3, "4") == b"beside the table"
    assert media_path("3.jpg", rooted, 0) == tmp_path / "3.jpg" and media_path("4.jpg", rooted, 0) is None
    assert pickle.loads(pickle.dumps(rooted)).media_root == tmp_path / "elsewhere"


def test_media_as_base64(tsv):
    table = open_table(tsv)
    standard, safe = base64.b64encode(PIXELS).decode(), base64.urlsafe_b64encode(PIXELS).decode()
    assert "+" in standard and "_" in safe and standard.endswith("=")
    for text in (standard, safe, standard.rstrip("="), safe.rstrip("="), f" {standard} "):
        assert decode_media(text, table, 0, "4") == PIXELS
    assert decode_media(PNG_BASE64, table, 0, "4").startswith(b"\x89PNG")
    large = bytes(3_000_000)
    assert decode_media(base64.b64encode(large).decode(), table, 0, "4") == large


@pytest.mark.parametrize("value", ["missing.jpg", "images/missing", "", "a\0b", "x" * 41, "é" * 3000, "." * 300])
def test_media_that_is_neither(tsv, tmp_path, value):
    table = open_table(tsv, media_root=tmp_path)
    with pytest.raises(UserError) as caught:
        decode_media(value, table, 7, "image")
    message = str(caught.value)
    assert message.startswith(f"{tsv}, row 7 (line 8), column 'image': ")
    assert "is neither a file (searched in" in message and message.endswith("nor base64") and len(message) < 500


def test_media_of_another_type(tsv):
    with pytest.raises(UserError, match=r"column 'image': expected a path or base64 text, got a list"):
        decode_media(["a.jpg"], open_table(tsv), 0, "image")
