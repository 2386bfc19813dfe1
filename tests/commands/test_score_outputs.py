"""`unival score` on several outputs: shards of one evaluation, comparisons of two, and submissions to evaluation servers."""

import json
import pathlib
import re

import pytest

from unival.cli import main

README = (pathlib.Path(__file__).resolve().parents[2] / "README.md").read_text(encoding="utf-8")
CAPTIONS = ["a red cat", "a dog", "two birds fly", "a man on a horse"]


def write(folder, name, said):
    file = folder / name
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("".join(f"D-{row}\t-1.5\t{text}\n" for row, text in said.items()))
    return file


@pytest.fixture
def score(tmp_path, capsys):
    """Run the command on a table of four captions; returns the exit code, what it printed and what it said of errors."""
    table = tmp_path / "test.jsonl"
    table.write_text("".join(json.dumps({"id": str(70 + i), "caption": caption}) + "\n" for i, caption in enumerate(CAPTIONS)))

    def run(*arguments, table=table):
        capsys.readouterr()
        code = main(["score", *map(str, arguments), "--table", str(table)])
        printed = capsys.readouterr()
        return code, printed.out, printed.err

    return run


def test_shards_are_one_evaluation(tmp_path, score):
    """Files in any order, or the folder that has them; a row twice, or a row of none, is an error."""
    said = dict(enumerate(["a red cat", "a cat", "two birds", "a man"]))
    whole = write(tmp_path, "whole.txt", said)
    shards = [write(tmp_path, f"out/{i}/generate-test.txt", {row: said[row] for row in (i, i + 2)}) for i in (1, 0)]
    expected = score(whole, "--metrics", "cider,bleu,exact_match")
    assert expected[0] == 0 and "cider" in expected[1]
    for outputs in (shards, [tmp_path / "out"]):
        assert score(*outputs, "--metrics", "cider,bleu,exact_match") == expected
    code, _, said_of = score(shards[0])
    assert code != 0 and "generate-test.txt: not generated: 2 of the table's 4 rows: 0, 2" in said_of
    code, _, said_of = score(*shards, whole)
    assert code != 0 and f"row 0 is in {shards[1]} and in {whole}: expected files that share the rows" in said_of
    (tmp_path / "empty").mkdir()
    code, _, said_of = score(tmp_path / "empty")
    assert code != 0 and "empty: no generate-*.txt in this folder" in said_of


def test_two_outputs_are_compared(tmp_path, score):
    """The worse one first: differences are B minus A, with an interval and a p value that can be worked out for four rows."""
    a = write(tmp_path, "a.txt", dict(enumerate(["a cat", "a cat", "a cat", "a cat"])))
    b = write(tmp_path, "b.txt", dict(enumerate(CAPTIONS)))
    command = ["--compare", a, b, "--metrics", "exact_match,bleu", "--json", tmp_path / "c.json"]
    code, printed, _ = score(*command, "--resamples", "2000")
    assert code == 0
    found = json.loads((tmp_path / "c.json").read_text())
    assert found["a"]["exact_match"] == 0 and found["b"]["exact_match"] == 1 and list(found["a"]) == list(found["differences"])
    difference = found["differences"]["exact_match"]
    # b is right in every row and a in none, so every draw has the difference 1; swapping leaves it at 1 or -1 in 2 of 2^4 ways
    assert difference["value"] == 1 and difference["interval"] == [1, 1] and difference["p"] == pytest.approx(2 / 16, abs=0.025)
    line = f"exact_match  0.0000 -> 1.0000  +1.0000 [+1.0000, +1.0000]  p {difference['p']:.3f}"
    assert printed.splitlines()[0] == line and len(printed.splitlines()) == 5
    bleu = found["differences"]["bleu1"]
    assert bleu["value"] == pytest.approx(found["b"]["bleu1"] - found["a"]["bleu1"])
    assert bleu["interval"][0] <= bleu["value"] <= bleu["interval"][1]
    assert score(*command, "--resamples", "2000")[1] == printed  # seeded
    assert score("--compare", a, a, "--metrics", "exact_match,bleu")[1].count("+0.0000 [+0.0000, +0.0000]  p 1.000") == 5

    partial = write(tmp_path, "partial.txt", {0: "a cat", 3: "a man on a horse"})
    assert score("--compare", a, partial, "--metrics", "exact_match")[0] != 0
    code, printed, said_of = score("--compare", a, partial, "--metrics", "exact_match", "--allow-partial")
    assert code == 0 and printed.startswith("exact_match  0.0000 -> 0.5000  +0.5000 ") and "scoring 2 rows" in said_of


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "expected the output of fairseq-generate: files, a folder of them, or --compare A B"),
        (["c.txt", "--compare", "a.txt", "b.txt"], "c.txt is for one output, not with --compare"),
        (["--compare", "a.txt", "b.txt", "--per-row", "r.json"], "--per-row is for one output, not with --compare"),
        (["--compare", "a.txt", "b.txt", "--resamples", "0"], "--resamples 0: must be 1 or more"),
        (["a.txt", "--resamples", "-1"], "--resamples -1: must be 0 or more"),
        (["a.txt", "--seed", "-1"], "--seed -1: must be 0 or more"),
        (["a.txt", "--metrics", "none"], "--metrics none scores nothing: give metrics, or --submission FORMAT:FILE"),
        (["a.txt", "--submission", "coco"], "--submission 'coco': expected FORMAT:FILE with one of the formats coco (captions of COCO and"),
        (["a.txt", "--submission", "gqa:x.json"], "--submission 'gqa:x.json': expected FORMAT:FILE with one of the formats coco"),
        (["a.txt", "--cider-df", "x.json"], "x.json: document frequencies are for cider_d and spider; the metrics are cider,"),
        (["a.txt", "--metrics", "cider_d", "--cider-df", "x.json"], "x.json: no such file of document frequencies; expected .json, .npz"),
    ],
)
def test_arguments_that_do_not_belong_together(tmp_path, score, arguments, message):
    code, _, said_of = score(*arguments)
    assert code != 0 and message in said_of and said_of.count("\n") == 1


