"""`unival validate-data`: every bad row is explained, with its media decoded, in one process or several."""

import copy
import json
import os

import pytest

from tests import tiny
from tests.tasks.pretraining import material
from unival.cli import main

SMALL = ("--patch-image-size", "32")
CAPTION = "[IMAGE:image] what? -> [TEXT:caption]"


@pytest.fixture
def table(tmp_path):
    """Ten rows, of which the last four are good."""
    path = tiny.write_table(tmp_path, rows=10)
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    image = tmp_path / rows[0]["image"]
    image.write_bytes(image.read_bytes()[:200])
    rows[1]["image"] = "images/nothing.png"
    rows[2]["caption"] = ["", " "]
    rows[3]["caption"] = {"a dog": 1}
    del rows[4]["image"]
    rows[6]["caption"] = ["a " * 40, ""]
    lines = [json.dumps(row) for row in rows]
    lines[5] = '{"id": 5,'
    path.write_text("\n".join(lines) + "\n")
    return path


@pytest.mark.parametrize("workers", ["0", "2"])
def test_every_bad_row_is_explained(table, capsys, tmp_path, workers):
    out = tmp_path / "deep" / "found.json"
    flags = ("--instruction", CAPTION, *SMALL, "--workers", workers, "--json", str(out))
    assert main(["validate-data", str(table), *flags]) == 1
    *lines, last = capsys.readouterr().out.splitlines()
    wanted = [
        "row 0 (line 1), column 'image' (images/train.jsonl-0.png): cannot decode",
        "row 1 (line 2), column 'image': 'images/nothing.png' is neither a file",
        "row 2 (line 3), column 'caption': a reference must not be empty (the value is ['', ' '])",
        "row 3 (line 4), column 'caption': expected a string or a list of strings, got an object (the value is {'a dog': 1})",
        "row 4 (line 5), column 'image': no such column",
        "row 5 (line 6), character",
    ]
    assert len(lines) == len(wanted)
    for line, start in zip(lines, wanted, strict=True):
        assert line.startswith(f"{table}, {start}"), line
    assert last == (
        f"{table}: 6 bad rows of 10: 3 in column 'image', 2 in column 'caption', 1 in the row itself;"
        " 1 text cut to the limit; 1 empty reference ignored beside others"
    )
    found = json.loads(out.read_text())
    assert (found["rows"], found["truncated"], found["empty"], found["outside"]) == (10, 1, 1, 0)
    assert [(bad["row"], bad["line"], bad["column"]) for bad in found["bad"]] == [
        *((0, 1, "image"), (1, 2, "image"), (2, 3, "caption"), (3, 4, "caption"), (4, 5, "image"), (5, 6, None)),
    ]
    assert [bad["value"] for bad in found["bad"]][1:] == ["'images/nothing.png'", "['', ' ']", "{'a dog': 1}", None, None]
    assert all(line.startswith(bad["message"]) for line, bad in zip(lines, found["bad"], strict=True))


def test_a_good_table_of_a_task_in_the_published_layout(tmp_path, capsys):
    (tmp_path / "media").mkdir()
    rows = [json.loads(line) for line in tiny.write_table(tmp_path / "media", rows=2).read_text().splitlines()]
    table = tmp_path / "train.tsv"
    table.write_text("".join(f"{i}\tx\t{row['caption'][0]}\t\t{row['image']}\n" for i, row in enumerate(rows)))
    command = ["validate-data", str(table), "--task", "unival_caption", *SMALL, "--workers", "0"]
    assert main([*command, "--media-root", str(tmp_path / "media")]) == 0
    assert capsys.readouterr().out == f"{table}: 2 rows can be read\n"
    columns = ("--columns", "id,caption,image", "--selected-cols", "0,2,4")
    assert main([*command, *columns]) == 1
    assert "2 bad rows of 2: 2 in column 'image'" in capsys.readouterr().out


def test_alternatives_and_boxes(tmp_path, capsys):
    """Rows are read through each alternative; a box is checked against its own image."""
    path = tiny.write_table(tmp_path, rows=4)  # images of 48 x 40
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    for row, box in zip(rows, ([0, 0, 48, 40], [5, 5, 5, 9], [0, 0, 10, 10], [0, 0, 60, 40]), strict=True):
        row["box"] = box
    del rows[2]["caption"]
    path.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    instruction = "[IMAGE:image] where? -> [BOX:box] ||| [IMAGE:image] which is [TEXT:caption]? -> [BOX:box]"
    assert main(["validate-data", str(path), "--instruction", instruction, *SMALL, "--workers", "0"]) == 1
    *lines, last = capsys.readouterr().out.splitlines()
    assert "row 1 (line 2), column 'box'" in lines[0] and "row 2 (line 3), column 'caption': no such column" in lines[1]
    assert "row 3 (line 4), column 'box': box 0,0,60,40 is not within its image, which has 48 x 40 pixels" in lines[2]
    assert last == f"{path}: 3 bad rows of 4: 2 in column 'box', 1 in column 'caption'"


