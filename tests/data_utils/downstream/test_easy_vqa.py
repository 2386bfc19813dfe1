"""The builder of easy-VQA's tables."""

import pytest

from unival.data.builders.grouped import grouped
from unival.data.table import open_table

QUESTION = "[IMAGE:image] [TEXT:question] -> [TEXT:question,no_loss] [TEXT:answer]"
TRAIN = [["what shape is it?", "circle", 20], ["is it red?", "no", 21], ["is it  blue?", "no", 21], ["is it red?", "yes", 41]]


def test_easy_vqa(build, source, media):
    files = {"answers.txt": "circle\nyes\nno", "train/questions.json": TRAIN, "test/questions.json": [["is it red?", "yes", 20]]}
    source(**files)
    root = media("train/images/20.png", "train/images/21.png", "test/images/20.png")
    built = build("easy_vqa", "--media-root", root, sizes={"train": 3, "valid": 1, "test": 1})
    assert built.code == 1 and "train: 1 row without a file left out, such as train/images/41.png" in built.text
    assert built.rows("train") == [
        {"id": f"train-{number}", "image": "train/images/21.png", "question": question, "answer": "no"}
        for number, question in ((1, "is it red?"), (2, "is it blue?"))
    ]
    assert [row["id"] for row in built.rows("valid")] == ["train-0"], "every twentieth image of the official training split"
    assert built.rows("test") == [{"id": "test-0", "image": "test/images/20.png", "question": "is it red?", "answer": "yes"}]
    assert built.answers == ["circle", "yes", "no"]
    assert [example.references for example in built.read("train", QUESTION, root)] == [["no"], ["no"]]
    assert "the data set has 9,673" in build("easy_vqa", "--force").text


def test_a_row_of_train_per_image(build, source):
    """The examples that `--builder grouped` makes of it are those of the plain table."""
    source(**{"answers.txt": "circle\nyes\nno", "train/questions.json": [*TRAIN, ["how?", "circle", 21]], "test/questions.json": TRAIN[:1]})
    plain = build("easy_vqa").rows("train")
    built = build("easy_vqa", "--row-per-file", "--force")
    assert built.rows("train") == [
        {
            "id": "train/images/21.png",
            "image": "train/images/21.png",
            "question": ["is it red?", "is it blue?", "how?"],
            "answer": ["no", "no", "circle"],
        },
        {"id": "train/images/41.png", "image": "train/images/41.png", "question": ["is it red?"], "answer": ["yes"]},
    ]
    made = [record for row in built.rows("train") for _, record in grouped(row, open_table(built.out / "train.jsonl"), None)]
    same = ("image", "question", "answer")
    assert sorted([record[key] for key in same] for record in made) == sorted([row[key] for key in same] for row in plain)
    assert [row["question"] for row in built.rows("valid")] == ["what shape is it?"]
    assert "4 rows as lists of 2 rows, 2 image files" in built.text


@pytest.mark.parametrize(
    ("questions", "said"),
    [
        ({}, "train/questions.json: expected a list of [question, answer, image]"),
        ([["is it red?", "no"]], "questions.json, entry 0: expected [question, answer, image]"),
        ([*TRAIN, ["is it red?", "maybe", 1]], "entry 4, key 'answer': expected one of circle, yes, no, got 'maybe'"),
        ([[" ", "no", 1]], "entry 0, key 'question': expected a text that is not empty, got ' '"),
    ],
)
def test_a_broken_file_is_one_line(build, source, questions, said):
    source(**{"answers.txt": "circle\nyes\nno\n", "train/questions.json": questions})
    built = build("easy_vqa")
    assert built.code == 2 and built.error.count("\n") == 1 and said in built.error
