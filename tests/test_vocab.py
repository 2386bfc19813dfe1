"""Vocabulary: the published order and ids, decoding, the trainer, and what bad files get.

GPT-2's files are too large for the repository, so these tests use an extract of them (golden/gpt2_extract.json):
the byte tokens and every merge that the texts below use, with their published numbers. The other rows of BART's
dict.txt are filled with fairseq's filler words, so the size and every id are the published ones. Name a folder with the
complete encoder.json and vocab.bpe in UNIVAL_GPT2_BPE to repeat the comparison with these.
"""

import json
import os
import pathlib
import pickle
import shutil

import pytest

from tests.published_texts import normalize_caption, normalize_question, published_texts, truncate_words
from unival.errors import UserError
from unival.text import strip_punctuation
from unival.vocab import Vocabulary, train_vocabulary

GOLDEN = pathlib.Path(__file__).parent / "golden"
CAPTIONS = [" a red dog left of a red flag", " a blue flag right of a red dog", " two red dogs"] * 4


def write_extract(folder: pathlib.Path) -> pathlib.Path:
    extract = json.loads((GOLDEN / "gpt2_extract.json").read_text(encoding="utf-8"))
    encoder = {token: number for token, number, _ in extract["tokens"]}
    rows = [f"madeupword{row:05d} 0" for row in range(extract["dict_rows"])]
    for _, number, row in extract["tokens"]:
        rows[row] = f"{number} 1"
    (folder / "encoder.json").write_text(json.dumps(encoder), encoding="utf-8")
    (folder / "vocab.bpe").write_text("\n".join(["#version: 0.2", *extract["merges"], ""]), encoding="utf-8")
    (folder / "dict.txt").write_text("\n".join(rows), encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def published(tmp_path_factory):
    return Vocabulary.load(write_extract(tmp_path_factory.mktemp("gpt2")))


@pytest.fixture(scope="module")
def trained_folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("trained")
    train_vocabulary(CAPTIONS, 280, folder)
    return folder


@pytest.fixture
def small_folder(trained_folder, tmp_path):
    return pathlib.Path(shutil.copytree(trained_folder, tmp_path / "vocabulary"))


def golden_extract():
    return json.loads((GOLDEN / "text.json").read_text(encoding="utf-8"))


def test_published_order_of_tokens(published):
    assert len(published) == 59457 == len(published.dictionary)
    assert (published.bos, published.pad, published.eos, published.unk, published.mask) == (0, 1, 2, 3, 50264)
    assert (published.code_range, published.bin_range) == ((50265, 58457), (58457, 59457))
    assert [published.dictionary[i] for i in (0, 1, 2, 3, 4)] == ["<s>", "<pad>", "</s>", "<unk>", "13"]
    assert published.code(5) == 50270 and published.bin(999) == 59456
    assert published.dictionary.index("<bin_999>") == 59456


@pytest.mark.parametrize("name,text,ids", list(published_texts(golden_extract())))
def test_published_ids(published, name, text, ids):
    assert published.encode(text) == ids
    assert published.decode(ids) == text


def test_published_ids_of_the_whole_reference_file(published, shared):
    golden = json.loads((shared / "reference/golden/data.json").read_text(encoding="utf-8"))
    cases = list(published_texts(golden))
    assert len(cases) >= 54
    assert [(name, published.encode(text)) for name, text, _ in cases] == [(name, ids) for name, _, ids in cases]


def test_full_gpt2_files(tmp_path, shared, published):
    source = os.environ.get("UNIVAL_GPT2_BPE")
    if source is None:
        pytest.skip("set UNIVAL_GPT2_BPE to a folder with GPT-2's encoder.json and vocab.bpe")
    for name in ("encoder.json", "vocab.bpe"):
        shutil.copy(pathlib.Path(source) / name, tmp_path / name)
    shutil.copy(shared / "reference/bart_dict.txt", tmp_path / "dict.txt")
    full = Vocabulary.load(tmp_path)
    assert len(full) == 59457
    golden = json.loads((shared / "reference/golden/data.json").read_text(encoding="utf-8"))
    assert [full.encode(text) for _, text, _ in published_texts(golden)] == [ids for *_, ids in published_texts(golden)]
    everything = " région: naïve café 北京 🙂 don't we'll I'M 123 4.5 <|endoftext|>\n\t  x"
    assert full.encode(everything) == published.encode(everything)
    assert full.decode(full.encode(everything)) == everything
    assert full.fingerprint != published.fingerprint


def test_region_prompt_with_bins(published):
    measured = golden_extract()["unify"]["samples"][3][1]["source"]  # <s> prompt bins </s>
    boxes = [published.bin(i) for i in (195, 98, 390, 293)]
    ids = published.encode("  what does the region describe? region:") + boxes
    assert ids == measured[1:-1]
    assert published.decode(measured) == (
        "  what does the region describe? region: <bin_195> <bin_98> <bin_390> <bin_293>"
    )


def test_entries_as_fairseq_generate_prints_them(published):
    assert published.encode_entries("<bin_0> <bin_999> <code_5>") == [58457, 59456, 50270]
    assert published.decode_entries("464 3290") == "The dog"
    ids = published.encode(" two dogs") + [published.eos]
    assert published.decode_entries(published.dictionary.string(ids)) == " two dogs"
    with pytest.raises(UserError, match="'<bin_1000>' is not in this vocabulary.*<bin_0>..<bin_999>"):
        published.decode_entries("464 <bin_1000>")


def test_decode_drops_ends_and_shows_special_tokens(published):
    ids = [published.bos, *published.encode(" a dog"), published.unk, published.mask, *published.encode(" cat")]
    assert published.decode([*ids, published.eos, published.pad]) == " a dog <unk> <mask> cat"
    letter = published.encode("🙂")
    assert len(letter) > 1 and "\ufffd" in published.decode(letter[:1]) and published.decode(letter) == "🙂"
    with pytest.raises(AssertionError, match="59457 tokens"):
        published.decode([59457])


def test_no_text_becomes_a_special_token(published):
    text = "<s> <mask> <bin_3> </s> <|endoftext|>"
    assert not {published.bos, published.eos, published.mask, published.bin(3)} & set(published.encode(text))
    assert published.decode(published.encode(text)) == text
    assert published.encode("") == []


def test_pickles_for_workers(published):
    again = pickle.loads(pickle.dumps(published))
    assert again.encode(" what does the image describe?") == [99, 473, 5, 2274, 6190, 116]
    assert again.fingerprint == published.fingerprint


def test_code_and_bin_outside(published):
    with pytest.raises(UserError, match=r"code 8192 does not exist.*<code_0>\.\.<code_8191>"):
        published.code(8192)
    with pytest.raises(UserError, match="bin -1 does not exist"):
        published.bin(-1)


def test_trained_vocabulary_encodes_everything(trained_folder):
    vocabulary = Vocabulary.load(trained_folder, num_codes=3, num_bins=5)
    lines = (trained_folder / "dict.txt").read_text().splitlines()
    assert len(lines) == 280 and len(vocabulary) == 4 + 280 + 1 + 3 + 5
    counts = [int(line.split()[1]) for line in lines]
    assert counts == sorted(counts, reverse=True)
    assert sum(counts) == sum(len(vocabulary.encode(text)) for text in CAPTIONS)
    assert (trained_folder / "vocab.bpe").read_text(encoding="utf-8").startswith("#version")
    for text in (*CAPTIONS, " naïve 北京 🙂", "\t\n\x00 \\"):
        assert vocabulary.decode(vocabulary.encode(text)) == text
    assert len(vocabulary.encode(" a red dog")) <= 4


def test_training_is_deterministic(trained_folder, tmp_path):
    train_vocabulary(iter(CAPTIONS), 280, tmp_path)
    for name in ("encoder.json", "vocab.bpe", "dict.txt"):
        assert (tmp_path / name).read_bytes() == (trained_folder / name).read_bytes()


def test_fingerprint_tells_vocabularies_apart(small_folder, trained_folder):
    base = Vocabulary.load(trained_folder, 3, 5).fingerprint
    assert len(base) == 64 and Vocabulary.load(small_folder, 3, 5).fingerprint == base
    assert Vocabulary.load(small_folder, 3, 6).fingerprint != base
    encoder = json.loads((small_folder / "encoder.json").read_text(encoding="utf-8"))
    encoder["x"], encoder["z"] = encoder["z"], encoder["x"]
    (small_folder / "encoder.json").write_text(json.dumps(encoder), encoding="utf-8")
    assert Vocabulary.load(small_folder, 3, 5).fingerprint != base


def test_complete_dictionary_is_taken_when_it_fits(small_folder):
    vocabulary = Vocabulary.load(small_folder, 3, 5)
    vocabulary.dictionary.save(str(small_folder / "dict.txt"))
    assert Vocabulary.load(small_folder, 3, 5).fingerprint == vocabulary.fingerprint
    with pytest.raises(UserError, match=r"holds 3 <code_i> and 5 <bin_i> tokens, but num_codes=8192 and num_bins=5 "):
        Vocabulary.load(small_folder, 8192, 5)


def drop(name):
    return lambda folder: (folder / name).unlink()


def write(name, content):
    return lambda folder: (folder / name).write_text(content, encoding="utf-8")


def append(name, line):
    return lambda folder: (folder / name).write_text((folder / name).read_text() + line, encoding="utf-8")


@pytest.mark.parametrize(
    "damage,message",
    [
        (drop("vocab.bpe"), "lacks vocab.bpe: train one with `unival train-vocab"),
        (shutil.rmtree, "there is no vocabulary folder .*train one"),
        (write("encoder.json", "{"), "encoder.json, line 1, character 2: not JSON"),
        (write("encoder.json", "[1]"), "expected one JSON object"),
        (write("encoder.json", '{"a": 1, "b": 1}'), "a different number"),
        (write("encoder.json", '{"a": 1}'), "lacks 255 of the 256 byte tokens"),
        (write("vocab.bpe", "a b\n"), "vocab.bpe, line 1: expected '#version: 0.2', got 'a b'"),
        (append("vocab.bpe", "a b c\n"), "vocab.bpe, line 26: expected two tokens .* 'a b c'"),
        (append("vocab.bpe", "z z\n"), "vocab.bpe, line 26: token 'zz' is not in encoder.json"),
        (append("dict.txt", "9999 0\n"), "lists 1 token not among the numbers .* '9999'"),
        (append("dict.txt", "9999\n"), "dict.txt, line 281: expected 'token count', got '9999'"),
        (append("dict.txt", "0 5\n"), "dict.txt, line 281: token '0' is listed twice"),
        (write("dict.txt", "0 5\n"), "lacks 279 numbers of encoder.json .the first is 1"),
        (append("dict.txt", "<bin_0> 1\n"), "already holds 0 <code_i> and 1 <bin_i>"),
        (lambda folder: (folder / "dict.txt").write_bytes(b"\xff 1\n"), "dict.txt: not UTF-8 text .*looks like ISO-8859-1"),
    ],
)
def test_bad_files(small_folder, damage, message):
    damage(small_folder)
    with pytest.raises(UserError, match=message) as caught:
        Vocabulary.load(small_folder, 3, 5)
    assert "\n" not in str(caught.value)


def test_bad_sizes(small_folder, tmp_path):
    with pytest.raises(UserError, match="num_codes and num_bins must be 0 or more"):
        Vocabulary.load(small_folder, -1, 5)
    with pytest.raises(UserError, match="must be at least 256, got 100"):
        train_vocabulary(CAPTIONS, 100, tmp_path)
    with pytest.raises(UserError, match="no text to train"):
        train_vocabulary(["", "  "], 300, tmp_path)


def test_text_clean_up_matches_published():
    golden = golden_extract()["text"]
    assert len(golden["pre_question"]) == len(golden["pre_caption"]) == 5
    for text, expected in golden["pre_question"].items():
        assert normalize_question(text, 6) == expected
    for text, expected in golden["pre_caption"].items():
        assert normalize_caption(text, 6) == expected
    assert normalize_question("one two three four five six seven") == "one two three four five six seven"
    assert strip_punctuation("A man, (blue) Wave-board!") == "A man blue Waveboard"
    assert truncate_words("  a  b c", 2) == "a b" and truncate_words(" a  b", None) == "a b"


def test_a_trained_vocabulary_notes_its_sizes_and_another_is_guessed_aloud(small_folder, caplog):
    assert [Vocabulary.load(small_folder).num_codes, Vocabulary.load(small_folder).num_bins] == [0, 0]
    given = Vocabulary.load(small_folder, 3)
    assert (given.num_codes, given.num_bins) == (3, 0)
    assert Vocabulary.load(small_folder, 2, 1).num_bins == 1 and not caplog.records
    (small_folder / "sizes.json").unlink()  # as folders from before there was this note
    guessed = Vocabulary.load(small_folder)
    assert (guessed.num_codes, guessed.num_bins) == (8192, 1000)
    (warning,) = caplog.records
    assert "--num-codes 0 --num-bins 0" in warning.getMessage() and str(small_folder) in warning.getMessage()
    assert Vocabulary.load(small_folder, 0, 0).num_codes == 0 and len(caplog.records) == 1


def test_the_published_vocabulary_needs_no_note(published, caplog):
    assert (published.num_codes, published.num_bins) == (8192, 1000) and not caplog.records


@pytest.mark.parametrize("text", ["[]", "{", '{"num_codes": 1}', '{"num_codes": "x", "num_bins": 0}'])
def test_a_broken_note_is_named(small_folder, text):
    (small_folder / "sizes.json").write_text(text)
    with pytest.raises(UserError, match=r"sizes\.json: expected an object"):
        Vocabulary.load(small_folder)
