"""The one road from texts to scores: keys, sums over shards, streaming as in validation, and fairseq-generate's output."""

import pytest

from unival.errors import UserError
from unival.metrics import make_metrics
from unival.metrics.score import evaluate, evaluate_rows, read_generated, sum_statistics

HYPOTHESES = {"x": "a red cat on grass", "y": "a dog", "z": "", "u": "two birds fly over a big house"}
REFERENCES = {
    "x": ["a red cat sits on grass", "a cat"],
    "y": ["a dog", "the brown dog"],
    "z": ["nothing at all"],
    "u": ["birds fly over the house", "two birds fly", "a big house"],
}
NAMES = ["cider", "cider_d", "bleu", "rouge_l", "exact_match"]


def test_sum_over_shards_is_the_whole():
    """What workers see of the table adds up, each worker having fitted on the whole table."""
    expected = evaluate(HYPOTHESES, REFERENCES, NAMES)
    keys = list(HYPOTHESES)
    for cut in range(len(keys) + 1):
        for name, scores in (("cider", ["cider"]), ("bleu", ["bleu1", "bleu2", "bleu3", "bleu4"]), ("rouge_l", ["rouge_l"])):
            shards = []
            for shard in (keys[:cut], keys[cut:]):
                metric = make_metrics([name])[name]
                metric.fit(REFERENCES.values())
                shards.append(sum_statistics(metric.update(HYPOTHESES[key], REFERENCES[key]) for key in shard))
            found = metric.compute(sum_statistics(shards))
            assert found == {score: pytest.approx(expected[score], abs=1e-12) for score in scores}


def test_statistics_of_all_metrics_fit_in_one_dict():
    total = {}
    metrics = make_metrics(NAMES)
    names = []
    for metric in metrics.values():
        metric.fit(REFERENCES.values())
    for key in HYPOTHESES:
        for metric in metrics.values():
            row = metric.update(HYPOTHESES[key], REFERENCES[key])
            names += row
            total = sum_statistics([total, row])
    assert len(set(names)) == len(names) // len(HYPOTHESES)
    found = {}
    for metric in metrics.values():
        found.update(metric.compute(total))
    assert found == pytest.approx(evaluate(HYPOTHESES, REFERENCES, NAMES))


EMPTY = ["", " \t\u3000", "...", "?!", "\u201c\u201d"]


@pytest.mark.parametrize("empty", [*([text] for text in EMPTY), EMPTY], ids=ascii)
def test_references_without_a_word_do_not_count_beside_others(empty, caplog):
    """Before, between and after good ones, whole corpus and rows; a row that has no others is an error, but for exact match."""
    expected = evaluate_rows(HYPOTHESES, REFERENCES, NAMES)
    beside = {key: [*empty, texts[0], *empty, *texts[1:], *empty] for key, texts in REFERENCES.items()}
    found = evaluate_rows(HYPOTHESES, beside, NAMES)
    assert found.total == expected.total and found.rows == expected.rows
    blank = all(not text.strip() for text in empty)
    assert ("references without a letter or digit" in caplog.text) != blank
    alone = {**REFERENCES, "y": empty}
    if blank:
        with pytest.raises(UserError, match="1 row without a list of references: y .blank texts are ignored"):
            evaluate(HYPOTHESES, alone, NAMES)
    else:
        with pytest.raises(UserError, match="^t.tsv, row y: no reference has a letter or digit, and [a-z_]+ compares words: .*leave"):
            evaluate_rows(HYPOTHESES, alone, NAMES, whose="t.tsv, ")
        caplog.clear()
        assert evaluate_rows(HYPOTHESES, alone, ["exact_match"]).rows["y"]["exact_match"] == 0 and "digit" not in caplog.text


def test_rows():
    scores = evaluate_rows(HYPOTHESES, REFERENCES, ["exact_match", "rouge_l", "bleu"])
    assert list(scores.rows) == list(HYPOTHESES)
    assert [row["exact_match"] for row in scores.rows.values()] == [0, 1, 0, 0]
    assert scores.total["exact_match"] == 0.25
    assert scores.total["rouge_l"] == pytest.approx(sum(row["rouge_l"] for row in scores.rows.values()) / 4)
    assert scores.rows["y"]["bleu2"] == pytest.approx(1)


def test_the_corpus_gives_document_frequencies():
    part = {"x": HYPOTHESES["x"]}, {"x": REFERENCES["x"]}
    alone = evaluate_rows(*part, ["cider"]).total["cider"]
    within = evaluate_rows(*part, ["cider"], fit_on=REFERENCES).total["cider"]
    assert alone == 0  # one document: nothing is rare
    assert within == pytest.approx(evaluate_rows(HYPOTHESES, REFERENCES, ["cider"]).rows["x"]["cider"])


@pytest.mark.parametrize(
    "hypotheses, references, message",
    [
        ({}, {}, "nothing to score"),
        ({1: "a", 2: "b"}, {1: ["a"]}, "1 row without references: 2"),
        ({1: "a"}, {i: ["a"] for i in range(1, 9)}, "7 rows without hypothesis: 2, 3, 4, 5, 6, ..."),
        ({1: "a"}, {1: []}, "1 row without a list of references: 1"),
        ({1: "a"}, {1: "a cat"}, "1 row without a list of references: 1"),
    ],
)
def test_keys_must_match(hypotheses, references, message):
    with pytest.raises(UserError, match=message):
        evaluate(hypotheses, references, ["bleu"])


# fairseq-generate's output ----------------------------------------------------------------------------------------

OUTPUT = """\
S-1\twhat does the image describe?
T-1\t464
H-1\t-0.25\t464 3290
D-1\t-0.25\ta dog
P-1\t-0.1 -0.4
H-0\t-0.5\t
D-0\t-0.5\t
2022-01-01 | INFO | D-9 is no output line
D-12\t-1e-3\ta  tab\there
Generate test with beam=5: BLEU4 = 0.00
"""


@pytest.fixture
def write(tmp_path):
    def write(text):
        file = tmp_path / "generate-test.txt"
        file.write_text(text, encoding="utf-8")
        return file

    return write


def test_read_generated(write):
    assert read_generated(write(OUTPUT)) == {1: ("a dog", -0.25), 0: ("", -0.5), 12: ("a  tab\there", -1e-3)}


def test_nbest_takes_the_first(write):
    assert read_generated(write("D-3\t-0.1\tbest\nH-3\t-0.2\t1\nD-3\t-0.2\tsecond\nD-4\t-1\tx\n"))[3] == ("best", -0.1)


@pytest.mark.parametrize(
    "text, message",
    [
        ("", r"generate-test.txt: no line starts with 'D-'; expected the output of fairseq-generate: D-<row>"),
        ("H-1\t-0.25\t464\n", "no line starts with 'D-'"),
        ("D-1\t-0.25\ta\nD-2\tonly text\n", r"line 2: expected D-<row>.*got 'D-2"),
        ("D-x\t-0.25\ta\n", "line 1: expected D-<row>"),
        ("D-1\tbad\ta\n", "line 1: the score 'bad' is not a number"),
        ("D-1\t-1\ta\nD-2\t-1\tb\nD-1\t-1\ta\n", "line 3: row 1 occurs again.*two runs"),
    ],
)
def test_broken_output(write, text, message):
    with pytest.raises(UserError, match=message):
        read_generated(write(text))


def test_missing_output(tmp_path):
    with pytest.raises(UserError, match="none.txt: no such file; expected the output of fairseq-generate"):
        read_generated(tmp_path / "none.txt")
