"""Metrics of answers against rows worked out by hand from the official VQA rules, and the weights of answers in every form of a cell."""

import json

import pytest

from unival.cli import main
from unival.errors import UserError
from unival.metrics import make_metrics
from unival.metrics.accuracy import clean
from unival.metrics.score import evaluate
from unival.metrics.vqa import CONTRACTIONS, process
from unival.tasks.evaluation import Evaluation


def score(name, hypothesis, references):
    metric = make_metrics([name])[name]
    return metric.compute(metric.update(hypothesis, references))[name]


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        # Leave one out: of ten annotators, n gave the answer. Those n see n - 1 others who gave it, the 10 - n others see n.
        (0, 0.0),
        (1, (1 * 0 + 9 * 1 / 3) / 10),  # 0.3
        (2, (2 * 1 / 3 + 8 * 2 / 3) / 10),  # 0.6
        (3, (3 * 2 / 3 + 7 * 1) / 10),  # 0.9
        (4, 1.0),  # all see at least three
        (9, 1.0),
        (10, 1.0),
    ],
)
def test_accuracy_leaves_one_annotator_out(given, expected):
    assert score("vqa_accuracy", "red", ["red"] * given + ["blue"] * (10 - given)) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        ("Two", "2"),  # lower case, number words
        ("none", "0"),
        ("eleven", "eleven"),  # only up to ten
        ("A man on the horse", "man on horse"),  # articles
        ("dont", "don't"),
        ("she'dve", "she'd've"),
        ("couldnt've", "couldn't've"),
        ("shes", "shes"),  # not in the official list, and neither are these
        ("ill", "ill"),
        ("somebody'd", "somebodyd"),  # an official slip, kept: published scores have it
        ("red/white", "red white"),  # a mark becomes a space
        ("red / white", "red white"),  # beside a space it goes: "red  white"
        ("u-turn", "u turn"),
        ("well-known, old", "well known old"),  # "," is beside a space and goes; "-" is not and becomes a space
        ("100,978", "100978"),  # a comma between digits joins
        ("100,978 red/white", "100978 redwhite"),  # and then every mark of the answer joins
        ("yes.", "yes"),
        ("3.", "3"),  # the rule's look behind for a digit is misspelled: only a digit after the period keeps it
        ("3.5", "3.5"),
        (".5", ".5"),
        ("u.s.a", "usa"),
        ("." * 40 + "x", "." * 8 + "x"),  # only 32 periods go: a flag stands where the official code has the count
        ("girl's", "girl's"),  # apostrophes and colons stay
        ("2:50 pm", "2:50 pm"),
        ('"stop"!', "stop"),
        ("the", ""),
    ],
)
def test_official_processing(answer, expected):
    assert process(answer) == expected


def test_contractions():
    """One apostrophe is missing; the official list has these 114 in lower case that change anything."""
    assert len(CONTRACTIONS) == 114
    assert CONTRACTIONS["yall'd've"] == CONTRACTIONS["y'alld've"] == CONTRACTIONS["y'all'dve"] == "y'all'd've"
    assert CONTRACTIONS["ow's'at"] == CONTRACTIONS["'ow'sat"] == "'ow's'at" and CONTRACTIONS["twas"] == "'twas"
    assert not {"id", "im", "ive", "ill", "well", "shell", "shed", "wed", "lets", "its"} & set(CONTRACTIONS)


def test_answers_are_processed_only_where_annotators_differ():
    """All ten say "Two": compared as written, "two" misses. One of them differs: both sides are processed, and 9 agree."""
    assert score("vqa_accuracy", "two", ["Two"] * 10) == 0.0
    assert score("vqa_accuracy", " Two\n", ["Two\t"] * 10) == 1.0  # white space at the ends is removed before
    assert score("vqa_accuracy", "2", ["Two"] * 9 + ["a pair"]) == 1.0
    # "a cat." and "the cat" are "cat" once processed: 2 of 10, which 8 others see in full and the two of them by one: 0.6
    assert score("vqa_accuracy", "Cat", ["a cat.", "the cat", *["dog"] * 8]) == pytest.approx(0.6)
    # a row as VQAv2 has them: 4 x "net", 3 x "netting", 2 x "mesh", 1 x "pitcher"
    answers = ["net", "net", "net", "netting", "net", "netting", "mesh", "pitcher", "netting", "mesh"]
    found = [score("vqa_accuracy", said, answers) for said in ("net", "netting", "the mesh", "pitcher", "ball")]
    assert found == pytest.approx([1, 0.9, 0.6, 0.3, 0])


