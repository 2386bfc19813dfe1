"""METEOR and SPICE: through their programs where those are, in words where they are not."""

import copy
import importlib.util
import itertools
import json
import sys

import pytest

from unival.errors import UserError
from unival.metrics import make_metrics
from unival.metrics import meteor as meteor_module
from unival.metrics import spice as spice_module
from unival.metrics.score import sum_statistics
from unival.metrics.spice import read_scores
from unival.metrics.tokenize import tokenize


@pytest.fixture(scope="module")
def meteor(java):
    """METEOR, whose program takes seconds to start."""
    return make_metrics(["meteor"])["meteor"]


@pytest.mark.slow
def test_meteor(meteor):
    rows = [
        ("a man rides a horse", ["a man rides a horse", "someone"]),  # identical: 1
        ("zebra", ["a man rides a horse"]),  # nothing in common: 0
        ("", ["a man rides a horse"]),
        ("a person riding horses ||| x", ["a man rides a horse"]),  # stems and synonyms count; the separator is no word
    ]
    statistics = [meteor.update(*row) for row in rows]
    same, nothing, empty, similar = (meteor.compute(row)["meteor"] for row in statistics)
    assert same == pytest.approx(1.0)
    assert nothing == empty == 0.0
    assert 0.1 < similar < 0.9
    whole = meteor.compute(sum_statistics(statistics))["meteor"]
    assert whole != pytest.approx((same + nothing + empty + similar) / 4, abs=1e-3)  # no mean of the rows


METEOR_ROWS = {
    "perfect": ("a man rides a horse", ["a man rides a horse"]),
    "perfect for one of several": ("two dogs run", ["a cat", "two dogs run", "two dogs run away"]),
    "one word": ("horse", ["horse"]),
    "one word of several": ("horse", ["the horse"]),
    "same stems": ("horses riding", ["horse rides"]),
    "same words in another order": ("the horse a man rides", ["a man rides the horse"]),
    "perfect in two chunks": ("on grass a dog", ["a dog on grass"]),
    "partial": ("a man on a horse in the sun", ["a man rides a horse", "someone rides in the sun"]),
    "nothing in common": ("zebra", ["a man rides a horse"]),
    "empty": ("", ["a man rides a horse"]),
    "numbers and marks": ("2 men, 1 horse.", ["2 men, 1 horse!", "2 men"]),
}


@pytest.mark.slow
def test_meteor_of_a_corpus_is_the_programs_own(meteor):
    """Every pair of kinds of rows, all rows, and the rows twice over: what the program says of the list, from sums in any grouping."""
    from pycocoevalcap.meteor.meteor import Meteor

    program = Meteor()
    statistics = {name: meteor.update(*row) for name, row in METEOR_ROWS.items()}
    names = list(METEOR_ROWS)
    corpora = [*itertools.combinations_with_replacement(names, 2), names, names * 2, names[:1] * 5, names[2:3] * 3]
    for corpus in corpora:
        truth = {i: [" ".join(tokenize(text)) for text in METEOR_ROWS[name][1]] for i, name in enumerate(corpus)}
        said = {i: [" ".join(tokenize(METEOR_ROWS[name][0]))] for i, name in enumerate(corpus)}
        theirs, their_rows = program.compute_score(truth, said)
        rows = [statistics[name] for name in corpus]
        assert [meteor.compute(row)["meteor"] for row in rows] == pytest.approx(their_rows, abs=1e-12), corpus
        assert meteor.compute(sum_statistics(rows))["meteor"] == pytest.approx(theirs, abs=1e-12), corpus
        shards = [sum_statistics(rows[start::2]) for start in range(2)]
        assert meteor.compute(sum_statistics(shards))["meteor"] == pytest.approx(theirs, abs=1e-12), corpus
    twice = sum_statistics([statistics["perfect"]] * 2)
    assert meteor.compute(twice)["meteor"] == 1.0


@pytest.mark.parametrize("name", ["meteor", "spice"])
def test_without_java(pycocoevalcap, monkeypatch, name):
    monkeypatch.setenv("PATH", "")
    with pytest.raises(UserError, match=f"{name.upper()} needs Java.*apt-get install default-jre-headless") as error:
        make_metrics([name])
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("name", ["meteor", "spice"])
def test_without_pycocoevalcap(monkeypatch, name):
    monkeypatch.setattr(importlib.util, "find_spec", lambda package: None)
    with pytest.raises(UserError, match=f"{name.upper()} needs pycocoevalcap: pip install pycocoevalcap==1.2"):
        make_metrics([name])


