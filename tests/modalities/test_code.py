"""Image codes: from rows of a table to the original's losses and beams."""

import argparse
import json

import pytest
import torch
from omegaconf import OmegaConf

from tests import golden, tiny
from unival.criterions.label_smoothed import LabelSmoothedConfig, LabelSmoothedCriterion
from unival.data.stream import Stream, TextLimits
from unival.data.table import open_table
from unival.errors import InstructionError, UserError
from unival.instructions import parse
from unival.modalities import MODALITIES
from unival.modalities.composed import MediaOptions
from unival.tasks.base import UnivalTask
from unival.tasks.closed_set import limit_loss
from unival.tasks.config import UnivalTaskConfig
from unival.vocab import Vocabulary

DRAW = "[TEXT:text] -> [CODE:codes]"
OPTIONS = MediaOptions(code_image_size=32)  # 16 codes
LETTERS = "".join(chr(i) for i in (*range(33, 127), *range(161, 167)))  # one byte-level token each


@pytest.fixture(scope="module")
def vocab():
    """The reference model's 157 tokens: letters stand for its 100 tokens of text."""
    tokens = golden.numbers("model")["dictionary"][4:104]
    encoder = {letter: int(token) for letter, token in zip(LETTERS, tokens, strict=True) if token.isdecimal()}  # others are fillers
    made = Vocabulary(encoder, [], [(token, 1) for token in tokens], 32, 20)
    assert made.dictionary.symbols == golden.golden_dictionary().symbols
    return made


def text_of(ids):
    """The text that is tokenised into these ids (bos, eos and padding apart)."""
    return "".join(LETTERS[i - 4] for i in ids if i >= 4)


def stream(folder, vocab, rows, instruction=DRAW, **options):
    path = folder / "t.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return Stream(open_table(path), parse(instruction, MODALITIES), vocab, options.pop("media", OPTIONS), TextLimits(), **options)


def golden_rows(sources, targets):
    return [
        {"text": text_of(source), "codes": [i - 105 for i in target[1:]]}
        for source, target in zip(sources.tolist(), targets.tolist(), strict=True)
    ]


def test_rows_give_the_original_loss(tmp_path, vocab):
    measured = golden.tensors("losses")
    sources, targets = measured["inputs/src_tokens"], measured["inputs/code_prev"]
    data = stream(tmp_path, vocab, golden_rows(sources, targets))
    batch = data.collater([data[0], data[1]])
    assert batch["loss_spans"] == [(105, 137)] * 2
    assert batch["target"].tolist() == [[*row[1:], 2] for row in targets.tolist()] and batch["num_truncated"] == 0
    task = argparse.Namespace(target_dictionary=vocab.dictionary)
    criterion = LabelSmoothedCriterion(task, LabelSmoothedConfig(label_smoothing=0.1, sentence_avg=False))
    model, expected = golden.golden_model(torch.float32), golden.loss_case("ls_code_range")
    loss, size, log = criterion(model, limit_loss(batch, len(vocab)))
    assert size == expected["sample_size"]
    assert float(loss.detach()) == pytest.approx(expected["loss"], rel=1e-5)
    assert float(log["nll_loss"]) == pytest.approx(expected["nll_loss"], rel=1e-5)


def test_rows_of_codes_beside_rows_of_text_have_the_loss_that_they_have_alone(tmp_path, vocab):
    measured = golden.tensors("losses")
    codes = stream(tmp_path, vocab, golden_rows(measured["inputs/src_tokens"], measured["inputs/code_prev"]))[0]
    text = stream(tmp_path, vocab, [{"text": "abc", "answer": "de"}], "[TEXT:text] -> [TEXT:answer]")
    criterion = LabelSmoothedCriterion(
        argparse.Namespace(target_dictionary=vocab.dictionary), LabelSmoothedConfig(label_smoothing=0.1, sentence_avg=False)
    )
    model = golden.golden_model(torch.float64)
    with torch.no_grad():
        alone, mixed = (
            [criterion(model, limit_loss(text.collater(rows), len(vocab)))[0] for rows in batches]
            for batches in ([[codes], [text[0]]], [[codes, text[0]]])
        )
    assert float(sum(alone)) == pytest.approx(float(sum(mixed)), rel=1e-9)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=["float32", "float64"])