def test_annotators_answers_are_counted_as_candidate_answers_are_written():
    """Three say two in one way or another, 0.9; weights that are written are of the answer as it is written."""
    answers = ["two", "2", "a 2.", "three", *["many"] * 6]
    found = [score("vqa_score", said, answers) for said in ("2", "two", "Three", "3", "many", "a")]
    assert found == pytest.approx([0.9, 0.9, 0.3, 0.3, 1, 0])
    assert [score("vqa_score", said, ["0.9|!+2", "0.3|!+three"]) for said in ("2", "two", "Three", "3")] == [0.9, 0, 0.3, 0]
    assert score("vqa_score", "2", ["two"]) == score("vqa_score", "2", ["1.0|!+two"]) == 0


def test_an_annotator_who_says_nothing_is_one_of_ten():
    """Eight say "red", two nothing: as answers they are there, and are what an empty text is compared with."""
    references = [*["red"] * 8, "", " "]
    found = evaluate(dict(enumerate(["red", ""])), dict.fromkeys(range(2), references), ["vqa_accuracy", "vqa_score", "accuracy"])
    assert found == {"vqa_accuracy": pytest.approx((1 + 0.6) / 2), "vqa_score": 0.5, "accuracy": 0.5}


@pytest.mark.parametrize("references", [["red"] * 9, ["red"] * 11, ["1.0|!+red"] * 10, ["1.0|!+red"]])
def test_accuracy_refuses_rows_without_ten_answers(references):
    """Before anything is scored, in validation as well, and with the row."""
    rows = {"q1": ["red"] * 10, "q2": references}
    with pytest.raises(UserError, match="^row q2: vqa_accuracy needs a list of the answers of 10 annotators.*: use vqa_score or accuracy"):
        evaluate(dict.fromkeys(rows, "red"), rows, ["vqa_accuracy"])
    with pytest.raises(UserError, match="^valid: row 1: vqa_accuracy needs .*[(]the value is .'.*red'"):
        Evaluation(["vqa_accuracy"], {}, "{}", 0).fit("valid", list(rows.values()))


def test_words_are_not_compared_with_weights():
    with pytest.raises(UserError, match=r"row 1: '1.0|!\+red' has a weight, and cider compares texts: use vqa_score or accuracy"):
        evaluate({1: "red"}, {1: ["1.0|!+red"]}, ["vqa_score", "cider"])


# one row in the forms that a cell may have: red by 3 of 4 annotators, dark red by 1
CELLS = ["0.3|!+dark red&&0.9|!+red", {"dark red": 0.3, "red": 0.9}, ["red", "dark red", "red", "red"]]


@pytest.mark.parametrize("name", ["published", "object", "list"])
def test_the_weight_of_the_answer_in_every_form_of_a_cell(tmp_path, capsys, name):
    cell = dict(zip(["published", "object", "list"], CELLS, strict=True))[name]
    (tmp_path / "t.jsonl").write_text("".join(json.dumps({"answer": cell}) + "\n" for _ in range(4)))
    (tmp_path / "g.txt").write_text("".join(f"D-{i}\t-1\t{said}\n" for i, said in enumerate(["red", "Dark  red", "blue", ""])))
    arguments = ["score", str(tmp_path / "g.txt"), "--table", str(tmp_path / "t.jsonl"), "--columns", "answer"]
    assert main([*arguments, "--metrics", "vqa_score,accuracy", "--json", str(tmp_path / "s.json")]) == 0
    found = json.loads((tmp_path / "s.json").read_text())
    assert (found["vqa_score"], found["accuracy"]) == (pytest.approx((0.9 + 0.3) / 4), 0.5)
    assert main([*arguments, "--metrics", "vqa_accuracy"]) != 0
    said = capsys.readouterr().err
    assert "t.jsonl, row 0 (line 1), column 'answer': vqa_accuracy needs a list of the answers of 10 annotators" in said
    assert "(the value is ['" in said and "red'" in said
    assert main([*arguments, "--metrics", "exact_match"]) == (0 if name == "list" else 1)
    assert name == "list" or "with weights, where a metric compares texts: use vqa_score or accuracy" in capsys.readouterr().err
    assert main([*arguments, "--metrics", "vqa_score,cider"]) != 0
    assert "vqa_score compares answers, cider texts: score them one after the other" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("said", "answer", "expected"),
    [
        ("yes", "entailment", 1.0),  # what published models say for the labels of SNLI-VE
        ("maybe", "neutral", 1.0),
        ("no", "contradiction", 1.0),
        ("entailment", "yes", 1.0),
        ("no", "neutral", 0.0),
        ("Playing-Guitar.", "playing guitar", 1.0),
        ("playing guitar", "play guitar", 0.0),
        ("", "man", 0.0),
    ],
)
def test_accuracy_of_short_answers(said, answer, expected):
    assert score("accuracy", said, [f"1.0|!+{answer}"]) == score("accuracy", said, [answer, "another"]) == expected
    assert score("accuracy", said, [f"0.0|!+{answer}", "1.0|!+another"]) == 0.0
    assert clean(clean(said)) == clean(said)
