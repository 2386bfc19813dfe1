"""The road from a row to a batch."""

import json
import pickle

import pytest
import torch
from torch.utils.data import DataLoader

from tests import tiny
from unival.data.builders import BUILDERS, Builder
from unival.data.room import Piece, fit
from unival.data.rows import RowTable
from unival.data.stream import Stream, TextLimits
from unival.data.table import open_table
from unival.errors import InstructionError, UserError
from unival.instructions import parse
from unival.modalities import MODALITIES
from unival.modalities.composed import MediaOptions

CAPTION = "[IMAGE:image] what does the image describe? -> [TEXT:caption]"
PNG = (
    b"\x89PNG\r\n\x1a\n\x00\x00\x00\rIHDR\x00\x00\x00\x01\x00\x00\x00\x01\x08\x02\x00\x00\x00\x90wS\xde\x00\x00\x00\x0cIDATx\x9cc\xf8"
    b"\xcf\xc0\x00\x00\x03\x01\x01\x00\xc9\xfe\x92\xef\x00\x00\x00\x00IEND\xaeB`\x82"
)


@pytest.fixture(scope="module")
def vocab(tmp_path_factory):
    return tiny.vocabulary(tmp_path_factory.mktemp("vocab"))


def dataset(table, vocab, instruction=CAPTION, limits=TextLimits(), **options):  # noqa: B008
    return Stream(table, parse(instruction, MODALITIES), vocab, MediaOptions(patch_image_size=32), limits, **options)


def only(examples):
    (example,) = examples
    return example


def same(a, b):
    assert a.references == b.references and a.row == b.row
    for name in ("source", "prev_output", "target", "prefix"):
        assert torch.equal(getattr(a, name), getattr(b, name)), name
    assert all(torch.equal(x, y) for (_, x), (_, y) in zip(a.media, b.media, strict=True))


def test_an_example_by_hand(vocab):
    example = only(dataset(RowTable([{"image": PNG, "caption": ["red square", "other"]}]), vocab)[0])
    prompt, answer = vocab.encode(" what does the image describe?"), vocab.encode(" red square")
    assert example.source.tolist() == [vocab.bos, *prompt, vocab.eos]
    assert example.prev_output.tolist() == [vocab.bos, *answer]
    assert example.target.tolist() == [*answer, vocab.eos]
    assert example.prefix.tolist() == []
    assert example.references == ["red square", "other"]
    ((name, pixels),) = example.media
    assert name == "image" and pixels.shape == (3, 32, 32)
    assert pixels.dtype == torch.uint8 and pixels[:, 0, 0].tolist() == [255, 0, 0]  # the pixel is red


def test_text_attributes(vocab):
    rows = RowTable([{"q": "Is it RED,  or blue?", "a": "Yes, it is!"}])
    example = only(dataset(rows, vocab, 'say " [TEXT:q,uncased,max_length=3] "? -> [TEXT:a,no_punctuation]')[0])
    assert vocab.decode(example.source[1:-1]) == ' say " is it red, "?'
    assert vocab.decode(example.target[:-1]) == " Yes it is"
    assert example.truncated == 1


def test_text_touching_a_slot_gets_no_space(vocab):
    example = only(dataset(RowTable([{"q": "red", "a": "b"}]), vocab, "is it [TEXT:q]? -> [TEXT:a]")[0])
    assert vocab.decode(example.source[1:-1]) == " is it red?"


def test_the_beginning_of_a_target_carries_no_loss_and_becomes_the_prefix(vocab):
    rows = RowTable([{"q": "red", "a": "left of"}])
    example = only(dataset(rows, vocab, "[TEXT:q] -> [TEXT:q,no_loss] is [TEXT:a]")[0])
    prompt, answer = vocab.encode(" red") + vocab.encode(" is"), vocab.encode(" left of")
    assert example.prev_output.tolist() == [vocab.bos, *prompt, *answer]
    assert example.target.tolist() == [vocab.pad] * len(prompt) + answer + [vocab.eos]
    assert example.prefix.tolist() == prompt
    unanswered = dataset(
        RowTable([{"q": "red", "a": None}]), vocab, "[TEXT:q] -> [TEXT:q,no_loss] is [TEXT:a]", with_target=False
    )
    assert only(unanswered[0]).prefix.tolist() == prompt


