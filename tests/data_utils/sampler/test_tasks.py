"""Tables of tasks from sampler data: what is right is true of the objects, and what is asked otherwise is answered otherwise."""

import importlib
import json
import pathlib
import re

import pytest

from data_utils.sampler.relations import RELATIONS, relation
from data_utils.sampler.tasks import TASKS, UNTOLD, empty_questions, guesses
from unival.metrics.score import read_generated

DATA_UTILS = pathlib.Path(__file__).resolve().parents[3] / "data_utils"


@pytest.fixture
def make(monkeypatch, tmp_path):
    """Runs the command for a task; returns its exit code and the folder."""
    monkeypatch.syspath_prepend(str(DATA_UTILS))
    command = importlib.import_module("sampler_tasks")

    def run(data, task, *flags):
        return command.main(["--data", str(data), "--task", task, "--out", str(tmp_path / task), *flags]), tmp_path / task

    return run


def rows(folder, split):
    return [json.loads(line) for line in (folder / f"{split}.jsonl").read_text(encoding="utf-8").splitlines()]


def scenes(built, split="test"):
    return {record["image"]: record for record in rows(built, split)}


def others(test, changed, asked, reference):
    """What is really right for the rows that ask otherwise."""
    right = {(row["image"], row[asked]): row[reference] for row in test}
    return [(row[reference], right[row["image"], row[asked]]) for row in changed]


def test_a_row_of_train_per_image(built, make):
    _, out = make(built, "vqa")
    plain, test = rows(out, "train"), rows(out, "test")
    code, out = make(built, "vqa", "--row-per-file")
    grouped = rows(out, "train")
    assert code == 0 and rows(out, "test") == test and len(grouped) < len(plain)
    assert len({row["image"] for row in plain}) == len(grouped)
    made = [(row["image"], *pair) for row in grouped for pair in zip(row["question"], row["answer"], strict=True)]
    assert sorted(made) == sorted((row["image"], row["question"], row["answer"]) for row in plain)


def test_questions(built, make):
    code, out = make(built, "vqa")
    test, swapped, changed = rows(out, "test"), rows(out, "test_other_media"), rows(out, "test_other_text")
    known = {(record["image"], asked["question"], asked["answer"]) for record in rows(built, "test") for asked in record["questions"]}
    assert code == 0 and {(row["image"], row["question"], row["answer"]) for row in test} <= known
    texts = [(row["id"], row["question"], row["answer"]) for row in test]
    assert [(row["id"], row["question"], row["answer"]) for row in swapped] == texts
    assert all(row["image"] != other["image"] for row, other in zip(test, swapped, strict=True))
    assert len(changed) > 50 and all(one != other for one, other in others(test, changed, "question", "answer"))
    assert {row["answer"] for row in rows(out, "train")} == set((out / "answers.txt").read_text().splitlines())
    assert not any(row["question"] == "how many objects are there?" for row in test), "there are always two"


def test_regions(built, make):
    _, out = make(built, "grounding", "--test-rows", "10")
    test = rows(out, "test")
    assert len(test) == 10 and not (out / "answers.txt").exists()
    for row in test:
        assert {"name": row["text"], "box": row["box"]} in scenes(built)[row["image"]]["objects"]
    assert all(one != other for one, other in others(test, rows(out, "test_other_text"), "text", "box"))


def test_statements(built, make):
    """Each is judged again by the objects alone, and no form of it has one label only."""
    _, out = make(built, "entailment")
    test, forms = rows(out, "test"), set()
    for row in test:
        said, things = row["hypothesis"], {thing["name"]: thing["box"] for thing in scenes(built)[row["image"]]["objects"]}
        there = re.fullmatch("there is an? (.*)", said)
        stands = re.fullmatch(f"the (.*) is ({'|'.join(RELATIONS)}) the (.*)", said)
        if there:
            right = "yes" if there[1] in things else "no"
        elif stands:
            right = "yes" if relation(things[stands[1]], things[stands[3]]) == stands[2] else "no"
        else:
            subject = re.fullmatch(f"the (.*) (?:{'|'.join(UNTOLD)})", said)[1]
            right = "maybe" if subject in things else "no"
        forms.add((bool(there), bool(stands), right))
        assert row["label"] == right, said
    assert len(forms) == 6
    assert all(one != other for one, other in others(test, rows(out, "test_other_text"), "hypothesis", "label"))
    assert (out / "answers.txt").read_text().split() == ["yes", "maybe", "no"]


def test_guesses_follow_the_question_but_not_the_image(built, make):
    _, out = make(built, "vqa")
    said = read_generated(out / "guesses-test.txt")
    test = rows(out, "test")
    assert len(said) == len(test)
    boxes = [{"text": "pear", "box": [0, 0, 2, 4]}, {"text": "pear", "box": [2, 2, 4, 6]}]
    assert guesses(TASKS["grounding"], boxes, boxes[:1], ["pear"]) == ["1.00,1.00,3.00,5.00"]
    asked = [("is there a pear?", "yes"), ("is there an apple?", "yes"), ("is there a fig?", "no"), ("what is it?", "pear")]
    train = [{"question": question, "answer": answer} for question, answer in asked]
    wanted = [{"question": "is there a fig?"}, {"question": "what is it?"}, {"question": "where?"}]
    assert guesses(TASKS["vqa"], train, wanted, ["pear", "apple", "fig"]) == ["yes", "pear", "yes"]
    assert guesses(TASKS["audio_caption"], [{"caption": ["a", "b"]}, {"caption": ["a"]}], [{}], []) == ["a"]
    assert empty_questions(TASKS["vqa"], train[:1] * 30 + train[1:]) == {"is there a pear?"}


def test_what_cannot_be_made_is_one_line(built, make, tmp_path, capsys):
    assert make(tmp_path, "vqa")[0] == 2 and "is not sampler data" in capsys.readouterr().err
    assert make(built, "video_qa")[0] == 2
    assert "--task video_qa is about video, which these rows do not have" in capsys.readouterr().err
