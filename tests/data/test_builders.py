"""What builders make of rows: negatives that are wrong, in the published shares; masked spans; several examples of a row."""

import logging
import math
import pickle

import numpy as np
import pytest
import torch

from tests import tiny
from unival.data.builders import BUILDERS, builder_of
from unival.data.builders.texts import MOST_WORDS, masked, span_lengths
from unival.data.rows import RowTable
from unival.data.stream import Stream, TextLimits
from unival.data.table import open_table
from unival.errors import InstructionError, UserError
from unival.instructions import parse
from unival.modalities import MODALITIES
from unival.modalities.composed import MediaOptions

DRAWS = 2000
NAMES = ("dog", "cat", "bus", "green apple", "C++")


@pytest.fixture(scope="module")
def vocab(tmp_path_factory):
    return tiny.vocabulary(tmp_path_factory.mktemp("vocab"))


def stream(name, table, vocab, medium="image", instructions=None, limits=TextLimits(), **options):  # noqa: B008
    texts = {**builder_of(name).instructions(medium), **(instructions or {})}
    named = {key: parse(text, MODALITIES) for key, text in texts.items()}
    table = RowTable(table) if isinstance(table, list) else table
    options = {"train": True, **options}
    return Stream(table, named, vocab, MediaOptions(patch_image_size=32), limits, builder=name, **options)


def rows(*captions, **more):
    return [{"image": "x", "caption": caption, **more} for caption in captions]


def draws(made, row, count=DRAWS):
    """The last record of a row in many draws."""
    rng = np.random.default_rng(7)
    return [made(row, rng)[-1][1] for _ in range(count)]


def share(found):
    return sum(map(bool, found)) / len(found)


# --- captions -----------------------------------------------------------------------------------------------------------------


def test_published_shares_of_wrong_captions(vocab):
    """Half are wrong; of these 40% have an object of the caption swapped for another row's, the others are other rows' captions."""
    table = [{"image": "x", "caption": f"A {name} at place {i}.", "objects": [name, "sky"]} for i, name in enumerate(NAMES)]
    found = draws(stream("matching", table, vocab).made, 0)
    own, *captions = (row["caption"] for row in table)
    assert {record["caption"] for record in found if record["match"] == "yes"} == {own}
    wrong = [record["caption"] for record in found if record["match"] == "no"]
    assert abs(len(wrong) / DRAWS - 0.5) < 0.03
    assert abs(share([text in captions for text in wrong]) - 0.6) < 0.04
    swapped = [text for text in wrong if text not in captions]
    assert set(swapped) == {f"A {name} at place 0." for name in NAMES[1:]} and set(wrong) == {*swapped, *captions}
    for some, count in ((swapped, len(NAMES) - 1), ([text for text in wrong if text in captions], len(captions))):
        assert all(abs(some.count(text) / len(some) - 1 / count) < 0.07 for text in set(some)), "all are equally likely"


def test_every_occurrence_of_the_object_is_swapped_and_only_whole_words(vocab):
    table = [
        {"image": "x", "caption": "a Cat, a caterpillar and a cat", "objects": ["cat", "pillar"]},
        {"image": "x", "caption": "none", "objects": ["\\1 x"]},
    ]
    found = {record["caption"] for record in draws(stream("matching", table, vocab).made, 0, 100)}
    assert found == {"a Cat, a caterpillar and a cat", "none", "a \\1 x, a caterpillar and a \\1 x"}
    assert {record["caption"] for record in draws(stream("matching", table, vocab).made, 1, 50)} == {"none", table[0]["caption"]}


def test_without_objects_in_the_caption_another_caption_is_taken(vocab):
    for objects in ([], None, "", ["zebra"], ["do"]):
        table = [*rows("a dog", objects=objects), *rows("a cat", "a bus", objects=["cat"])]
        found = {record["caption"] for record in draws(stream("matching", table, vocab).made, 0, 100)}
        assert found == {"a dog", "a cat", "a bus"}, objects


