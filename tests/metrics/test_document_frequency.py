"""Document frequencies from files: every format gives the score of the corpus they were counted in, and wrong files are named."""

import json
import pickle
from collections import defaultdict

import numpy as np
import pytest

from unival.errors import UserError
from unival.metrics import MetricOptions, make_metrics
from unival.metrics.document_frequency import count, read
from unival.metrics.score import evaluate_rows
from unival.metrics.tokenize import tokenize

CORPUS = [["a red cat", "the cat"], ["a dog"], ["two dogs on grass"], ["a cat on a mat"]]
ROW = {1: "a red dog"}, {1: ["a red cat on grass"]}


def write(path):
    counts, documents = count([tokenize(text) for text in texts] for texts in CORPUS)
    joined = {" ".join(ngram): number for ngram, number in counts.items()}
    if path.suffix == ".json":
        path.write_text(json.dumps({"documents": documents, "document_frequency": joined}))
    elif path.suffix == ".npz":
        np.savez(path, ngrams=np.array(list(joined)), counts=np.array(list(joined.values())), documents=documents)
    else:  # as the published code has it
        found = defaultdict(float)
        found.update({ngram: float(number) for ngram, number in counts.items()})
        path.write_bytes(pickle.dumps({"document_frequency": found, "ref_len": documents}, protocol=2))
    return str(path)


@pytest.mark.parametrize("name", ["df.json", "df.npz", "coco-train-words.p"])
def test_a_file_gives_the_frequencies_of_its_corpus(tmp_path, name):
    options = MetricOptions(cider_df=write(tmp_path / name))
    metric = make_metrics(["cider_d"], options=options)["cider_d"]
    metric.fit([["something else"]])
    expected = make_metrics(["cider_d"])["cider_d"]
    expected.fit(CORPUS)
    row = ("a red dog", ["a red cat on grass"])
    assert metric.score(*row) == pytest.approx(expected.score(*row), abs=1e-12) and metric.score(*row) > 1
    found = evaluate_rows(*ROW, ["cider_d", "cider"], options=options).total
    assert found == {"cider_d": pytest.approx(metric.score(*row)), "cider": 0}  # CIDEr is as coco-caption's: of one row it is 0


def test_a_pickle_of_python_2_is_read(tmp_path):
    """Byte strings for words, and the old names of modules."""
    file = tmp_path / "old.p"
    file.write_bytes(
        b"(dp0\nS'document_frequency'\np1\nccollections\ndefaultdict\np2\n(c__builtin__\nfloat\np3\ntp4\nRp5\n(S'a'\np6\nS'caf\\xe9'\np7\ntp8\nF3.0\nssS'ref_len'\np9\nI5\ns."
    )
    assert read(str(file)) == ({("a", "café"): 3.0}, 5.0)


class Evil:
    def __reduce__(self):
        return print, ("it runs",)


WRONG = {
    "no.json": (None, "no such file of document frequencies; expected .json, .npz, or a pickle .p or .pkl"),
    "df.csv": (b"a,1", "expected .json, .npz, or a pickle .p or .pkl, got '.csv'"),
    "a.json": (b"{", "not valid JSON"),
    "b.json": (b'{"document_frequency": {"a": 1}}', "expected an object with document_frequency .* and documents or ref_len"),
    "c.json": (b'{"document_frequency": {"a": 9}, "ref_len": 2.1}', "'a' is in 9 of 2.1 documents; .* not their logarithms"),
    "d.json": (b'{"document_frequency": {"a": 1}, "documents": 0}', "the number of documents is 0; expected 1 or more"),
    "e.json": (b'{"document_frequency": {}, "documents": 3}', "holds no n-grams"),
    "f.json": (b'{"document_frequency": {"4 12": 1, "7": 2}, "documents": 3}', "its n-grams are numbers, indices in a vocabulary"),
    "a.npz": (b"no zip", "cannot be read as npz"),
    "a.p": (pickle.dumps(Evil()), "it holds builtins.print; only numbers, texts, .* Convert it where it was made: json.dump"),
    "b.pkl": (b"\x80\x02garbage", "only numbers, texts, tuples and dictionaries are read"),
    "c.p": (pickle.dumps({"document_frequency": {"a": 1}, "ref_len": 3}), "expected tuples of words as keys"),
}


@pytest.mark.parametrize("name", WRONG)
def test_files_that_hold_something_else(tmp_path, name, capsys):
    content, message = WRONG[name]
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError, match=message) as caught:
        make_metrics(["cider_d"], options=MetricOptions(cider_df=str(tmp_path / name)))
    assert name in str(caught.value) and not capsys.readouterr().out