def test_submissions(tmp_path, score):
    """Every format, with ids from the table; the table of a test split has no references."""
    said = dict(enumerate(["a", "b c", "", "d"]))
    output = write(tmp_path, "out.txt", said)
    files = {name: tmp_path / f"{name}.json" for name in ("coco", "nocaps", "vqa", "vizwiz")}
    targets = [argument for name in ("coco", "nocaps", "vqa") for argument in ("--submission", f"{name}:{files[name]}")]
    code, printed, _ = score(output, *targets, "--metrics", "exact_match", "--resamples", "0")
    assert code == 0 and printed == "exact_match  0.0000\n"
    expected = [{"image_id": 70 + row, "caption": text} for row, text in said.items()]
    assert json.loads(files["coco"].read_text()) == json.loads(files["nocaps"].read_text()) == expected
    assert json.loads(files["vqa"].read_text()) == [{"question_id": 70 + row, "answer": text} for row, text in said.items()]

    bare = tmp_path / "bare.jsonl"
    bare.write_text("".join(json.dumps({"image": f"pictures/VizWiz_test_{i:08d}.jpg", "question": "what?"}) + "\n" for i in range(4)))
    command = [output, "--metrics", "none", "--submission", f"vizwiz:{files['vizwiz']}"]
    assert score(*command, "--id-column", "image", "--json", tmp_path / "scores.json", table=bare) == (0, "", "")
    assert json.loads((tmp_path / "scores.json").read_text()) == {}
    expected = [{"image": f"VizWiz_test_{row:08d}.jpg", "answer": text} for row, text in said.items()]
    assert json.loads(files["vizwiz"].read_text()) == expected
    code, _, said_of = score(*command, table=bare)
    assert code != 0 and "row 0 (line 1), column 'id': no such column; the row has 'image', 'question'" in said_of


@pytest.mark.parametrize(
    ("ids", "message"),
    [
        (["7", "8", "7", "9"], "row 2 (line 3), column 'question_id': has the id 7 of row 0; a submission has one answer per question_id"),
        (["7", "x8", "9", "10"], "row 1 (line 2), column 'question_id': question_id must be an integer, got 'x8' (--id-column"),
    ],
)
def test_ids_that_no_server_takes(tmp_path, score, ids, message):
    table = tmp_path / "ids.tsv"
    table.write_text("".join(f"{i}\t{name}\tquestion\n" for i, name in enumerate(ids)))
    output = write(tmp_path, "out.txt", dict(enumerate("abcd")))
    command = [output, "--metrics", "none", "--submission", f"vqa:{tmp_path / 'v.json'}"]
    command += ["--columns", "question_id", "--selected-cols", "1"]
    code, _, said_of = score(*command, "--id-column", "question_id", table=table)
    assert code != 0 and message in said_of and not (tmp_path / "v.json").exists()
    code, _, said_of = score(*command, table=table)
    assert code != 0 and "no column 'id' with the ids (--id-column) among question_id (--columns)" in said_of
    table.write_text("".join(f"{i}\t{i + 100}\tquestion\n" for i in range(4)))
    assert score(*command, "--id-column", "question_id", table=table)[0] == 0
    assert [row["question_id"] for row in json.loads((tmp_path / "v.json").read_text())] == [100, 101, 102, 103]


def test_the_commands_of_the_readme(tmp_path, monkeypatch):
    """As they stand there, on files of these names."""
    commands = re.findall(r"`unival (score [^`]*--table TABLE[^`]*)`", README)
    assert len(commands) == 3
    monkeypatch.chdir(tmp_path)
    for name, rows in {"A": (0, 1), "B": (0, 1), "OUTPUT": (0, 1), "SHARD0": (0,), "SHARD1": (1,)}.items():
        write(tmp_path, name, dict.fromkeys(rows, f"a {name}"))
    (tmp_path / "table.jsonl").write_text("".join(json.dumps({"question_id": i, "caption": "a cat"}) + "\n" for i in range(2)))
    for command in commands:
        assert main(command.replace("TABLE", "table.jsonl").split()) == 0, command
    assert json.loads((tmp_path / "FILE").read_text())[1] == {"question_id": 1, "answer": "a OUTPUT"}
