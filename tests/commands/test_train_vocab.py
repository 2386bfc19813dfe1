"""`unival train-vocab`: a vocabulary from the text columns of tables."""

import argparse
import json

import pytest

from unival.commands import train_vocab
from unival.errors import UserError
from unival.vocab import Vocabulary


def command(*words):
    parser = argparse.ArgumentParser()
    train_vocab.add_arguments(parser)
    return train_vocab.run(parser.parse_args(words))


def test_train_vocab_command(tmp_path, capsys):
    table = tmp_path / "train.jsonl"
    rows = [{"caption": "a red dog"}, {"caption": ["a red flag ", " the red flag"]}] * 3
    table.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    out = tmp_path / "vocabulary"
    words = ["--table", str(table), "--column", "caption", "--text", "what is it?", "--size", "270", "--out", str(out)]
    assert command(*words) == 0
    assert "270 BPE tokens trained on 10 texts" in capsys.readouterr().out
    vocabulary = Vocabulary.load(out, 0, 0)
    assert vocabulary.decode(vocabulary.encode(" a red flag")) == " a red flag"
    assert len(vocabulary.encode(" red")) == 1
    with pytest.raises(UserError, match="code 0 does not exist: this vocabulary has no <code_i>"):
        vocabulary.code(0)
    with pytest.raises(UserError, match="there is no column 'captoin'; there are caption"):
        command("--table", str(table), "--column", "captoin", "--out", str(out))
    table.write_text('{"caption": 3}\n', encoding="utf-8")
    with pytest.raises(UserError, match=r"row 0 \(line 1\), column 'caption': expected text, got a number"):
        command("--table", str(table), "--column", "caption", "--out", str(out))


def test_train_vocab_on_tsv(tmp_path, capsys):
    table = tmp_path / "train.tsv"
    table.write_text("0\tx.jpg\ta red dog\n" * 3, encoding="utf-8")
    words = ["--table", str(table), "--column", "caption", "--selected-cols", "2", "--out", str(tmp_path / "v")]
    assert command(*words) == 0
    assert "trained on 3 texts" in capsys.readouterr().out
