"""What validation chooses, worked out by hand; and the points of a path."""

import pytest
import torch

from unival.checkpoints.merging.inputs import Checkpoint
from unival.checkpoints.merging.points import points_of
from unival.commands.barrier import said_of_relation
from unival.errors import UserError
from unival.tasks.sweeping.choice import choices
from unival.tasks.sweeping.results import Result
from unival.tasks.sweeping.table import Measured


def results(part, table, metric, scores):
    measured = {point: Measured({metric: score}, {}, [], []) for point, score in scores.items()}
    return [Result(table, part, point, "lambda", None, {}, each, metric) for point, each in measured.items()]


def test_choices():
    """By score (higher is better) and by loss (lower); together by the mean share of the best: 1 and 1/2, 3/4 and 4/5, 1/4 and 1."""
    valid = [
        *results("valid", "captions", "cider", {"0": 0.8, "0.5": 0.6, "1": 0.2}),
        *results("valid", "answers", "loss", {"0": 4.0, "0.5": 2.5, "1": 2.0}),
    ]
    test = [
        *results("test", "captions", "cider", {"0": 0.1, "0.5": 0.9, "1": 0.2}),
        *results("test", "answers", "loss", {"0": 1.0, "0.5": 5.0, "1": 3.0}),
        *results("test", "others", "cider", {"0": 0.1, "0.5": 0.3, "1": 0.2}),
    ]
    captions, answers, together = choices(valid + test)
    assert (captions.point, answers.point, together.point) == ("0", "1", "0.5"), "the best in the test are others"
    assert together.said == "77.5% of the best scores on average"
    assert [test.score for test in captions.tests] == [0.1] and [test.score for test in answers.tests] == [3.0]
    assert [test.score for test in together.tests] == [0.9, 5.0, 0.3]
    equal = results("valid", "captions", "cider", {"0": 0.0, "1": 0.0})
    assert [choice.point for choice in choices(equal)] == ["0"], "of equal ones the first; no table to test on"
    assert choices(test) == []


def test_points_of_three_models_share_a_whole():
    points = points_of("linear", 3, {}, sweep="0:1:0.5")
    assert [point.name for point in points] == ["0,0,1", "0,0.5,0.5", "0,1,0", "0.5,0,0.5", "0.5,0.5,0", "1,0,0"]
    assert all(sum(point.coefficients) == 1 and point.value is None for point in points)
    assert [point.coefficients for point in points_of("linear", 2, {}, sweep="0,0.25")] == [[1, 0], [0.75, 0.25]]
    scaled = points_of("task_arithmetic", 3, {}, sweep="0.5,2")
    assert [(point.options, point.coefficients) for point in scaled] == [({"scale": 0.5}, [1, 1, 1]), ({"scale": 2}, [1, 1, 1])]
    with pytest.raises(UserError, match="--points 0.4: no 3 of these values have the sum 1"):
        points_of("linear", 3, {}, sweep="0.4", option="--points")
    with pytest.raises(UserError, match="--sweep takes the place of --scale; give one of them"):
        points_of("ties", 3, {"scale": 0.5}, sweep="0.4")


@pytest.mark.parametrize(
    ("names", "other", "said"),
    [
        (("a.pt", "a.pt"), 1.0, "both record that their training started from a.pt (its name is recorded, not its content)"),
        (("a.pt", "b.pt"), 1.0, "their trainings started from files of different names, a.pt and b.pt; "),
        (("a.pt", "checkpoint_last.pt"), 1.0, "no common ancestor is recorded in the checkpoints; "),
        ((None, None), 0.0, "they do not share one pretraining, as far as weights can show: their matrices have a cosine of 0.000"),
    ],
)
def test_what_is_said_of_a_common_pretraining(names, other, said):
    """The second model's matrix is the first one's, or orthogonal to it."""
    matrices = torch.eye(2), torch.eye(2) if other else torch.eye(2).flip(0)
    models = [
        Checkpoint(str(name), {"cfg": {"checkpoint": {"restore_file": name}}}, {"encoder.layers.0.fc1.weight": matrix})
        for name, matrix in zip(names, matrices, strict=True)
    ]
    lines = list(said_of_relation(*models))
    assert any(line.startswith(said) for line in lines)
    assert ("they share one pretraining, as far as weights can show" in lines[-1]) == (other == 1.0)
