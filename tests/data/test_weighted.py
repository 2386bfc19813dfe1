"""Slots with weighted answers: what is learned, by how much, and what metrics compare with."""

import pytest
import torch

from tests import tiny
from tests.tasks.test_closed_set import own_task
from unival.criterions.label_smoothed import LabelSmoothedConfig, LabelSmoothedCriterion
from unival.data.rows import RowTable
from unival.errors import InstructionError, UserError

INSTRUCTION = "[TEXT:q] -> [TEXT:a,weighted,no_punctuation]"


@pytest.fixture(scope="module")
def vocab(tmp_path_factory):
    return tiny.vocabulary(tmp_path_factory.mktemp("vocab"))


def stream(vocab, *cells, instruction=INSTRUCTION, **options):
    return own_task(vocab, instruction).build_dataset(RowTable([{"q": "the left", "a": cell} for cell in cells]), **options)


def test_the_likeliest_answer_is_learned_with_its_weight(vocab):
    data = stream(vocab, "0.3|!+blue&&0.6|!+red&&0.6|!+green", ["blue", "blue", "?", "?", "?", ""], "red", train=True)
    examples = [data[row][0] for row in range(3)]
    learned = [(vocab.decode(example.target[:-1]), example.conf, example.empty) for example in examples]
    assert learned == [(" red", 0.6, 0), (" blue", 0.6, 2), (" red", 1.0, 0)]  # "?" is a reference, but empty once normalised
    assert examples[0].references == ["0.3|!+blue", "0.6|!+red", "0.6|!+green"]
    assert data.references()[1] == ["blue", "blue", "?", "?", "?", ""] == examples[1].references
    batch = data.collater([data[0], data[2]])
    assert batch["conf"].tolist() == [0.6, 1.0]
    other = stream(vocab, "red", instruction="[TEXT:q] -> [TEXT:a]")
    assert "conf" not in other.collater([other[0]])
    assert other.collater([data[0], other[0]])["conf"].tolist() == [0.6, 1.0]


def test_the_loss_is_weighted(vocab):
    data = stream(vocab, "0.3|!+blue", "red")
    model, task = tiny.model(vocab), own_task(vocab, INSTRUCTION)
    criterion = LabelSmoothedCriterion(task, LabelSmoothedConfig(sentence_avg=False, label_smoothing=0.1)).eval()
    plain = stream(vocab, "blue", "red")
    alone = [criterion(model, plain.collater([plain[row]]))[0] for row in range(2)]
    together = criterion(model, data.collater([data[0], data[1]]))[0]
    torch.testing.assert_close(together, 0.3 * alone[0] + alone[1])


@pytest.mark.parametrize(
    "instruction,cell,said",
    [
        ("[TEXT:q] -> [TEXT:a]", "1.0|!+red", r"row 0, column 'a': '1.0\|!\+red' is a weighted answer.*\[TEXT:answer,weighted\]"),
        ("[TEXT:a] -> [TEXT:q]", "1.0|!+red", "row 0, column 'a': .*weighted"),
        ("[TEXT:q] -> [TEXT:a,no_loss] [TEXT:q]", "1.0|!+red", "row 0, column 'a': .*weighted"),
        (INSTRUCTION, "0.5|!+red&&blue", "row 0, column 'a': 'blue': expected weight"),
        (INSTRUCTION, "0.5|!+?", r"row 0, column 'a': '0.5\|!\+\?' is empty after normalisation"),
    ],
)
def test_cells_that_cannot_be_learned_are_named(vocab, instruction, cell, said):
    with pytest.raises(UserError, match=said):
        stream(vocab, cell, instruction=instruction)[0]


def test_a_row_has_one_confidence(vocab):
    for instruction in ("[TEXT:q] -> [TEXT:a,weighted] [TEXT:q]", "[TEXT:q] -> [TEXT:a,weighted,no_loss] [TEXT:q]"):
        with pytest.raises(InstructionError, match="weighted must be the only one to predict"):
            stream(vocab, "red", instruction=instruction)


def test_maps_joined_texts_and_ends(vocab):
    rows = RowTable([{"o": ["red", "blue", "left of"], "a": "entailment "}, {"o": [""], "a": "other"}])
    task = own_task(vocab, 'of [TEXT:o,join=2] -> of [TEXT:o,join=9,no_loss] [TEXT:a,after_eos,map="entailment=yes,neutral = may be"]')
    data = task.build_dataset(rows, train=True)
    (first,), (second,) = data[0], data[1]
    assert vocab.decode(first.source[1:-1]) == " of red blue" and vocab.decode(second.source[1:-1]) == " of "
    given = [*vocab.encode(" of red blue left of"), vocab.eos]
    assert first.prefix.tolist() == given and first.prev_output.tolist() == [vocab.bos, *given, *vocab.encode(" yes")]
    assert first.target.tolist() == [vocab.pad] * len(given) + [*vocab.encode(" yes"), vocab.eos]
    assert first.references == ["yes"] and second.references == ["other"]


@pytest.mark.parametrize(
    "slot,said",
    [
        ('TEXT:a,map="a"', "map 'a': expected a text of the table and what stands for it"),
        ('TEXT:a,map="a=,b=c"', "map 'a=,b=c': expected"),
        ('TEXT:a,map="a=b,a=c"', "a text is named twice"),
        ('TEXT:a,weighted,map="a=b"', "map is for plain texts"),
        ("TEXT:a,join=2", "join is for texts that are given"),
    ],
)
def test_attributes_that_cannot_be(vocab, slot, said):
    with pytest.raises(InstructionError, match=said):
        stream(vocab, "red", instruction=f"[TEXT:q] -> [{slot}]")


def test_cleaning_and_endings(vocab):
    rows = RowTable([{"q": ",What <person>/is-red??", "a": "x"}, {"q": "the left of", "a": "x"}, {"q": "", "a": "x"}])
    task = own_task(vocab, 'say [TEXT:q,clean=question,ending="?",max_length=2] -> [TEXT:a]')
    said = [vocab.decode(task.build_dataset(rows)[row][0].source[1:-1]) for row in range(3)]
    assert said == [" say what <person>?", " say the left?", " say ?"]
    task = own_task(vocab, "[TEXT:q,clean=caption] -> [TEXT:a]")
    assert vocab.decode(task.build_dataset(rows)[0][0].source[1:-1]) == " what person is red??"
    with pytest.raises(InstructionError, match="'clean' takes question or caption, not 'answer'"):
        own_task(vocab, "[TEXT:q,clean=answer] -> [TEXT:a]")