@pytest.mark.parametrize(
    ("instruction", "same"),
    [
        (None, ["A dog /  cat", "a dog-cat", ",a DOG cat"]),
        ('does it describe " [TEXT:caption,no_punctuation] "? -> [TEXT:match]', ["a dog!", "a, dog", "a dog"]),
        ('does it describe " [TEXT:caption,max_length=2] "? -> [TEXT:match]', ["a dog runs", "a dog", "a dog  sits"]),
        ('is it [TEXT:caption,map="a hound=a dog"]? -> [TEXT:match]', ["a hound", "a dog"]),
        ("is it [TEXT:caption,clean=caption]? -> [TEXT:match] ||| so [TEXT:caption,max_length=1]? -> [TEXT:match]", ["A dog", "a dog"]),
    ],
)
def test_a_wrong_text_is_none_of_the_rows_own_as_the_model_reads_them(vocab, instruction, same):
    given = None if instruction is None else {"matching": instruction}
    data = stream("matching", rows([same[0], "two"], *same[1:], "!", "Two", "other one"), vocab, instructions=given)
    wrong = {record["caption"] for record in draws(data.made, 0, 300) if record["match"] == "no"}
    extra = {"Two"} if given and "clean" not in instruction else set()
    if given and "no_punctuation" not in instruction:
        extra |= {"!"}  # else nothing is left of it
    assert wrong - extra == {"other one"}


def test_a_table_without_negatives_is_one_error_before_the_run(vocab, tmp_path):
    with pytest.raises(UserError, match="column 'caption': the builder 'matching' takes a wrong caption .* the table has one row: 'a dog'"):
        stream("matching", rows(["a dog", "a cat"]), vocab)
    path = tmp_path / "t.tsv"
    path.write_text("x\tA dog&&a cat\n" + "x\ta cat&&a / dog\n" * 3000)
    table = open_table(path, ["image", "caption"])
    with pytest.raises(UserError, match=r"t\.tsv, column 'caption': .* all rows have the same, as far as 1,000 of them were read: 'A dog'"):
        stream("caption_and_matching", table, vocab)
    with pytest.raises(UserError, match="column 'answer': the builder 'question_and_matching' takes a wrong answer"):
        stream("question_and_matching", [{"image": "x", "question": q, "answer": "yes"} for q in "ab"], vocab)
    with pytest.raises(InstructionError, match=r"replaces captions by wrong ones here: the source needs \[TEXT:caption\]"):
        stream("matching", rows("a", "b"), vocab, instructions={"matching": "[IMAGE:image] match? -> [TEXT:match]"})
    path.write_text("x\tred\nbroken\nx\tgreen\n")  # a broken row is told when it is read, not when another looks for negatives
    data = stream("matching", open_table(path, ["image", "caption"]), vocab)
    assert {record["caption"] for record in draws(data.made, 0, 50)} == {"red", "green"}
    with pytest.raises(UserError, match="row 1 .*: expected 2 columns"):
        data.made(1, np.random.default_rng(0))


def test_a_row_that_has_the_captions_of_all_others_is_named(vocab):
    data = stream("matching", rows(["red", "green"], "red", "green"), vocab)
    with pytest.raises(UserError, match="row 0: no wrong caption for this row in 1,000 random rows"):
        draws(data.made, 0, 50)
    assert {record["caption"] for record in draws(data.made, 1, 50)} == {"red", "green"}
    with pytest.raises(UserError, match="row 0: column 'caption': expected a string or a list of strings, got a number"):
        stream("matching", rows(3, "red", "green"), vocab).made(0, np.random.default_rng(0))
    with pytest.raises(UserError, match="row 2: column 'caption': no such column; the row has 'image'"):
        stream("matching", [*rows("red", "green"), {"image": "x"}], vocab).made(2, np.random.default_rng(0))


# --- answers ------------------------------------------------------------------------------------------------------------------


ANSWERS = ("yes", "no", "1", "two", "10:30", "a dog", "cat", "the bus")


def test_wrong_answers_have_the_type_of_the_right_one_by_its_weight(vocab):
    others = [{"image": "x", "question": "q", "answer": answer} for answer in ANSWERS]

    def wrong(answer):
        data = stream("question_and_matching", [*others, {"image": "x", "question": "q", "answer": answer}], vocab)
        found = draws(data.made, len(others))
        assert {record["answer"] for record in found if record["match"] == "yes"} <= {"2", "yes", "a bus"}
        negatives = [record["answer"] for record in found if record["match"] == "no"]
        assert abs(len(negatives) / DRAWS - 0.5) < 0.03
        return negatives

    sure = wrong({"2": 1.0})
    assert abs(share([answer in ("1", "two", "10:30") for answer in sure]) - 0.9) < 0.04
    assert set(sure) == {"1", "two", "10:30", "a dog", "cat", "the bus"}
    doubtful = wrong({"2": 0.3, "1": 0.2, "cat": 0.0})
    assert abs(share([answer in ("two", "10:30") for answer in doubtful]) - 0.2) < 0.04
    assert set(doubtful) == {"two", "10:30", "a dog", "the bus"}, "none of the row's own answers"
    assert abs(share([answer == "no" for answer in wrong("yes")]) - 0.9) < 0.04
    assert set(wrong("a bus")) == {"a dog", "cat", "the bus"}