def test_randomness_depends_on_seed_epoch_and_row_only(tmp_path, vocab):
    table = open_table(tiny.write_table(tmp_path, rows=12))
    alternatives = "[IMAGE:image] what? -> [TEXT:caption] ||| [IMAGE:image] say it -> [TEXT:caption]"
    first = dataset(table, vocab, alternatives, train=True, seed=3)
    again = dataset(open_table(table.path), vocab, alternatives, train=True, seed=3)
    examples = [only(first[i]) for i in range(12)]
    for i in reversed(range(12)):  # another order
        same(only(again[i]), examples[i])
    kinds = {tuple(example.source.tolist()) for example in examples}
    assert len(kinds) == 2  # both alternatives occur
    again.set_epoch(2)
    assert any(only(again[i]).target.tolist() != examples[i].target.tolist() for i in range(12))
    assert again.ordered_indices().tolist() != first.ordered_indices().tolist()
    assert sorted(again.ordered_indices().tolist()) == list(range(12))
    evaluation = dataset(table, vocab, alternatives)
    assert {tuple(only(evaluation[i]).source.tolist()) for i in range(12)} == {tuple(only(evaluation[0]).source.tolist())}
    assert evaluation.ordered_indices().tolist() == list(range(12))


@pytest.mark.parametrize("workers", [1, 2])
def test_workers_change_nothing(tmp_path, vocab, workers):
    data = dataset(open_table(tiny.write_table(tmp_path, rows=10)), vocab, train=True)
    batches = data.batch_by_size(data.ordered_indices(), max_sentences=4)
    assert [len(batch) for batch in batches] == [4, 4, 2]
    loader = DataLoader(data, batch_sampler=batches, collate_fn=data.collater, num_workers=workers)
    for batch, indices in zip(loader, batches, strict=True):
        alone = data.collater([data[i] for i in indices])
        assert batch["references"] == alone["references"]
        assert torch.equal(batch["target"], alone["target"])
        (group,), (own,) = batch["net_input"]["groups"], alone["net_input"]["groups"]
        assert torch.equal(group["media"][0]["values"], own["media"][0]["values"])


def test_a_batch_by_hand(vocab):
    rows = RowTable([{"image": PNG, "caption": "red"}, {"image": PNG, "caption": "a red square of the left"}])
    data = dataset(rows, vocab)
    batch = data.collater([data[1], data[0]])
    assert batch["id"].tolist() == [1, 0] and batch["nsentences"] == 2
    lengths = [len(only(data[i]).target) for i in (1, 0)]
    assert batch["ntokens"] == sum(lengths)
    assert batch["target"].shape == (2, max(lengths))
    assert batch["target"][1, lengths[1] :].eq(vocab.pad).all()
    (group,) = batch["net_input"]["groups"]
    (item,) = group["media"]
    assert item["modality"] == "image" and item["values"].shape == (2, 3, 32, 32) and item["rows"].tolist() == [0, 1]
    assert "prefix_tokens" not in batch and batch["skipped"] == []


