"""Large JSON files, one element at a time."""

import importlib
import json
import tracemalloc

import pytest

from tests.data_utils.conftest import DATA_UTILS
from unival.errors import UserError

VALUES = [{"a": [1, 2.5e3, -3], "é": "x\\\"y\u2028\U0001f600"}, {}, {"b": {"c": None, "d": [True, False, "]}"]}}, {"n": 1234567890123}]


@pytest.fixture
def stream(monkeypatch):
    monkeypatch.syspath_prepend(str(DATA_UTILS))
    return importlib.import_module("common.json_stream")


@pytest.fixture(params=[1, 2, 3, 7, 1 << 20])
def small(stream, monkeypatch, request):
    """The module with pieces of so many bytes."""
    monkeypatch.setattr(stream, "PIECE", request.param)
    return stream


@pytest.mark.parametrize("indent", [None, 3])
@pytest.mark.parametrize("is_ascii", [True, False])
def test_as_the_json_module_reads_it(small, tmp_path, indent, is_ascii):
    path = tmp_path / "a.json"
    whole = {"info": {"x": [1, {}]}, "list": VALUES, "empty": [], "numbers": [12, 345, -1.5, "x", None], "last": 12}
    path.write_text(json.dumps(whole, indent=indent, ensure_ascii=is_ascii), encoding="utf-8-sig")
    assert [entry.values for entry in small.stream_list(path, "list")] == VALUES
    assert list(small.stream_values(path, "numbers")) == whole["numbers"] and list(small.stream_values(path, "empty")) == []
    assert dict(small.stream_object(path)) == whole
    path.write_text(json.dumps(VALUES, indent=indent, ensure_ascii=is_ascii) + " \n", encoding="utf-8")
    assert [entry.values for entry in small.stream_list(path)] == VALUES
    path.write_text("{}", encoding="utf-8")
    assert dict(small.stream_object(path)) == {}


@pytest.mark.parametrize(
    ("content", "key", "said"),
    [
        ("[{}, {},\n  {]", None, "line 2, character 4: not valid JSON: Expecting property name"),
        ('[{"a": "é"}, {"b": 1}\n {}]', None, "line 2, character 2: not valid JSON: expected ',' or ']'"),
        ("[{}, {}", None, "line 1, character 8: not valid JSON: expected ',' or ']'"),
        ("[{}] {}", None, "line 1, character 6: not valid JSON: Extra data"),
        ("[{}, 3]", None, "a.json, entry 1: expected an object, got 3"),
        ('[{"a": tru', None, "line 1, character 8: not valid JSON: Expecting value"),
        ('{"a": [{}]}', None, "a.json: expected a list, got an object"),
        ("", None, "line 1, character 1: not valid JSON: Expecting value"),
        ('{"a": 5, "b": {}}', "c", "a.json: there is no key 'c'; there are 'a', 'b'"),
        ('{"a": 5}', "a", "a.json, key 'a': expected a list, got 5"),
        ("[1]", "a", "a.json: expected an object, got a list"),
        ('{"a" 5}', "a", "line 1, character 6: not valid JSON: expected ':'"),
        ("{5: 1}", "a", "line 1, character 2: not valid JSON: expected a key in double quotes"),
        (b'["abc\xff"]', None, "a.json: not UTF-8 text (byte 6 of the file)"),
        ("[" * 100_000, None, "a.json: nested too deeply"),
        ("[{}]".encode("utf-16"), None, "looks like UTF-16, not UTF-8"),
    ],
)
def test_what_is_no_json_is_one_line(small, tmp_path, content, key, said):
    path = tmp_path / "a.json"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(UserError) as error:
        list(small.stream_list(path, key))
    assert said in str(error.value) and "\n" not in str(error.value)


def test_memory_is_that_of_an_element(stream, monkeypatch, tmp_path):
    monkeypatch.setattr(stream, "PIECE", 1 << 14)
    path = tmp_path / "a.json"
    element = json.dumps({"regions": [{"phrase": "a small text", "x": i} for i in range(100)]})
    path.write_text(f'{{"before": [{",".join([element] * 100)}], "list": [{",".join([element] * 100)}]}}', encoding="utf-8")
    tracemalloc.start()
    try:
        assert sum(1 for _ in stream.stream_list(path, "list")) == 100
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < path.stat().st_size / 3


def test_an_error_is_found_before_all_is_read(stream, monkeypatch, tmp_path):
    monkeypatch.setattr(stream, "PIECE", 1 << 10)
    path = tmp_path / "a.json"
    path.write_text("[{}, {'a': 1}, " + "{}, " * 50_000 + "{}]", encoding="utf-8")
    read = []
    more = stream._Text._more
    monkeypatch.setattr(stream._Text, "_more", lambda self, size: read.append(size) or more(self, size))
    with pytest.raises(UserError, match="line 1, character 7: not valid JSON: Expecting property name"):
        list(stream.stream_list(path))
    assert sum(read) <= 2 << 10