def test_answers_that_are_no_candidates(tmp_path, capsys):
    path = tiny.write_table(tmp_path, rows=3)
    cells = ({"red": 0.3, "a blue circle": 1}, ["red"] * 3 + ["green"] * 7, "red")
    lines = zip(path.read_text().splitlines(), cells, strict=True)
    rows = [{**json.loads(line), "question": "what?", "answer": cell} for line, cell in lines]
    path.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    (tmp_path / "answers.txt").write_text("red\ngreen\n")
    command = ["validate-data", str(path), "--task", "unival_vqa", "--closed-set", str(tmp_path / "answers.txt"), *SMALL, "--workers", "0"]
    assert main(command) == 0
    said = "1 row with an answer to learn that is no candidate (--train calls it bad)"
    assert capsys.readouterr().out == f"{path}: 3 rows can be read; {said}\n"
    assert main([*command, "--train"]) == 1
    line, last = capsys.readouterr().out.splitlines()
    assert line.startswith(f"{path}, row 0 (line 1), column 'answer': 'a blue circle' is none of the 2 candidate answers (the value is {{")
    assert last == f"{path}: 1 bad row of 3: 1 in column 'answer'"


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        ((), "give --instruction"),
        (("--task", "unival_captions"), "unknown --task 'unival_captions', did you mean 'unival_caption'? There are unival, "),
        (("--task", "unival_caption", "--workers", "-1"), "--workers -1: must be 0 or more"),
        (("--task", "unival_caption", "--patch-image-size", "0"), "--patch-image-size is 0"),
        (("--instruction", "[IMAGE:photo] what? -> [TEXT:caption]"), "no column 'photo'"),
        (("--instruction", "[IMAGE:image] what? -> [TEXT:caption,closed_set]"), "give --closed-set FILE"),
        (("--task", "unival_caption", "--json", f"{os.devnull}/x"), "cannot be written"),
    ],
)
def test_what_is_wrong_with_the_command_is_one_line(tmp_path, capsys, flags, said):
    path = tiny.write_table(tmp_path, rows=1)
    assert main(["validate-data", str(path), *flags]) == 1
    shown = capsys.readouterr().err.splitlines()[-1]
    assert shown.startswith("unival: error: ") and said in shown


def test_a_builder_and_a_mixture_are_read_as_training_reads_them(tmp_path, capsys):
    """Every table of every stream once, by its builder, those of validation by the instruction that is scored."""
    material.write_tables(tmp_path)
    rows = [json.loads(line) for line in (tmp_path / "captions.jsonl").read_text().splitlines()]
    rows[2]["caption"], rows[3]["objects"] = [], 5
    (tmp_path / "wrong.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    task, flags = ("--task", "unival_caption"), (*SMALL, "--workers", "0")
    assert main(["validate-data", str(tmp_path / "wrong.jsonl"), *task, *flags]) == 1
    assert capsys.readouterr().out.count(", row ") == 1, "read without the builder, no objects are wrong"
    assert main(["validate-data", str(tmp_path / "wrong.jsonl"), *task, "--builder", "caption_and_matching", *flags]) == 1
    first, second, last = capsys.readouterr().out.splitlines()
    assert "row 2 (line 3)" in first and "row 3 (line 4)" in second and "'objects'" in second and "2 bad rows of 6" in last
    content = copy.deepcopy(material.CURRICULUM)
    content["streams"]["captions"] |= {"table": ["wrong.jsonl", "more.jsonl"], "builder": "caption_and_matching"}
    del content["streams"]["captions"]["preset"]
    content["options"]["patch_image_size"] = 32
    file, found = material.write_mixture(tmp_path, content), tmp_path / "found.json"
    assert main(["validate-data", str(file), "--workers", "0", "--json", str(found)]) == 1
    lines = capsys.readouterr().out.splitlines()
    keys = ("captions.table", "captions.valid", "questions.table", "texts.table", "questions.valid")
    names = [f"{file}: streams.{key}" for key in keys]
    assert [line.split(": ")[1] for line in lines if "streams." in line] == [name.split(": ")[1] for name in names]
    assert lines[:2] == [first, second] and lines[2].startswith(f"{names[0]}: 2 bad rows of 9")
    tables = json.loads(found.read_text())["tables"]
    assert [(each["table"], len(each["bad"])) for each in tables] == [*((name, 2 if name == names[0] else 0) for name in names)]
    assert main(["validate-data", str(file), "--stage", "c"]) == 1 and "--stage c: no such stage" in capsys.readouterr().err
    assert main(["validate-data", str(file), "--builder", "caption"]) == 1
    assert f"--builder is for one table: {file} says it for every stream" in capsys.readouterr().err
    assert main(["validate-data", str(tmp_path / "wrong.jsonl"), "--stage", "a"]) == 1 and "is no mixture file" in capsys.readouterr().err
