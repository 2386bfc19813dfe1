"""Answers with weights: every form of a cell, and what is no answer."""

import pytest

from unival.answers import answers_of, plain_answer, weights_of
from unival.errors import UserError

PUBLISHED = "0.6|!+red&&1.0|!+two cats&&0.3|!+no"
TEN = ["red", "blue", "red", "", "red", "blue", "green", "red", "red", "blue"]


@pytest.mark.parametrize("cell", [PUBLISHED, {"red": 0.6, "two cats": 1, "no": 0.3}])
@pytest.mark.parametrize("is_joined", [True, False])
def test_weights_that_are_written(cell, is_joined):
    answers = answers_of(cell, is_joined)
    assert list(answers.weights.items()) == [("red", 0.6), ("two cats", 1.0), ("no", 0.3)]
    assert answers.texts == PUBLISHED.split("&&") and answers.blank == 0
    assert weights_of(answers.texts) == answers.weights
    assert [plain_answer(text) for text in answers.texts] == ["red", "two cats", "no"]


def test_annotators_give_the_published_soft_scores():
    answers = answers_of(TEN, False)
    assert answers.weights == {"red": 1.0, "blue": 0.9, "green": 0.3} and answers.blank == 1
    assert answers.texts == TEN  # in order, the repeated and the blank ones too: an annotator who says nothing is one of ten
    assert weights_of(answers.texts) == answers.weights
    assert answers_of(["red"], False).weights == weights_of(["red"]) == {"red": 1.0}  # nobody else was asked
    assert answers_of(["red", ""], False).weights == {"red": 0.3}
    assert answers_of(["a", "b", "a"], True).weights == {"a": 0.6, "b": 0.3}


def test_a_plain_answer_has_weight_one():
    assert answers_of("red", False).weights == {"red": 1.0} and answers_of("red", False).texts == ["1.0|!+red"]
    assert answers_of("a&&b", False).weights == {"a&&b": 1.0}
    assert answers_of("a&&b&&", True).weights == {"a": 1.0, "b": 1.0} and answers_of("a&&b&&", True).blank == 1
    assert answers_of("0.5|!+&&.3|!+x", True).weights == {"x": 0.3}
    assert answers_of("0.3|!+x&&0.9|!+y&&1.0|!+x", True).weights == {"x": 1.0, "y": 0.9}  # the later weight, as in the original


@pytest.mark.parametrize(
    "cell,said",
    [
        ("0.6|!+red&&two cats", r"'two cats': expected weight\|!\+answer"),
        ("much|!+red", r"'much\|!\+red': expected weight"),
        ("1_0|!+red", "expected weight"),
        ("1.5|!+red", "'red' has the weight 1.5: expected a number from 0 to 1"),
        ("-0.1|!+red&&1|!+no", "'red' has the weight -0.1"),
        ({"red": "1"}, "'red' has the weight '1'"),
        ({"red": True}, "'red' has the weight True"),
        ({"red": float("nan")}, "weight nan"),
        ("0|!+red&&0.0|!+no", "all answers have the weight 0"),
        ({}, "must not be empty"),
        ("", "must not be empty"),
        ("1.0|!+ ", "must not be empty"),
        (["", " "], "must not be empty"),
        (["0.3|!+red"], "'0.3|!.red' in a list: lists hold plain answers"),
        (["red", 3], "expected a string or a list of strings"),
        (3, "expected answers .*, got a number"),
        ({"a\0": 1.0}, "NUL"),
        (["a\ud800"], "surrogate"),
    ],
)
def test_what_is_no_answer(cell, said):
    with pytest.raises(UserError, match=said):
        answers_of(cell, True)