def test_where_a_type_is_missing_any_other_answer_is_wrong(vocab):
    table = [{"image": "x", "question": "q", "answer": answer} for answer in (["3", "3", "4"], "yes")]
    data = stream("question_and_matching", table, vocab)
    assert {record["answer"] for record in draws(data.made, 0, 60)} == {"3", "yes"}
    assert {record["answer"] for record in draws(data.made, 1, 60)} == {"yes", "3"}


# --- text ---------------------------------------------------------------------------------------------------------------------


def test_masked_spans_have_the_published_share_and_lengths(vocab):
    """30% of the words exactly, rounded up; lengths as Poisson(3), the last one cut."""
    rng = np.random.default_rng(3)
    for count in [*range(1, 30), 200]:
        words = [f"w{i}" for i in range(count)]
        found = masked(words, rng)
        kept = [word for word in found if word != "<mask>"]
        assert len(kept) == count - math.ceil(0.3 * count) and kept == sorted(kept, key=words.index)
    lengths = span_lengths(30_000, rng)
    assert sum(lengths) == 30_000
    counts = np.bincount(lengths[:-1], minlength=9)
    counts = np.append(counts[:8], counts[8:].sum())
    probabilities = np.array([math.exp(-3) * 3**k / math.factorial(k) for k in range(8)])
    expected = np.append(probabilities, 1 - probabilities.sum()) * counts.sum()
    assert ((counts - expected) ** 2 / expected).sum() < 26.1, "chi-square with 8 degrees of freedom, p = 0.001"
    starts = np.array([masked([str(i) for i in range(20)], rng).index("<mask>") for _ in range(300)])
    assert (starts == 0).any() and (starts > 5).any(), "spans are anywhere"


def test_infilling_reads_mask_tokens_and_says_the_whole_text(vocab):
    text = "a red square above a green circle and a blue one"
    data = stream("infilling", [{"text": text}], vocab)
    seen = set()
    for epoch in range(1, 20):
        data.set_epoch(epoch)
        (example,) = data[0]
        assert vocab.decode(example.target[:-1]) == f" {text}" and example.truncated == 0 and not example.media
        source = example.source[1:-1].tolist()
        shown = vocab.decode(source)
        words = shown.removeprefix(' what is the complete text of " ').removesuffix(' "?').split()
        assert source.count(vocab.mask) == words.count("<mask>") > 0
        before, _, after = f' what is the complete text of " {" ".join(words)} "?'.partition(" <mask>")
        assert source[: len(vocab.encode(before))] == vocab.encode(before) and source[len(vocab.encode(before))] == vocab.mask
        assert len([word for word in words if word != "<mask>"]) == 11 - 4, "30% of 11 words, rounded up"
        seen.add(shown)
    assert len(seen) > 10
    given = parse("[TEXT:a,masks] -> [TEXT:b]", MODALITIES)
    plain = Stream(RowTable([{"a": "<mask> red<mask>, <mask>", "b": "x"}]), given, vocab, MediaOptions(), TextLimits())
    assert plain[0][0].source[1:-1].tolist() == [vocab.mask, *vocab.encode(" red"), vocab.mask, *vocab.encode(","), vocab.mask]
    with pytest.raises(InstructionError, match="masks needs the marks of <mask>"):
        Stream(RowTable([{"a": "x"}]), parse("[TEXT:a,masks,no_punctuation] -> [TEXT:a]", MODALITIES), vocab, MediaOptions(), TextLimits())


def test_plain_text_is_cut_at_any_word(vocab):
    data = stream("text", [{"text": "a b  c d"}, {"text": "a"}, {"text": " "}], vocab)
    found = {(record["start"], record["rest"]) for record in draws(data.made, 0, 100)}
    assert found == {("a", "b c d"), ("a b", "c d"), ("a b c", "d")}
    assert [(record["start"], record["rest"]) for record in draws(data.made, 1, 1)] == [("", "a")]
    (example,) = data[1]
    assert vocab.decode(example.source[1:-1]) == ' how does the text " " go on?' and vocab.decode(example.target[:-1]) == " a"
    with pytest.raises(UserError, match="row 2: column 'text': a reference must not be empty"):
        data[2]


def test_long_texts_give_a_random_segment(vocab):
    text = " ".join(map(str, range(1000)))
    starts = {int(record["text"].split()[0]) for record in draws(stream("infilling", [{"text": text}], vocab).made, 0, 30)}
    assert len(starts) > 20 and max(starts) <= 1000 - MOST_WORDS
    short = TextLimits(source=5, target=5, source_tokens=5000, target_tokens=5000)
    for name in ("infilling", "text"):
        (example,) = stream(name, [{"text": text}], vocab, limits=short)[0]
        assert example.truncated == 0 and len(example.target) > 20


