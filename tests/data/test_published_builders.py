"""Rows of the published pretraining give the pairs of examples that the original drew of them (``tests/golden/unify.json``)."""

import json

import pytest
import torch

from tests import golden
from tests.test_vocab import write_extract
from unival.data.builders import builder_of
from unival.data.rows import RowTable
from unival.data.stream import Stream, TextLimits
from unival.instructions import parse
from unival.modalities import MODALITIES
from unival.modalities.composed import MediaOptions
from unival.modalities.geometry import Geometry, Loaded
from unival.vocab import Vocabulary

# What the extract of GPT-2's vocabulary lacks: words of the prompts, and words of the wrong texts, whose ids alone were measured.
MERGES = "Ġ g,u s,es t,q u,i ve,Ġn e,Ġon e,Ġ qu,at ive,Ġqu est,Ġb us,re en,Ġquest ion,s w,Ġne g,Ġan sw,Ġansw er,Ġg reen,Ġneg ative,Ġ\" ."
WORDS = {"Ġanswer": 1948, "Ġquestion": 864, 'Ġ".': 43809, "Ġnegative": 2430, "Ġone": 65, "Ġbus": 2353, "Ġgreen": 2272}
FIRST_ROW = 4  # id of dict.txt's first row

COLUMNS = ("caption", "question", "answer", "objects", "dataset")
CASES = {  # id of the row: builder, medium, the other rows of its table
    "1": ("caption_and_matching", "image", [{"caption": "negative two", "objects": "bus"}]),
    "2": ("caption_and_matching", "image", [{"caption": "negative one"}, {"caption": "Negative-two"}]),
    "3": ("question_and_matching", "image", [{"question": "what", "answer": "cat"}, {"question": "how many", "answer": "1"}]),
    "4": ("grounding_and_region", "image", []),
    "5": ("caption_and_matching", "video", [{"caption": "video negative"}]),
    "6": ("question_and_matching", "video", [{"question": "what", "answer": "green"}]),
    "8": ("caption_and_matching", "audio", [{"caption": "two"}]),
}


@pytest.fixture(scope="module")
def vocabulary(tmp_path_factory):
    folder = write_extract(tmp_path_factory.mktemp("gpt2"))
    encoder = json.loads((folder / "encoder.json").read_text(encoding="utf-8"))
    rows = (folder / "dict.txt").read_text(encoding="utf-8").splitlines()
    free = [number for number, row in enumerate(rows) if row.startswith("madeup")]
    for number, merge in enumerate(MERGES.split(","), start=90_000):
        token = merge.replace(" ", "")
        encoder[token] = number
        rows[WORDS[token] - FIRST_ROW if token in WORDS else free.pop()] = f"{number} 1"
    (folder / "encoder.json").write_text(json.dumps(encoder), encoding="utf-8")
    (folder / "dict.txt").write_text("\n".join(rows), encoding="utf-8")
    with (folder / "vocab.bpe").open("a", encoding="utf-8") as file:
        file.write("\n".join([*MERGES.split(","), ""]))
    return Vocabulary.load(folder)


def load(data, rng, train):
    """In place of a file: the original's image had 8 x 6 pixels, but its box is that of an image of 512 x 512."""
    return Loaded(torch.zeros(1), Geometry.of_resize((512, 512), 512))


def row_of(number):
    """A golden row in our columns."""
    (cells,) = (case["rows"][number] for name, case in golden.numbers("unify").items() if name != "provenance" and number in case["rows"])
    row = dict(zip(COLUMNS, cells, strict=False))
    return {**row, "text": row["caption"], "box": row["answer"], "objects": [name for name in row["objects"].split("&&") if name]}


def pairs_of(number):
    """The golden pairs of a row, each of two examples as comparable tuples."""
    every = [pair for name, case in golden.numbers("unify").items() if name != "provenance" for pair in case["pairs"]]
    keys = ("source", "target", "prev_output_tokens", "conf")
    return {tuple(tuple(tuple(each[key]) for key in keys) for each in pair) for pair in every if pair[0]["id"] == number}


def as_golden(example):
    conf = 1.0 if example.conf is None else example.conf
    return tuple(example.source.tolist()), tuple(example.target.tolist()), tuple(example.prev_output.tolist()), (conf,)


@pytest.mark.parametrize("number", CASES)
def test_pairs(number, vocabulary):
    """The first example is the original's, and so is the second where nothing is drawn; else the original's is among those we draw."""
    name, medium, others = CASES[number]
    rows = [{**row, medium: b"file"} for row in ({"dataset": "", **row_of(number)}, *others)]
    named = {key: parse(text, MODALITIES) for key, text in builder_of(name).instructions(medium).items()}
    stream = Stream(RowTable(rows), named, vocabulary, MediaOptions(patch_image_size=32), TextLimits(), train=True, builder=name)
    stream.loaders = dict.fromkeys(stream.loaders, load)
    wanted, drawn = pairs_of(number), set()
    for epoch in range(1, 500):
        stream.set_epoch(epoch)
        first, second = stream[0]
        drawn.add((as_golden(first), as_golden(second)))
        assert first.media[0][1] is second.media[0][1] and first.media[0][0] == medium
        if wanted <= drawn:
            break
    assert wanted <= drawn and {first for first, _ in drawn} == {first for first, _ in wanted}
    if number == "4":
        assert drawn == wanted


def test_all_rows_of_the_reference_file_are_here(shared):
    whole = json.loads((shared / "reference/golden/data.json").read_text(encoding="utf-8"))
    assert {name for name in whole if name.startswith("unify")} == set(golden.numbers("unify")) - {"provenance"}
    assert {row[0] for name in whole if name.startswith("unify") for row in whole[name]["rows"]} == set(CASES)
