"""Outputs from hypotheses."""

import math

import pytest
import torch

from unival.generation.outputs import Output, make_output, reject, text_of, with_answer_scores


def test_hypotheses_become_an_output_and_its_alternatives():
    """Without the end of sentence; what a closed set has no answer for is left out; all that decoding says is kept."""
    beams = [
        {"tokens": torch.tensor([7, 8, 2]), "score": torch.tensor(-0.5)},
        {"tokens": torch.tensor([9, 2]), "score": torch.tensor(-1.5)},
        {"tokens": torch.tensor([2]), "score": torch.tensor(-float("inf"))},
    ]
    found = make_output(beams, lambda ids: {"text": str(ids), "box": (1.0, 2.0, 3.0, float(ids[0]))}, eos=2)
    other = Output("[9, 2]", -1.5, (9,), box=(1.0, 2.0, 3.0, 9.0))
    assert found == Output("[7, 8, 2]", -0.5, (7, 8), (other,), (1.0, 2.0, 3.0, 7.0))
    assert make_output(beams[:1], lambda ids: {"text": "", "codes": (3,)}, eos=2) == Output("", -0.5, (7, 8), codes=(3,))


def hypothesis(*scores: float, lenpen: float = 1.0) -> dict:
    """Of so many tokens, with the score that search gives."""
    tokens = torch.tensor([*range(7, 6 + len(scores)), 2])
    return {"tokens": tokens, "score": torch.tensor(sum(scores) / len(scores) ** lenpen), "positional_scores": torch.tensor(scores)}


@pytest.mark.parametrize("lenpen", [0.0, 0.6, 1.0])
def test_rows_whose_best_answer_scores_too_low_have_none(lenpen):
    """A box cannot be made of nothing, and is not asked for; the score stays that of the best hypothesis."""

    def decode(ids: list[int]) -> dict:
        assert ids, "nothing to decode"
        return {"text": f"box {len(ids)}", "box": (0.0, 0.0, 1.0, 1.0)}

    low, high, next_best = hypothesis(-1.0, -3.0, -2.0, lenpen=lenpen), hypothesis(-1.0, -2.0, lenpen=lenpen), hypothesis(-9.0, -9.0)
    below = -4.5 / 2.4**lenpen  # between the two
    scored = with_answer_scores([[low, next_best], [high, next_best]], [0, 0], lenpen)
    rows = reject(scored, below)
    none, answer = (make_output(beams, decode, eos=2) for beams in rows)
    score = pytest.approx(float(low["score"]))
    assert none == Output("", score, rejected=True, answer_score=score)
    assert answer.text == "box 2" and not answer.rejected and len(answer.alternatives) == 1
    assert [[text_of(beam, decode) for beam in beams] for beams in rows] == [[""], ["box 2", "box 2"]]
    assert not len(rows[0][0]["positional_scores"])
    again = reject(scored, -math.inf)
    assert [[text_of(beam, decode) for beam in beams] for beams in again] == [["box 3", "box 2"], ["box 2", "box 2"]]


def test_a_given_prefix_does_not_count_when_answers_are_rejected():
    """Search scores it too: the same answer behind an unlikely question is not less sure."""
    unlikely = {**hypothesis(-1.0, -1.0), "score": torch.tensor(-5.0)}
    (kept,), (rejected,) = (reject(with_answer_scores([[unlikely]], [3], 1.0), below) for below in (-1.5, -0.5))
    assert make_output(kept, lambda ids: {"text": "a"}, eos=2).answer_score == -1.0
    assert len(kept[0]["tokens"]) == 2 and len(rejected[0]["tokens"]) == 0
    assert float(rejected[0]["score"]) == -5.0