def test_bad_media_is_never_replaced(tmp_path, vocab):
    path = tiny.write_table(tmp_path, rows=3)
    image = tmp_path / "images" / "train.jsonl-1.png"
    image.write_bytes(image.read_bytes()[:200])
    table = open_table(path)
    with pytest.raises(UserError, match=r"train\.jsonl, row 1 \(line 2\), column 'image'.*cannot decode"):
        dataset(table, vocab, train=True)[1]
    data = dataset(table, vocab, train=True, skip_bad=True)
    batch = data.collater([data[i] for i in range(3)])
    (message,) = batch["skipped"]
    assert batch["id"].tolist() == [0, 2] and "row 1 (line 2), column 'image'" in message
    empty = data.collater([data[1]])
    assert empty["nsentences"] == 0 and empty["skipped"] == [message] and "net_input" not in empty


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (
            {"id": "x", "image": "images/train.jsonl-0.png"},
            r"row 1 \(line 2\), column 'caption'.*no such column.*'id', 'image'",
        ),
        ({"image": "images/none.png", "caption": "a"}, r"row 1 \(line 2\), column 'image'"),
        ({"image": "images/train.jsonl-0.png", "caption": 3}, r"column 'caption'.*string.*a number"),
        ({"image": "images/train.jsonl-0.png", "caption": []}, r"column 'caption'.*empty list"),
        ({"image": "images/train.jsonl-0.png", "caption": " "}, r"column 'caption': a reference must not be empty"),
    ],
)
def test_broken_rows_are_named(tmp_path, vocab, row, message):
    path = tiny.write_table(tmp_path, rows=1)
    path.write_text(path.read_text() + json.dumps(row) + "\n")
    with pytest.raises(UserError, match=message):
        dataset(open_table(path), vocab)[1]


def test_columns_and_batches_that_cannot_be(tmp_path, vocab):
    table = open_table(tiny.write_table(tmp_path, rows=1))
    with pytest.raises(UserError, match="picture.*image"):
        dataset(table, vocab, "[IMAGE:picture] -> [TEXT:caption]")
    with pytest.raises(InstructionError, match=r"a box is of an image or a video, and the source has none: add \[IMAGE:image\]"):
        dataset(table, vocab, "[BOX:image] -> [TEXT:caption]")
    with pytest.raises(UserError, match="--batch-size"):
        dataset(table, vocab).batch_by_size([0], max_tokens=100)


def test_a_dataset_can_be_sent_to_workers(tmp_path, vocab):
    data = dataset(open_table(tiny.write_table(tmp_path, rows=2)), vocab, train=True)
    same(only(pickle.loads(pickle.dumps(data))[1]), only(data[1]))


def test_references_in_one_cell_of_a_tsv(tmp_path, vocab):
    path = tmp_path / "t.tsv"
    path.write_text("1\tred&&a blue square\tx\n")
    table = open_table(path, ["id", "caption", "q"], "0,1,2")
    data = dataset(table, vocab, "[TEXT:q] -> [TEXT:caption]")
    assert only(data[0]).references == ["red", "a blue square"] and data.references() == [["red", "a blue square"]]


def test_texts_of_few_words_but_many_tokens_are_cut_and_counted(vocab):
    long = "x" * 3000  # one word, a token per letter in this vocabulary
    example = only(dataset(RowTable([{"q": long, "a": long}]), vocab, "[TEXT:q] -> [TEXT:a]")[0])
    assert len(example.source) == 1002 and len(example.target) == 1001 and example.truncated == 2
    few = only(dataset(RowTable([{"q": long, "a": long}]), vocab, "[TEXT:q] -> [TEXT:a]", TextLimits(source_tokens=7, target_tokens=5))[0])
    assert few.source.tolist() == [*example.source[:8], vocab.eos] and few.target.tolist() == [*example.target[:5], vocab.eos]


