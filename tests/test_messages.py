"""Messages about numbers of things: the noun follows the number."""

import ast
import re

import pytest

from tests.test_structure import ROOT
from unival.errors import counted, kind_of, unknown

THINGS = (
    "row|text|file|key|weight|update|answer|reference|token|line|column|name|shard|byte|character|candidate|process|process(es)|"
    "question|option|value|layer|head|epoch|hypothes[ie]s|difference|label|number"
).replace("process(es)", "processe")
NUMBERED = re.compile(rf" (?:[a-z]+ )?(?:{THINGS})s\b")


def is_count(value: ast.AST) -> bool:
    """Whether a part of a message is a length, or a number with thousands separated, but no constant."""
    inner = value.value if isinstance(value, ast.FormattedValue) else None
    spec = value.format_spec if isinstance(value, ast.FormattedValue) else None
    is_length = isinstance(inner, ast.Call) and isinstance(inner.func, ast.Name) and inner.func.id == "len"
    is_constant = isinstance(inner, ast.Name) and inner.id.isupper()
    return is_length or (isinstance(spec, ast.JoinedStr) and ast.unparse(spec) == "f','" and not is_constant)


def uncounted(source: str) -> list[str]:
    """Messages of a source in which a plural follows a number whatever it is."""
    tree, found = ast.parse(source), []
    internal = {id(node) for each in ast.walk(tree) if isinstance(each, ast.Assert) for node in ast.walk(each)}
    for node in (node for node in ast.walk(tree) if id(node) not in internal):
        if isinstance(node, ast.JoinedStr):
            pairs = zip(node.values, node.values[1:], strict=False)
            found += [ast.unparse(node) for a, b in pairs if is_count(a) and isinstance(b, ast.Constant) and NUMBERED.match(str(b.value))]
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and re.search(rf"%d{NUMBERED.pattern}", node.value):
            found.append(node.value)
    return found


def test_no_message_counts_one_rows():
    assert uncounted('f"{len(a)} rows"; f"{n:,} bad rows of {m}"; log("%d texts", n)') != []
    sources = [path for folder in ("unival", "data_utils", "run_scripts") for path in (ROOT / folder).rglob("*.py")]
    found = {path.relative_to(ROOT).as_posix(): uncounted(path.read_text(encoding="utf-8")) for path in sources}
    assert {path: messages for path, messages in found.items() if messages} == {}


def test_words_of_messages():
    assert [counted(n, "row") for n in (0, 1, 1204)] == ["0 rows", "1 row", "1,204 rows"]
    assert counted(2, "process", "processes") == "2 processes"
    kinds = {None: "null", True: "true", 3: "a number", 0.5: "a number", "": "a string", (): "a value of type tuple"}
    assert [kind_of(value) for value in (*kinds, [], {})] == [*kinds.values(), "a list", "an object"]


@pytest.mark.parametrize(("name", "said"), [("lor", ", did you mean 'lora'? There are lora, prefix"), ("x", "; choose from lora, prefix")])
def test_unknown_names(name, said):
    assert unknown("--peft", name, ["lora", "prefix"]) == f"unknown --peft {name!r}{said}"
