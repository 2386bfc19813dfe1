"""`unival score`: joins generated rows with a table's references by row number."""

import argparse
import json
import shutil

import pytest

from unival.commands.score import add_arguments, read_references, run
from unival.errors import UserError
from unival.metrics.score import evaluate, read_generated
from unival.tasks.evaluation import Evaluation

ROWS = [["a red cat", "the cat"], ["a dog"], ["two birds fly"]]
SAID = {2: "two birds", 0: "a red cat", 1: "a dog"}


def score(*arguments):
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    return run(parser.parse_args([str(argument) for argument in arguments]))


@pytest.fixture
def output(tmp_path):
    def write(said=SAID):
        file = tmp_path / "generate-test.txt"
        file.write_text("".join(f"H-{i}\t-1\t1\nD-{i}\t-1.5\t{text}\n" for i, text in said.items()))
        return file

    return write


@pytest.fixture
def table(tmp_path):
    file = tmp_path / "test.jsonl"
    cells = [ROWS[0], *(row[0] for row in ROWS[1:])]  # a list of strings, or one string
    file.write_text("".join(json.dumps({"id": i, "caption": cell}) + "\n" for i, cell in enumerate(cells)))
    return file


def expected(metrics):
    return evaluate(SAID, dict(enumerate(ROWS)), metrics)


def scores_of(file):
    return {name: value for name, value in json.loads(file.read_text()).items() if name != "intervals"}


def test_jsonl(output, table, tmp_path, capsys):
    files = tmp_path / "new" / "scores.json", tmp_path / "rows.json"
    names = ["cider", "bleu", "rouge_l", "exact_match"]
    code = score(output(), "--table", table, "--metrics", ",".join(names), "--json", files[0], "--per-row", files[1])
    assert code == 0
    total = json.loads(files[0].read_text())
    intervals = total.pop("intervals")
    assert total == pytest.approx(expected(names))
    assert total["exact_match"] == pytest.approx(2 / 3)
    rows = json.loads(files[1].read_text())
    assert list(rows) == ["0", "1", "2"] and set(rows["0"]) == set(total)
    assert [rows[i]["exact_match"] for i in "012"] == [1, 1, 0]
    printed = dict(line.split(maxsplit=1) for line in capsys.readouterr().out.splitlines())
    assert printed == {name: "{:.4f} [{:.4f}, {:.4f}]".format(value, *intervals[name]) for name, value in total.items()}
    assert score(output(), "--table", table, "--metrics", ",".join(names), "--json", files[0], "--resamples", "0") == 0
    assert json.loads(files[0].read_text()) == total  # as before there were intervals
    assert dict(line.split() for line in capsys.readouterr().out.splitlines()) == {name: f"{value:.4f}" for name, value in total.items()}


def test_tsv_with_several_references_in_a_cell(output, tmp_path, capsys):
    file = tmp_path / "test.tsv"
    file.write_text("".join(f"{i}\t{i + 7}\t{'&&'.join(row)}\timage\n" for i, row in enumerate(ROWS)))
    target = tmp_path / "scores.json"
    assert score(output(), "--table", file, "--selected-cols", "2", "--metrics", "cider", "--json", target) == 0
    assert scores_of(target) == pytest.approx(expected(["cider"]))
    capsys.readouterr()
    assert score(output(), "--table", file, "--selected-cols", "1,2", "--columns", "id,text", "--json", target) == 0
    assert scores_of(target) == pytest.approx(expected(["cider", "bleu", "rouge_l"]))


def test_rows_that_were_not_generated(output, table, tmp_path, capsys):
    partial = output({1: "a dog"})
    with pytest.raises(UserError, match="not generated: 2 of the table's 3 rows: 0, 2 .*--allow-partial"):
        score(partial, "--table", table)
    target = tmp_path / "scores.json"
    assert score(partial, "--table", table, "--allow-partial", "--metrics", "cider,exact_match", "--json", target) == 0
    assert "scoring 1 row, not 2 of the table that were not generated" in capsys.readouterr().err
    found = json.loads(target.read_text())
    assert found["exact_match"] == 1
    assert found["cider"] == pytest.approx(5.0)  # frequencies come from the whole table: of the row alone it would be 0


def test_rows_of_another_table(output, table):
    with pytest.raises(UserError, match="not in the table, which has 3 rows: 1 generated row, 3; is it the table"):
        score(output({**SAID, 3: "x"}), "--table", table)
    with pytest.raises(UserError, match="not in the table, which has 3 rows: 2 generated rows"):
        score(output({7: "x", 8: "y"}), "--table", table, "--allow-partial")


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["--columns", "text"], "text"),
        (["--metrics", "cider,"], "metrics 'cider,': empty name; choose from cider"),
        (["--metrics", "cider,bleurt"], "unknown metric 'bleurt', did you mean 'bleu'"),
        (["--box-threshold", "50"], "^--box-threshold 50: must be an intersection over union .IoU., above 0 and at most 1"),
        (["--tokenizer", "moses"], "unknown tokenizer 'moses'; choose from python, ptb"),
    ],
)
def test_wrong_names(output, table, arguments, message):
    with pytest.raises(UserError, match=message):
        score(output(), "--table", table, *arguments)