def test_what_is_given_makes_room_for_the_answer(vocab):
    """A row of long text is cut where it is given, and counted; the answer and the text before it stay whole."""
    row = {"q": "x" * 3000, "r": "z" * 2000, "a": "red square"}
    answer, between = vocab.encode(" red square"), vocab.encode(" so")
    for given in ("[TEXT:q,no_loss]", "[TEXT:r,no_loss] [TEXT:q,no_loss]"):
        for after in ("", ",after_eos"):
            example = only(dataset(RowTable([row]), vocab, f"[TEXT:a] -> {given} so [TEXT:a{after}]")[0])
            end = [*between, *([vocab.eos] if after else []), *answer]
            fed, target = example.prev_output.tolist(), example.target.tolist()
            assert len(fed) == 1001 and example.truncated == 1
            assert fed[-len(end) :] == end and example.prefix.tolist() == fed[1 : -len(answer)]
            assert target[-len(answer) - 1 :] == [*answer, vocab.eos] and set(target[: -len(answer) - 1]) == {vocab.pad}
    swapped = {"q": "red", "a": "x" * 3000}
    example = only(dataset(RowTable([swapped]), vocab, "[TEXT:q] -> [TEXT:q,no_loss] [TEXT:a]")[0])
    assert example.prefix.tolist() == vocab.encode(" red") and example.truncated == 1
    tight = [Piece([1] * 20, False, False), Piece([2] * 9, True, True)]  # the answer takes more than half
    assert fit(tight, 16) == ([1] * 7 + [2] * 9, [False] * 7 + [True] * 9)


# --- several examples of a row -------------------------------------------------------------------------------------------------


@pytest.fixture
def two_targets(monkeypatch):
    """A builder from outside the package: a caption and a question of each row, the question made up from another row."""

    def build(record, table, rng):
        other = table[int(rng.integers(len(table)))]
        return [("caption", record), ("question", {**record, "question": f"is it {other['caption']}?"})]

    monkeypatch.setitem(BUILDERS, "two targets", Builder(build, columns=("question",)))


def two(table, vocab, **options):
    named = {"caption": parse(CAPTION, MODALITIES), "question": parse("[TEXT:question] [IMAGE:image] -> [TEXT:answer]", MODALITIES)}
    return Stream(table, named, vocab, MediaOptions(patch_image_size=32), TextLimits(), builder="two targets", **options)


def test_a_builder_makes_two_targets_of_a_row_that_share_its_image(vocab, two_targets):
    table = RowTable([{"image": PNG, "caption": f"number {i}", "answer": "no"} for i in range(4)])
    data = two(table, vocab, train=True)
    loads = []
    loader = data.loaders["IMAGE"]
    data.loaders["IMAGE"] = lambda *args, **options: (loads.append(1), loader(*args, **options))[1]
    caption, question = data[2]
    assert len(loads) == 1 and caption.media[0][1] is question.media[0][1], "decoded once"
    assert vocab.decode(caption.target[:-1]) == " number 2" and vocab.decode(question.target[:-1]) == " no"
    assert vocab.decode(question.source[1:-1]).startswith(" is it number ")
    assert [example.row for example in data[6]] == [2, 2]  # another pass
    batch = data.collater([data[2], data[0]])
    assert batch["id"].tolist() == [2, 2, 0, 0] and batch["nsentences"] == 4
    (group,) = batch["net_input"]["groups"]
    assert group["media"][0]["values"].shape[0] == 2 and group["media"][0]["rows"].tolist() == [0, 0, 1, 1], "embedded once"
    sources = {vocab.decode(example.source[1:-1]) for data.epoch in range(1, 30) for example in data[2][1:]}
    assert len(sources) == 4, "the builder draws with the row's generator"
    evaluation = two(table, vocab)
    evaluation.check_rows()
    assert evaluation.references() == [["number 0"], ["no"], ["number 1"], ["no"], ["number 2"], ["no"], ["number 3"], ["no"]]


