"""Agreement with coco-caption: on random sentences to 1e-9, and with scores that others published."""

import json

import numpy as np
import pytest

from unival.metrics.score import evaluate, evaluate_rows
from unival.metrics.tokenize import tokenize

# coco-caption's README for its own results file, and what pycocoevalcap 1.2 measures on it.
PUBLISHED = {"bleu1": 0.579, "bleu2": 0.404, "bleu3": 0.279, "bleu4": 0.191, "rouge_l": 0.396, "cider": 0.600}
PUBLISHED_METEOR = 0.195
MEASURED = {"bleu1": 0.5794, "bleu2": 0.4044, "bleu3": 0.2785, "bleu4": 0.1908, "rouge_l": 0.3963, "cider": 0.5998}
WORDS = ["a", "the", "red", "blue", "cat", "dog", "bird", "man", "sits", "stands", "on", "under", "near", "grass", "two"]


def random_corpus(rows=60, seed=0):
    """Hypotheses and references, some of them close, some empty."""
    rng = np.random.default_rng(seed)

    def sentence(shortest):
        return " ".join(rng.choice(WORDS, size=rng.integers(shortest, 13)))

    references = {i: [sentence(1) for _ in range(rng.integers(1, 6))] for i in range(rows)}
    hypotheses = {}
    for i, texts in references.items():
        words = texts[0].split()
        words[rng.integers(len(words))] = str(rng.choice(WORDS))
        hypotheses[i] = " ".join(words) if rng.random() < 0.6 else sentence(0)
    hypotheses[0] = ""
    return hypotheses, references


@pytest.mark.parametrize("seed", [0, 1])
def test_random_sentences(pycocoevalcap, seed):
    from pycocoevalcap.bleu.bleu import Bleu
    from pycocoevalcap.cider.cider import Cider
    from pycocoevalcap.rouge.rouge import Rouge

    hypotheses, references = random_corpus(seed=seed)
    ours = evaluate_rows(hypotheses, references, ["cider", "cider_d", "bleu", "rouge_l"])
    truth = {i: [" ".join(tokenize(text)) for text in texts] for i, texts in references.items()}
    said = {i: [" ".join(tokenize(text))] for i, text in hypotheses.items()}
    theirs, their_rows = {}, {}
    theirs["cider"], their_rows["cider"] = Cider().compute_score(truth, said)
    theirs["rouge_l"], their_rows["rouge_l"] = Rouge().compute_score(truth, said)
    bleu, bleu_rows = Bleu(4).compute_score(truth, said, verbose=0)
    for n in range(4):
        theirs[f"bleu{n + 1}"], their_rows[f"bleu{n + 1}"] = bleu[n], bleu_rows[n]
    assert 0.1 < theirs["cider"] < 9 and 0.1 < theirs["bleu4"] < 0.9
    for name, value in theirs.items():
        assert ours.total[name] == pytest.approx(float(value), abs=1e-9), name
        assert [row[name] for row in ours.rows.values()] == pytest.approx(list(map(float, their_rows[name])), abs=1e-9)
    assert ours.total["cider_d"] == ours.total["cider"]


@pytest.fixture(scope="module")
def fakecap(shared, coco_captions):
    """Captions of coco-caption's example results and their references."""
    file = shared / "fixtures" / "captions_val2014_fakecap_results.json"
    if not file.is_file():
        pytest.skip(f"needs {file.name}")
    hypotheses = {row["image_id"]: row["caption"] for row in json.loads(file.read_text())}
    return hypotheses, {i: coco_captions[i] for i in hypotheses}


def test_published_scores(fakecap):
    hypotheses, references = fakecap
    assert len(hypotheses) == 1000
    found = evaluate(hypotheses, references, ["bleu", "rouge_l", "cider"])
    assert {name: round(value, 3) for name, value in found.items()} == PUBLISHED
    assert {name: round(value, 4) for name, value in found.items()} == MEASURED


@pytest.mark.slow
def test_published_scores_with_java(fakecap, java):
    """The PTB tokenizer and METEOR, against pycocoevalcap's own METEOR as well."""
    from pycocoevalcap.meteor.meteor import Meteor

    hypotheses, references = fakecap
    found = evaluate(hypotheses, references, ["bleu", "rouge_l", "cider", "meteor"], tokenizer="ptb")
    assert {name: round(value, 3) for name, value in found.items()} == {**PUBLISHED, "meteor": PUBLISHED_METEOR}
    truth = {i: [" ".join(tokenize(text)) for text in texts] for i, texts in references.items()}
    said = {i: [" ".join(tokenize(text))] for i, text in hypotheses.items()}
    assert found["meteor"] == pytest.approx(Meteor().compute_score(truth, said)[0], abs=1e-9)