def test_a_file_that_cannot_be_written(output, table, tmp_path):
    with pytest.raises(UserError, match="scores.json: cannot be written"):
        score(output(), "--table", table, "--json", table / "scores.json")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [(["--metrics", "meteor"], "METEOR needs Java"), (["--tokenizer", "ptb"], "tokenizer needs Java"), (["--json", "."], "is a folder")],
)
def test_what_is_missing_is_said_before_anything_is_read(monkeypatch, tmp_path, arguments, message):
    monkeypatch.setattr(shutil, "which", lambda name: None)
    with pytest.raises(UserError, match=message):
        score(tmp_path / "no output", "--table", tmp_path / "no table", *arguments)


def test_empty_references_are_counted_and_left_out(output, tmp_path, caplog):
    clean, file = tmp_path / "clean.tsv", tmp_path / "test.tsv"
    clean.write_text("a cat&&one cat\na dog\ntwo birds\n")
    file.write_text("a cat&&&&one cat&&\na dog&& \ntwo birds\n")
    assert read_references(file, ["0"]) == read_references(clean, ["0"])
    assert f"{file}: ignoring 3 empty references" in caplog.text
    file.write_text("a cat\n && \ntwo birds\n")
    with pytest.raises(UserError, match="row 1 .line 2., column '0': a reference must not be empty"):
        read_references(file, ["0"])


def test_cells_without_text(output, tmp_path):
    file = tmp_path / "test.jsonl"
    file.write_text("".join(json.dumps({"caption": cell}) + "\n" for cell in ("a", 5, "c")))
    with pytest.raises(UserError, match="row 1 .line 2., column 'caption': expected a string"):
        score(output(), "--table", file)


ODD_LINES = {
    "a row of 5,000 digits": ("D-" + "9" * 5000 + "\t-1\tx", "expected D-<row>.*in digits 0 to 9"),
    "a row in other digits": ("D-\u0660\t-1\tx", "expected D-<row>.*in digits 0 to 9"),
    "a negative row": ("D--1\t-1\tx", "expected D-<row>.*in digits 0 to 9"),
    "no text": ("D-1\t-1", "expected D-<row>.*got 'D-1.*-1'$"),
    "a score that is none": ("D-1\tgood\tx", "the score 'good' is not a number"),
    "lines of old Macs": ("D-1\t-1\tx\rD-2\t-1\ty", "rows end with a carriage return alone; convert them: tr"),
    "lines of old Macs that begin otherwise": ("S-1\tx\rT-1\tx\rD-1\t-1\ty", "rows end with a carriage return alone; convert them: tr"),
}


@pytest.mark.parametrize("kind", ODD_LINES)
def test_odd_lines_of_an_output(tmp_path, kind):
    line, said = ODD_LINES[kind]
    file = tmp_path / "odd.txt"
    file.write_bytes(f"D-0\t-1\ta\n{line}\n".encode())
    with pytest.raises(UserError, match=f"odd.txt, line 2: {said}") as caught:
        read_generated(file)
    assert len(str(caught.value)) < 500


@pytest.mark.parametrize("lone", ["#", "...", "-", "\u2605", "?!&&-"])
def test_rows_whose_references_have_no_word(output, tmp_path, lone, caplog):
    """Refused by whatever scores words, as validation does (see test_evaluate), and said of this row alone."""
    file = tmp_path / "test.tsv"
    file.write_text(f"a red cat&&!\n{lone}\ntwo birds\n")
    arguments = ["--table", file, "--selected-cols", "0"]
    with pytest.raises(UserError, match=r"test.tsv, row 1 \(line 2\), column 'caption': no reference has a letter"):
        score(output(), *arguments, "--metrics", "exact_match,rouge_l")
    assert score(output(), *arguments, "--metrics", "exact_match") == 0 and not caplog.text
    with pytest.raises(UserError, match="^valid: row 1: no reference has a letter or digit"):
        Evaluation(["cider"], {}, "{}", 0).fit("valid", list(read_references(file, ["0"]).values()))


@pytest.mark.parametrize("metric", ["exact_match", "accuracy", "vqa_score"])
def test_answers_that_no_reference_has_are_named(output, tmp_path, caplog, metric):
    """A score of 0 since labels have other names; not where a row has the answer of another."""
    file = tmp_path / "labels.tsv"
    for labels, warns in ((("for", "against", "for"), True), (("no", "yes", "for"), False)):
        file.write_text("".join(f"{label}\n" for label in labels))
        caplog.clear()
        assert score(output({0: "yes", 1: "no", 2: "maybe"}), "--table", file, "--selected-cols", "0", "--metrics", metric) == 0
        said = f"{metric} is 0: no generated text ('yes', 'no', 'maybe') is a reference of any row ('for', 'against')"
        assert (said in caplog.text) == warns