# --- the frame ----------------------------------------------------------------------------------------------------------------


def test_questions_and_answers_are_not_drawn_apart(vocab, caplog):
    """Lists that are equally long in every row are pairs; questions asked in several ways and several answers are not.  Where all rows
    have as many, they may be either."""
    instructions = {"": "[TEXT:question] -> [TEXT:answer]"}
    table = [{"question": ["red?", "blue?"], "answer": ["yes", "no"]}, {"question": ["a", "b", "c"], "answer": ["1", "2", "3"]}]
    message = "row 0: 'question' and 'answer' have lists of the same length, .* --builder grouped makes an example of each place"
    for train in (True, False):
        with pytest.raises(UserError, match=message):
            stream("plain", table, vocab, instructions=instructions, train=train)
    assert len(stream("grouped", table, vocab, instructions=instructions).read(0)) == 2
    with pytest.raises(UserError, match="have lists of the same length"):
        stream("plain", table, vocab, instructions={"": "[TEXT:question,no_loss] is [TEXT:answer]".join(["red -> ", ""])})
    with caplog.at_level(logging.WARNING):
        stream("plain", table[:1] * 2, vocab, instructions=instructions)
        stream("plain", [{"question": "a", "answer": ["1", "2"]}], vocab, instructions=instructions)
    (said,) = caplog.messages
    assert "'question' and 'answer' have lists of 2 in the first rows, of which one each is drawn by itself; --builder grouped" in said
    references = [*table, {"question": ["a", "b"], "answer": ["1", "2", "3"]}]
    assert len(stream("plain", references, vocab, instructions=instructions).read(0)) == 1


def test_a_row_gives_one_example_per_place_of_its_lists(vocab, tmp_path):
    table = [
        {"image": "x", "question": ["a", "b"], "answer": [["1", "1"], "2"], "box": [0, 0, 1, 1], "n": [7, 8]},
        {"image": "x", "question": "c", "answer": "3", "box": [0, 0, 1, 1], "n": 1},
        {"image": "x", "question": ["a", "b"], "answer": ["1"], "box": [0, 0, 1, 1], "n": 1},
    ]
    given = parse("[TEXT:question] -> [TEXT:answer]", MODALITIES)
    data = Stream(RowTable(table), given, vocab, MediaOptions(), TextLimits(), train=True, builder="grouped")
    first, second = (record for _, record in data.made(0, None))
    assert first == {**table[0], "question": "a", "answer": ["1", "1"]} and second == {**table[0], "question": "b", "answer": "2"}
    assert [record for _, record in data.made(1, None)] == [table[1]]
    assert [vocab.decode(example.source[1:-1]) for example in data[0]] == [" a", " b"]
    with pytest.raises(UserError, match="row 2: the lists of a row must be equally long, .*: 'question' has 2, 'answer' has 1"):
        data[2]
    path = tmp_path / "t.tsv"
    path.write_text("a\tb\n")
    data = Stream(open_table(path, ["question", "answer"]), given, vocab, MediaOptions(), TextLimits(), train=True, builder="grouped")
    with pytest.raises(UserError, match=r"row 0 \(line 1\): the builder 'grouped' reads lists"):
        data[0]


def test_several_boxes_of_an_image_are_grounded_and_described_each(vocab):
    table = [{"image": "x", "text": ["a dog", ["a cat", "a pet"]], "box": [[0, 0, 1, 1], [1, 1, 2, 2]], "objects": ["tree"]}]
    dog, cat = ({**table[0], "text": text, "box": box} for text, box in zip(table[0]["text"], table[0]["box"], strict=True))
    found = {name: stream(name, table, vocab).made(0, None) for name in ("grounding", "region", "grounding_and_region")}
    assert found["grounding_and_region"] == [("grounding", dog), ("region", dog), ("grounding", cat), ("region", cat)]
    assert found["grounding"] == [("grounding", dog), ("grounding", cat)] and found["region"] == [("region", dog), ("region", cat)]
    one = {"image": "x", "text": ["a dog", "a pet"], "box": [0, 0, 1, 1]}  # references
    assert stream("grounding", [one], vocab).made(0, None) == [("grounding", one)]
    with pytest.raises(UserError, match="row 0: the lists of a row must be equally long, .*: 'text' has 1, 'box' has 2"):
        stream("region", [{**table[0], "text": ["a dog"]}], vocab).made(0, None)