def test_builders_that_cannot_be_used(vocab, two_targets, monkeypatch):
    table = RowTable([{"image": PNG, "caption": "red", "answer": "no"}])
    with pytest.raises(UserError, match="unknown builder 'three'; choose from plain, grouped, .*, two targets"):
        dataset(table, vocab, builder="three")
    with pytest.raises(UserError, match="row 0: its builder names the instruction 'caption'; the stream has ''"):
        dataset(table, vocab, builder="two targets")[0]
    monkeypatch.setitem(BUILDERS, "none", Builder(lambda record, table, rng: []))
    with pytest.raises(UserError, match="row 0: its builder makes no example of it"):
        dataset(table, vocab, builder="none").check_rows()
    monkeypatch.setitem(BUILDERS, "broken", Builder(lambda record, table, rng: [("", {**record, "image": record["nothing"]})]))
    (bad,) = [dataset(table, vocab, builder="broken", train=True, skip_bad=True)[0]]
    assert "row 0" in bad.message and "nothing" in bad.message


def test_the_first_tokens_of_a_target_may_carry_no_loss(vocab):
    """They are said and learned from, but not given to generation; of a target that has no others the end is learned."""
    red, left = vocab.encode(" red"), vocab.encode(" left of")
    example = only(dataset(RowTable([{"q": "red", "a": "left of"}]), vocab, "[TEXT:q] -> [TEXT:q,no_loss] [TEXT:a,loss_from=2]")[0])
    assert example.prev_output.tolist() == [vocab.bos, *red, *left] and example.prefix.tolist() == red
    assert example.target.tolist() == [*[vocab.pad] * (len(red) + 2), *left[2:], vocab.eos] and len(left) > 2
    short = only(dataset(RowTable([{"q": "red", "a": "left of"}]), vocab, "[TEXT:q] -> [TEXT:a,loss_from=99]")[0])
    assert short.target.tolist() == [*[vocab.pad] * len(left), vocab.eos]
    with pytest.raises(InstructionError, match="a slot with loss_from must be the only one to predict"):
        dataset(RowTable([{"q": "red", "a": "left of"}]), vocab, "[TEXT:q] -> [TEXT:a,loss_from=2] [TEXT:q]")


def test_a_column_that_is_named_twice_is_read_twice(vocab, tmp_path):
    """Two views of one image: augmentation draws for each."""
    table = open_table(tiny.write_table(tmp_path, rows=1))
    data = dataset(table, vocab, "[IMAGE:image] [IMAGE:image] -> [TEXT:caption]", train=True)
    loads = []
    loader = data.loaders["IMAGE"]
    data.loaders["IMAGE"] = lambda *args, **options: (loads.append(1), loader(*args, **options))[1]
    assert len(only(data[0]).media) == 2 and len(loads) == 2


def test_rows_of_one_kind_are_a_group(vocab):
    """Alternatives with different media: groups in order of appearance, everything else in the order of their rows."""
    rows = RowTable([{"image": PNG, "q": f"question {i}", "a": f"answer {i}"} for i in range(16)])
    data = dataset(rows, vocab, "[IMAGE:image] [TEXT:q] -> [TEXT:a] ||| [TEXT:q] -> [TEXT:a]", train=True)
    read = [only(data[i]) for i in range(16)]
    first = read[0].kind
    batch = data.collater([[example] for example in read])
    order = [e.row for e in read if e.kind == first] + [e.row for e in read if e.kind != first]
    assert batch["id"].tolist() == order != list(range(16))
    assert [texts[0] for texts in batch["references"]] == [f"answer {row}" for row in order]
    groups = batch["net_input"]["groups"]
    assert ["media" in group for group in groups] == [read[0].kind == (("image",), False), read[0].kind != (("image",), False)]
    sources = [vocab.decode(row[1 : n - 1]) for group in groups for row, n in zip(group["src_tokens"], group["src_lengths"], strict=True)]
    assert sources == [f" question {row}" for row in order]
    with_image = next(group for group in groups if "media" in group)
    assert with_image["media"][0]["rows"].tolist() == list(range(len(with_image["src_tokens"])))
    for target, row in zip(batch["target"], order, strict=True):
        assert vocab.decode(target[: int(target.ne(vocab.pad).sum()) - 1]) == f" answer {row}"
