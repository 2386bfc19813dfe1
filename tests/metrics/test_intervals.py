"""Intervals and paired tests against what is known of them: normal approximation, bootstrap of whole corpora, exact permutations."""

import itertools
import math

import numpy as np
import pytest

from unival.metrics.score import evaluate, evaluate_rows


def answers(hits):
    """An output that is right in the given rows, and its references."""
    return {i: "yes" if hit else "no" for i, hit in enumerate(hits)}, {i: ["yes"] for i in range(len(hits))}


def test_the_interval_of_a_mean_is_that_of_the_normal_approximation():
    """Of 400 rows a quarter is right: 0.25 +- 1.96 sqrt(0.25 x 0.75 / 400) = 0.25 +- 0.0424."""
    scores = evaluate_rows(*answers([i % 4 == 0 for i in range(400)]), ["exact_match", "accuracy"])
    found = scores.intervals()
    assert list(found) == ["exact_match", "accuracy"] and found["exact_match"] == found["accuracy"]  # the same rows are drawn for all
    low, high = found["exact_match"]
    assert low == pytest.approx(0.25 - 0.0424, abs=0.006) and high == pytest.approx(0.25 + 0.0424, abs=0.006)
    assert scores.intervals(seed=2) != found == scores.intervals()
    narrow = evaluate_rows(*answers([i % 4 == 0 for i in range(1600)]), ["exact_match"]).intervals()["exact_match"]
    assert narrow[1] - narrow[0] == pytest.approx((high - low) / 2, rel=0.15)
    assert evaluate_rows(*answers([True]), ["exact_match"]).intervals(10) == {"exact_match": (1, 1)}


def test_scores_of_corpora_are_computed_anew_for_every_draw():
    """BLEU of the drawn rows as one corpus, by scoring such corpora; not the mean of the rows' own BLEU."""
    words = ["a", "red", "cat", "dog", "sits", "on", "grass", "two"]
    rng = np.random.default_rng(0)
    references = {i: [" ".join(rng.choice(words, 6))] for i in range(12)}
    hypotheses = {i: " ".join(texts[0].split()[: int(rng.integers(2, 7))]) for i, texts in references.items()}
    found = evaluate_rows(hypotheses, references, ["bleu"]).intervals(300)["bleu4"]
    again = []
    for _ in range(300):
        rows = dict(enumerate(rng.integers(0, 12, 12)))
        drawn = {i: hypotheses[row] for i, row in rows.items()}, {i: references[row] for i, row in rows.items()}
        again.append(evaluate(*drawn, ["bleu"])["bleu4"])
    assert found == pytest.approx(np.quantile(again, [0.025, 0.975]), abs=0.04)


def test_the_difference_of_two_outputs():
    """A is right in rows 0 to 4, B in rows 2 to 9: 5 of 10 against 8; 2 rows only A has, 5 only B."""
    a, references = answers([i < 5 for i in range(10)])
    b, _ = answers([i >= 2 for i in range(10)])
    first, second = (evaluate_rows(said, references, ["exact_match"]) for said in (a, b))
    value, (low, high), p = first.differences(second, 4000)["exact_match"]
    assert value == pytest.approx(0.3)
    # Seven rows differ; swapping them gives every sign: the share of the 2^7 with a difference of 3 rows or more, either way
    signs = [abs(sum(sign)) >= 3 for sign in itertools.product((-1, 1), repeat=7)]
    assert p == pytest.approx(sum(signs) / len(signs), abs=0.02)
    # the standard deviation of a mean of 10 differences: 5 x 1, 2 x -1, 3 x 0, whose mean is 0.3
    deviation = math.sqrt((7 / 10 - 0.3**2) / 10)
    assert low == pytest.approx(0.3 - 1.96 * deviation, abs=0.11) and high == pytest.approx(0.3 + 1.96 * deviation, abs=0.11)
    assert second.differences(first, 4000)["exact_match"].value == pytest.approx(-0.3)
    assert first.differences(first)["exact_match"] == (0, (0, 0), 1)
