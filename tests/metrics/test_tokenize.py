"""The Python tokenizer gives the tokens of Stanford's PTB tokenizer; the Java one runs and fails in words."""

import itertools
import json
import pathlib
import random
import time

import pytest

from unival.errors import UserError
from unival.metrics.tokenize import TOKENIZERS, PtbTokenizer, make_tokenizer, tokenize

EXTRACT = json.loads(pathlib.Path(__file__).with_name("ptb_tokens.json").read_text(encoding="utf-8"))
PAIRS = [tuple(pair) for pair in EXTRACT["captions"] + EXTRACT["probes"]]


@pytest.mark.parametrize("text, expected", PAIRS)
def test_tokens_recorded_from_the_ptb_tokenizer(text, expected):
    assert " ".join(tokenize(text)) == expected


@pytest.mark.parametrize(
    "text, expected",
    [
        ("", ""),
        ("  \n ", ""),
        ("A man riding a horse.", "a man riding a horse"),
        ("I don't; can't, CANNOT!", "i do n't ca n't can not"),
        ("the dogs' bowls and the cat's", "the dogs bowls and the cat 's"),
        ('a sign that says "STOP" (in red)', "a sign that says stop -lrb- in red -rrb-"),
        ("a snow-covered hill -- at 10:30 p.m.", "a snow-covered hill at 10:30 p.m."),
        ("$5.50 for 1/2 a pie, 50% off!!", "$ 5.50 for 1/2 a pie 50 % off !!"),
        ("on St. Mark's Ave. near table.A cat", "on st. mark 's ave. near table.a cat"),
        ("It’s a “big” café – really…", "it 's a big café really"),
        ("3½ pies 😀 for £2", "3 1/2 pies for # 2"),
        ("vitamin C. The label", "vitamin c the label"),
    ],
)
def test_tokens_by_rule(text, expected):
    assert " ".join(tokenize(text)) == expected


def test_tokens_are_stable():
    """Words without marks stay as they are when they are tokenised again."""
    for _, tokens in PAIRS[:90]:
        words = [token for token in tokens.split() if token.isalpha() and len(token) > 1 and token not in ("gon", "wan")]
        assert list(tokenize(" ".join(words))) == words


@pytest.mark.slow
def test_python_and_java_agree_on_coco(java, coco_captions):
    texts = list(itertools.chain.from_iterable(itertools.islice(coco_captions.values(), 1200)))
    reference = PtbTokenizer(texts)
    different = [text for text in texts if tokenize(text) != reference(text)]
    print(f"{len(texts) - len(different)} of {len(texts)} captions have identical tokens")
    assert len(different) <= len(texts) // 1000, different[:10]


def test_java_tokenizer_in_one_batch_and_alone(java):
    texts = ["A man, can't see.", "", "two\nlines of\tcafé", "..."]
    tokenizer = PtbTokenizer(texts)
    expected = [("a", "man", "ca", "n't", "see"), (), ("two", "lines", "of", "café"), ()]
    assert [tokenizer(text) for text in texts] == expected
    assert tokenizer("A new one!") == ("a", "new", "one")


def test_recorded_tokens_are_those_of_java(java):
    sample = PAIRS[::7]
    tokenizer = PtbTokenizer([text for text, _ in sample])
    assert [" ".join(tokenizer(text)) for text, _ in sample] == [expected for _, expected in sample]


def test_unknown_tokenizer_names_the_others():
    with pytest.raises(UserError, match="'moses'; choose from " + ", ".join(TOKENIZERS)):
        make_tokenizer("moses")


def test_java_tokenizer_without_java(pycocoevalcap, monkeypatch):
    monkeypatch.setenv("PATH", "")
    with pytest.raises(UserError, match="PTB tokenizer needs Java.*apt-get install"):
        make_tokenizer("ptb", ["a"])


UNITS = [*" \t\n\xa0\u200b\U0001f600.-(\"'@<&!½:", "e\u0301", ". ", "<!--", "<a ", "a.", "1,", "a'", "a-", "&amp;", "(1", "[w].@"]


@pytest.mark.parametrize("unit", UNITS, ids=ascii)
@pytest.mark.parametrize("before, after", [("a", ""), ("", "!x")], ids=["end", "middle"])
def test_time_grows_with_the_length(unit, before, after):
    """Four times the text takes four times as long, not sixteen: white space at the end, runs of a mark, markup that never ends."""

    def seconds(length):
        start = time.process_time()
        tokenize.__wrapped__(before + unit * (length // len(unit)) + after)
        return time.process_time() - start

    short = min(seconds(4000), seconds(4000))
    assert short < 8
    assert seconds(16000) < 8 * short + 0.2


def test_long_texts_have_the_tokens_of_their_parts():
    parts = ["a dog's (wet) nose.", "U.S.-based", "<a href='x'>", "vitamin A. The end", "(555) 123-4567", "don't ..."]
    parts += ["e\u0301e\u0301 <!-- x -->"]
    rng = random.Random(0)
    texts = [rng.choice(parts) for _ in range(3000)]
    expected = [token for text in texts for token in tokenize(f"x {text} x")]
    assert list(tokenize(" ".join(f"x {text} x" for text in texts))) == expected
    assert tokenize("e\u0301a te\u0301 e\u0301.a") == ("e\u0301a", "te\u0301", "e\u0301.a")  # as the Java program has them
    assert tokenize(" a \t\n  \n b  \u3000 ") == ("a", "b")
