"""Every metric written in Python against values worked out by hand."""

import math

import pytest

from unival.errors import UserError
from unival.metrics import METRICS, MetricOptions, make_metrics
from unival.metrics.score import sum_statistics

# Two documents: "a" is in both (idf log 2/2 = 0), every other n-gram in one (idf log 2).
TABLE = [["a cat"], ["a dog"]]


def score(name, hypothesis, references, table=TABLE):
    metric = make_metrics([name])[name]
    metric.fit(table)
    return metric.compute(metric.update(hypothesis, references))


@pytest.mark.parametrize("name", ["cider", "cider_d"])
@pytest.mark.parametrize(
    "hypothesis, references, expected",
    [
        # cosine 1 for orders 1 and 2; there are no n-grams of orders 3 and 4: 10 (1 + 1 + 0 + 0) / 4
        ("a cat", ["a cat"], 5.0),
        # order 1: "a" weighs nothing, "cat" matches: cosine 1; order 2: none. One word less: x exp(-1 / (2 x 36))
        ("cat", ["a cat"], 10 / 4 * math.exp(-1 / 72)),
        # order 1: clipped min(2 w, w) w / (2 w x w) = 1/2; order 2: "cat cat" matches nothing
        ("cat cat", ["a cat"], 10 / 4 * 0.5),
        # the mean over references: 5 and 0 ("a" weighs nothing)
        ("a cat", ["a cat", "a dog"], 2.5),
        # unknown words weigh as if in one document: cosine (w w) / (sqrt(2) w x w)
        ("cat zebra", ["a cat"], 10 / 4 / math.sqrt(2)),
        ("", ["a cat"], 0.0),
        ("a a a", ["a cat"], 0.0),
    ],
)
def test_cider(name, hypothesis, references, expected):
    assert score(name, hypothesis, references) == {name: pytest.approx(expected, abs=1e-12)}


def test_cider_weighs_rare_words_more():
    table = [["red cat"], ["red dog"], ["blue dog"], ["green bird"]]
    rare, common = (score("cider", word, ["red bird"], table)["cider"] for word in ("bird", "red"))
    # idf of "bird" log 4, of "red" log 4/2 = half of it; norms of the reference sqrt(1 + 1/4)
    assert rare == pytest.approx(2.5 * math.exp(-1 / 72) / math.sqrt(1.25))
    assert common == pytest.approx(rare / 2)


def test_cider_needs_fit():
    with pytest.raises(AssertionError, match="fit"):
        make_metrics(["cider"])["cider"].update("a", ["a"])


@pytest.mark.parametrize(
    "hypothesis, references, expected",
    [
        # unigrams: "the" and "cat" clipped to 1 each: 2/4; bigrams: "the cat" clipped to 1: 1/3; lengths 4 > 3: no penalty
        ("the cat the cat", ["the cat sat", "a cat"], [1 / 2, math.sqrt(1 / 6), 0, 0]),
        # all match, 2 words against 4: penalty exp(1 - 4/2)
        # (coco-caption counts 0 of 0 trigrams as 1e-15 / 1e-9: 1e-6 to the power of 1/3, and twice so to that of 1/4)
        ("the cat", ["the cat sat down"], [math.exp(-1), math.exp(-1), math.exp(-1) * 1e-2, math.exp(-1) * 1e-3]),
        # references of 1 and 3 words are equally close to 2: the shorter counts, so no penalty; "cat" matches: 1/2
        ("red cat", ["cat", "one big cat"], [1 / 2, 0, 0, 0]),
        ("one two three four five", ["one two three four five"], [1, 1, 1, 1]),
        # 4/5, 3/4, 2/3, 1/2 n-grams match; roots of their running products
        ("one two three four six", ["one two three four five"], [0.8, 0.6**0.5, 0.4 ** (1 / 3), 0.2**0.25]),
        ("", ["the cat"], [0, 0, 0, 0]),
    ],
)
def test_bleu(hypothesis, references, expected):
    found = score("bleu", hypothesis, references)
    assert list(found) == ["bleu1", "bleu2", "bleu3", "bleu4"]
    assert list(found.values()) == pytest.approx(expected, abs=1e-5)  # an order without a match is not quite 0