@pytest.fixture
def programs(tmp_path, monkeypatch):
    """A folder of jars and a `java` that is a Python script: `programs(body)` writes the script."""
    (tmp_path / "lib").mkdir()
    monkeypatch.setattr(spice_module, "java_program", lambda purpose, relative: tmp_path / "program.jar")
    monkeypatch.setattr(meteor_module, "java_program", lambda purpose, relative: tmp_path / "program.jar")

    def write(body, models=True):
        script = tmp_path / "java"
        script.write_text(f"#!{sys.executable}\nimport json, sys\n{body}")
        script.chmod(0o755)
        monkeypatch.setenv("PATH", str(tmp_path))
        if models:
            for name in spice_module.MODELS:
                (tmp_path / "lib" / name).touch()

    return write


def test_spice_without_models_says_where_to_get_them(programs):
    programs("", models=False)
    with pytest.raises(UserError, match="SPICE needs stanford-corenlp-3.6.0.jar and .*lib.*Stanford CoreNLP 3.6.0"):
        make_metrics(["spice"])


def test_spice_asks_for_all_rows_at_once(programs):
    # a stand-in: a row scores the number of its references / 10
    programs("""
source, target = sys.argv[sys.argv.index("-jar") + 2], sys.argv[sys.argv.index("-out") + 1]
rows = json.load(open(source))
assert [row["test"] for row in rows] == ["a cat", "two dogs"], rows
answer = [{"image_id": row["image_id"], "scores": {"All": {"f": len(row["refs"]) / 10}}} for row in reversed(rows)]
json.dump(answer, open(target, "w"))
""")
    spice = make_metrics(["spice"])["spice"]
    statistics = spice.update_all([("A cat.", ["x", "y"]), ("Two dogs", ["z", "u", "v", "w"])])
    assert [spice.compute(row)["spice"] for row in statistics] == [0.2, 0.4]
    assert spice.compute(sum_statistics(statistics)) == {"spice": pytest.approx(0.3)}


def test_spider_is_the_mean_of_both(programs):
    """The stand-in's SPICE of a row is 0.2; CIDEr-D is that of this name. A copy for another split has its own frequencies."""
    programs("""
source, target = sys.argv[sys.argv.index("-jar") + 2], sys.argv[sys.argv.index("-out") + 1]
json.dump([{"image_id": row["image_id"], "scores": {"All": {"f": 0.2}}} for row in json.load(open(source))], open(target, "w"))
""")
    rows = [("a cat", ["a cat"]), ("two dogs", ["a dog"])]
    metrics = make_metrics(["spider", "cider_d"])
    for metric in metrics.values():
        metric.fit([references for _, references in rows])
    of_other_split = copy.copy(metrics["spider"])
    of_other_split.fit([["a"]])
    cider = [metrics["cider_d"].score(*row) for row in rows]
    statistics = metrics["spider"].update_all(rows)
    assert [metrics["spider"].compute(row)["spider"] for row in statistics] == pytest.approx([(value + 0.2) / 2 for value in cider])
    assert metrics["spider"].update(*rows[0]) == statistics[0] and cider[0] > 1
    assert of_other_split.score(*rows[0]) == pytest.approx(0.1)


def test_spider_without_spice(programs):
    programs("", models=False)
    with pytest.raises(UserError, match="SPIDEr is the mean of CIDEr-D and SPICE; SPICE needs stanford-corenlp.* or leave spider out"):
        make_metrics(["spider"])


@pytest.mark.parametrize("name", ["spice", "meteor"])
def test_a_program_that_fails_is_quoted(programs, name):
    programs("sys.exit('out of luck')")
    metric = make_metrics([name])[name]
    with pytest.raises(UserError, match=f"{name.upper()}'s Java program failed with exit code 1: out of luck"):
        metric.update("a cat", ["a cat"])


def test_spice_answer_must_be_whole():
    answer = [{"image_id": 0, "scores": {"All": {"f": 0.5}}}]
    assert read_scores(json.dumps(answer), 1) == [0.5]
    with pytest.raises(AssertionError, match="expected scores of 2 rows, got 1"):
        read_scores(json.dumps(answer), 2)