def test_several_questions_about_an_image_are_asked_and_matched_each(vocab):
    table = [
        {"image": "x", "question": ["is it red?", "what is it?"], "answer": [["yes"], ["dog", "dog", "cat"]], "objects": ["a"]},
        {"image": "x", "question": "how many?", "answer": ["2", "3", "3"]},
    ]
    data, rng = stream("question_and_matching", table, vocab), np.random.default_rng(0)
    pairs = zip(table[0]["question"], table[0]["answer"], strict=True)
    red, what = ({**table[0], "question": question, "answer": answer} for question, answer in pairs)
    wrong = set()
    for _ in range(300):
        made = data.made(0, rng)
        assert [name for name, _ in made] == ["question", "matching"] * 2 and [made[0][1], made[2][1]] == [red, what]
        for (_, matched), right in ((made[1], "yes"), (made[3], "dog")):
            assert (matched["match"] == "yes") == (matched["answer"] == right)
            wrong |= {(right, matched["answer"])} if matched["match"] == "no" else set()
    assert wrong == {("yes", "dog"), ("yes", "3"), ("dog", "yes"), ("dog", "3")}, "none of a question's own answers, even a rare one"
    assert stream("question", table, vocab).made(1, None) == [("question", table[1])], "annotators' answers to one question"
    with pytest.raises(UserError, match="row 0: the lists of a row must be equally long, .*: 'question' has 1, 'answer' has 2"):
        stream("question", [{**table[0], "question": ["is it red?"]}], vocab).made(0, None)


def test_builders_with_instructions_can_be_read_and_sent_to_workers(vocab):
    """Each name that a builder gives is among its instructions, for every medium."""
    row = {"caption": "a", "question": "q", "answer": "b", "text": "t", "box": [0, 0, 1, 1], "objects": ["a"], "image": "x", "audio": "x"}
    table = [row, {**row, "caption": "b", "answer": "c", "dataset": "cc12m"}]
    for name, builder in BUILDERS.items():
        for medium in ("image", "audio") if name not in ("plain", "grouped") else ():
            if medium == "audio" and name in ("grounding", "region", "grounding_and_region"):
                with pytest.raises(InstructionError, match="a box is of an image or a video"):
                    stream(name, table, vocab, medium)
                continue
            data = pickle.loads(pickle.dumps(stream(name, table, vocab, medium)))
            names = {key for number in range(2) for key, _ in data.made(number, np.random.default_rng(0))}
            assert names <= set(builder.instructions(medium)) and names
    assert set(BUILDERS["caption"].instructions("video")) == {"caption", "caption_cc12m"}
    with pytest.raises(UserError, match="'picture' is not a modality with media of its own; expected one of image, video, audio"):
        builder_of("caption").instructions("picture")


def test_two_tasks_of_a_row_decode_and_embed_its_image_once(vocab, tmp_path):
    """Through a forward of a model: the image network sees each image once."""
    data = stream("caption_and_matching", open_table(tiny.write_table(tmp_path, rows=3)), vocab)
    loads, loader = [], data.loaders["IMAGE"]
    data.loaders["IMAGE"] = lambda *args, **options: (loads.append(1), loader(*args, **options))[1]
    batch = data.collater([data[0], data[1], data[2]])
    assert len(loads) == 3 and batch["nsentences"] == 6
    model = tiny.model(vocab, modalities="image")
    images = []
    model.encoder.media["image"].backbone.register_forward_pre_hook(lambda module, args: images.append(len(args[0])))
    with torch.no_grad():
        logits, _ = model(**batch["net_input"])
        assert len(logits) == 6 and images == [3]
        for number, example in enumerate(data[0]):
            alone, _ = model(**data.collater([[example]])["net_input"])
            torch.testing.assert_close(logits[number, : alone.size(1)], alone[0], atol=1e-4, rtol=1e-4)


def test_candidate_answers_are_of_the_instructions_that_have_them(vocab):
    """A question from a closed set, and the matching of its answers, whose yes and no are none of these."""
    closed = {"question": "[TEXT:question] -> [TEXT:answer,weighted,closed_set]"}
    candidates = frozenset({tuple(vocab.encode(" red"))})
    matching = {"matching": '[TEXT:question] " [TEXT:answer] "? -> [TEXT:match]'}
    table = [{"question": "q", "answer": answer} for answer in ("red", "blue")]
    data = stream("question_and_matching", table, vocab, instructions={**closed, **matching}, candidates=candidates)
    question, other = data[0]
    assert (question.is_outside, other.is_outside) == (False, True)
    with pytest.raises(UserError, match="'blue' is none of the 1 candidate answer"):
        data[1]