def test_bleu_sums_counts_not_scores():
    bleu = make_metrics(["bleu"])["bleu"]
    rows = [bleu.update("one two", ["one two"]), bleu.update("three four five", ["six four seven eight"])]
    total = {name: rows[0][name] + rows[1][name] for name in rows[0]}
    # matches (2 + 1) of (2 + 3) words; lengths 5 against 6: penalty exp(1 - 6/5); bigrams 1 of 1 + 2
    expected = math.exp(-0.2) * 3 / 5
    assert bleu.compute(total)["bleu1"] == pytest.approx(expected)
    assert bleu.compute(total)["bleu2"] == pytest.approx(math.exp(-0.2) * math.sqrt(3 / 5 * 1 / 3))


@pytest.mark.parametrize(
    "hypothesis, references, expected",
    [
        # common "the cat sat": precision 3/4, recall 3/4
        ("the cat sat here", ["the big cat sat"], 0.75),
        # precision 1, recall 1/2: 2.44 x 0.5 / (0.5 + 1.44)
        ("cat", ["the cat", "dog sits"], 1.22 / 1.94),
        # precision 2/3 from the first, recall 1 from the second: 2.44 x 2/3 / (1 + 1.44 x 2/3)
        ("red cat runs", ["red cat on grass mat", "runs"], (2.44 * 2 / 3) / 1.96),
        # order counts: of "dog sees cat" and "cat sees dog" only one word stays in order
        ("dog sees cat", ["cat sees dog"], 1 / 3),
        ("bird", ["the cat"], 0.0),
        ("", ["the cat"], 0.0),
    ],
)
def test_rouge_l(hypothesis, references, expected):
    assert score("rouge_l", hypothesis, references) == {"rouge_l": pytest.approx(expected, abs=1e-12)}


@pytest.mark.parametrize(
    "hypothesis, references, expected",
    [
        ("A  Cat ", ["a dog", "a cat"], 1.0),
        ("a cat.", ["a cat"], 0.0),
        ("", ["a cat"], 0.0),
        ("ΣΊΣΥΦΟΣ", ["σίσυφος"], 1.0),
    ],
)
def test_exact_match(hypothesis, references, expected):
    assert score("exact_match", hypothesis, references) == {"exact_match": expected}


def test_boxes():
    """IoU with the better of two references: 1, 1/2 (10 x 10 and 10 x 20), 1/3 (half of each of two 10 x 10), 0; no box (rejected): 0."""
    references = ["0,0,10,10", "100,100,110,110"]
    said = ["100,100,110,110", "0,0,10,20", "5,0,15,10", "20,20,30,30", ""]
    for threshold, hits in ((None, 2), (0.3, 3), (0.51, 1)):
        options = MetricOptions() if threshold is None else MetricOptions(box_threshold=threshold)
        metric = make_metrics(["box_accuracy"], options=options)["box_accuracy"]
        rows = [metric.update(box, references) for box in said]
        assert [metric.compute(row)["mean_iou"] for row in rows] == pytest.approx([1, 0.5, 1 / 3, 0, 0])
        assert metric.compute(sum_statistics(rows)) == {"box_accuracy": hits / 5, "mean_iou": pytest.approx((1.5 + 1 / 3) / 5)}
    with pytest.raises(UserError, match="box_threshold 50: must be an intersection over union .IoU., above 0 and at most 1"):
        MetricOptions(box_threshold=50.0)


def test_unknown_metric_names_the_others():
    with pytest.raises(UserError, match="'bleurt', did you mean 'bleu'. There are " + ", ".join(METRICS)):
        make_metrics(["cider", "bleurt"])


def test_names_are_the_metrics_own():
    for name, metric in METRICS.items():
        assert metric.name == name
    keys = [key for metric in METRICS.values() for key in metric.keys]
    assert len(set(keys)) == len(keys) and set(keys) & set(METRICS) == set(METRICS) - {"bleu"}