def test_rows_give_the_original_beams(tmp_path, vocab, dtype):
    sources = golden.case("text")["src_tokens"]
    rows = [{"text": text_of(row)} for row in sources.tolist()]
    task = UnivalTask(OmegaConf.structured(UnivalTaskConfig(data="", instruction=DRAW)), vocab)
    task.media = OPTIONS
    data = stream(tmp_path, vocab, [{**row, "codes": []} for row in rows], with_target=False)
    model = golden.golden_model(dtype)
    generator = task.generator_for([model], {"beam": 3}, None)
    found = task.outputs(generator, [model], data.collater([data[0], data[1]]), nbest=3)
    for output, expected in zip(found, golden.numbers("beams")["runs"]["image_gen_beam"]["rows"], strict=True):
        assert [[*one.tokens, vocab.eos] for one in (output, *output.alternatives)] == [beam["tokens"] for beam in expected]
        scores = [one.score for one in (output, *output.alternatives)]
        assert scores == pytest.approx([beam["score"] for beam in expected], abs=1e-4 if dtype == torch.float32 else 1e-9)
        assert output.codes == tuple(i - 105 for i in output.tokens) and output.text == " ".join(map(str, output.codes))
        assert output.box is None
    generator.nbest = 2
    bpe, batch = task.build_bpe(None), data.collater([data[0], data[1]])
    hypotheses = task.inference_step(generator, [model], batch)
    for output, beams in zip(found, hypotheses, strict=True):  # as fairseq-generate asks: source, target, hypotheses
        printed = [bpe.decode(vocab.dictionary.string(ids)) for ids in ([20, 31], [105], *(beam["tokens"] for beam in beams[:2]))]
        assert printed == [text_of([20, 31]), "<code_0>", output.text, output.alternatives[0].text]


def test_all_1024_codes_of_a_large_image(tmp_path):
    """As published: none is cut."""
    vocab = tiny.vocabulary(tmp_path / "vocab", num_codes=8192, num_bins=0)
    codes = [i * 37 % 8192 for i in range(1024)]
    media = MediaOptions(code_image_size=256)
    data = stream(tmp_path, vocab, [{"text": "a red square", "codes": " ".join(map(str, codes))}], media=media)
    (example,) = data[0]
    assert example.target.tolist() == [*(vocab.code(i) for i in codes), vocab.eos] and example.truncated == 0
    assert example.prev_output.tolist() == [vocab.bos, *(vocab.code(i) for i in codes)]
    assert data.references() == [[" ".join(map(str, codes))]]


def test_the_search_has_room_for_more_codes_than_there_are_positions_of_text(tmp_path):
    """As for 1,024 codes and eos in published models, which have 1,024 positions."""
    vocab = tiny.vocabulary(tmp_path / "vocab", num_codes=32, num_bins=0)
    task = UnivalTask(OmegaConf.structured(UnivalTaskConfig(data="", instruction=DRAW)), vocab)
    task.media = OPTIONS
    data = stream(tmp_path, vocab, [{"text": "a red square", "codes": [3] * 16}])
    model = tiny.model(vocab, modalities="", max_target_positions=12)
    (output,) = task.outputs(task.generator_for([model], {"beam": 2}, None), [model], data.collater([data[0]]))
    assert len(output.codes) == 16 and all(0 <= code < 32 for code in output.codes)


@pytest.mark.parametrize(
    ("cell", "problem"),
    [
        ([1, 2, 3], "3 image codes; an image of --code-image-size 32 has 16"),
        ([32] * 16, "image code 0 is 32: expected a whole number from 0 to 31"),
        ([0] * 15 + [-1], "image code 15 is -1"),
        ([0] * 15 + [1.5], "image code 15 is 1.5"),
        ([True] * 16, "image code 0 is True"),
        ("1 2 x", "image code 2 is 'x'"),
        ({"a": 1}, "expected image codes.*got an object"),
        ([], "0 image codes"),
    ],
)
def test_cells_that_are_no_codes(tmp_path, vocab, cell, problem):
    data = stream(tmp_path, vocab, [{"text": "a", "codes": cell}])
    with pytest.raises(UserError, match=rf"t\.jsonl, row 0.*column 'codes': .*{problem}"):
        data[0]
    with pytest.raises(UserError, match=problem):
        data.check_rows()


def test_instructions_that_cannot_be(tmp_path, vocab):
    for target in ("[TEXT:text,no_loss] [CODE:codes]", "codes: [CODE:codes]", "[CODE:codes] [TEXT:text]"):
        with pytest.raises(InstructionError, match="CODE must be all that the target holds"):
            stream(tmp_path, vocab, [{"text": "a", "codes": [0] * 16}], f"[TEXT:text] -> {target}")
    without = tiny.vocabulary(tmp_path / "vocab", num_codes=0, num_bins=0)
    with pytest.raises(InstructionError, match="no image codes: give --num-codes 8192"):
        stream(tmp_path, without, [{"text": "a", "codes": [0] * 16}])


def test_options_against_a_fixed_length(vocab):
    task = UnivalTask(OmegaConf.structured(UnivalTaskConfig(data="", instruction=DRAW)), vocab)
    task.media = OPTIONS
    model = golden.golden_model(torch.float32)
    for options in ({"min_len": 17}, {"max_len_b": 15}, {"no_repeat_ngram_size": 3}, {"match_source_len": True}):
        with pytest.raises(UserError, match="answers have exactly 16 tokens here"):
            task.generator_for([model], options, None)
    task.generator_for([model], {"min_len": 16, "max_len_b": 16}, None)  # as published recipes say it
