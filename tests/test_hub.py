"""The Python API and `unival run` on a tiny model that takes every medium: what they take, and what they say of the rest."""

import contextlib
import copy
import io
import json
import os
import pathlib
import pickle
import re
import shutil
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from PIL import Image

from tests import runs, tiny
from unival.checkpoints.files import read
from unival.cli import main
from unival.data.reading import THREAD
from unival.errors import UserError
from unival.hub import Output, from_checkpoint
from unival.metrics.score import read_generated
from unival.modalities.kinds import kind_of

QUESTION = "[IMAGE:image] what? -> [TEXT:answer]"
CLOSED = "[IMAGE:image] what? -> [TEXT:answer,closed_set]"


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A model after one update, and files of every kind."""
    folder = tmp_path_factory.mktemp("hub")
    tiny.write_media_table(folder, rows=2)
    tiny.vocabulary(folder / "vocab", num_codes=0, num_bins=0)
    small = ("--patch-frame-size", "32", "--num-frames", "2", "--max-audio-seconds", "0.5", "--disable-validation")
    cnns = ("--modalities", "image,video,audio", "--video-backbone", "resnext3d14", "--audio-backbone", "cnn6")
    assert runs.train(folder, folder / "model", "--batch-size", "2", "--max-update", "1", *small, *cnns) == 0
    for name, ending in (("good", "png"), ("clip", "webp"), ("noise", "wav")):
        shutil.copy(folder / "images" / f"train.jsonl-0.{'png' if ending == 'png' else ending}", folder / f"{name}.{ending}")
    (folder / "bad.jpg").write_bytes(b"\xff\xd8\xff\xe0" + bytes(200))
    (folder / "notes.txt").write_text("This is not an image.\n")
    return folder


@pytest.fixture(scope="module")
def checkpoint(place):
    return place / "model" / "checkpoint_last.pt"


@pytest.fixture(scope="module")
def model(checkpoint):
    return from_checkpoint(checkpoint)


def command(capsys, *arguments) -> tuple[int, str, str]:
    """Exit code, standard output and standard error of a command."""
    code = main([str(argument) for argument in arguments])
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def test_loading_draws_no_random_numbers_and_leaves_no_weight_without_a_value(checkpoint, monkeypatch):
    before, empty = torch.get_rng_state(), torch.empty
    monkeypatch.setattr(torch, "empty", lambda *args, **kwargs: empty(*args, **kwargs).fill_(-7))  # what memory may hold
    found = from_checkpoint(checkpoint).model.state_dict()
    assert torch.equal(torch.get_rng_state(), before)
    saved = read(checkpoint)["model"]
    assert found.keys() == saved.keys() and all(torch.equal(value, found[key]) for key, value in saved.items())


# What it takes --------------------------------------------------------------------------------------------------------


def test_every_way_to_give_an_image_is_the_same_image(model, place):
    path = place / "good.png"
    image = Image.open(path).convert("RGB")
    pixels = np.asarray(image).copy()
    ways = [path, str(path), path.read_bytes(), bytearray(path.read_bytes()), io.BytesIO(path.read_bytes()), image, pixels]
    ways += [torch.from_numpy(pixels), torch.from_numpy(pixels).permute(2, 0, 1)]
    with path.open("rb") as file:
        captions = model.caption([*ways, file])
    assert len(captions) == 10 and len(set(captions)) == 1
    assert model.caption(pixels) == model.caption(path) == captions[:1]
    with path.open("rb") as file:
        assert model.caption(file) == captions[:1]
    grey = pixels[:, :, 0].copy()
    assert model.caption([grey, grey[..., None]]) == model.caption([Image.fromarray(grey)]) * 2
    row = {"image": path, "q": np.array(["red", "blue"]), "unused": np.zeros(3)}
    asked = "[IMAGE:image] [TEXT:q] -> [TEXT:a]"
    assert model.run(asked, row) == model.run(asked, {"image": pixels, "q": ["red", "blue"]})


def test_rows_are_read_while_others_are_computed(model, place):
    """In order, the next batch ahead, with an error for a row that cannot be read; nothing reads on when nobody asks any more."""

    def readers():
        return [thread for thread in threading.enumerate() if thread.name == THREAD]

    files = [place / name for name in ("good.png", "bad.jpg", "good.png", "notes.txt", "good.png")]
    rows = [{"image": file} for file in files]
    alone = [list(model.answers(QUESTION, row, max_len_b=3))[0] for row in rows]
    together = list(model.answers(QUESTION, rows, batch_size=2, max_len_b=3))
    assert [str(answer).replace("row 1,", "row 0,").replace("row 3,", "row 0,") for answer in together] == [str(answer) for answer in alone]
    assert [isinstance(answer, UserError) for answer in together] == [False, True, False, True, False] and not readers()
    answers = model.answers(QUESTION, rows, batch_size=1, max_len_b=3)
    next(answers)
    assert readers()
    answers.close()
    assert not readers()


def test_threads_read_ahead_beside_each_other(model, place):
    rows = [{"image": place / "good.png"}] * 6
    expected = model.run(QUESTION, rows, max_len_b=3)
    with ThreadPoolExecutor(2) as pool:
        found = [pool.submit(model.run, QUESTION, rows, batch_size=2, max_len_b=3) for _ in range(4)]
        assert all(each.result(timeout=60) == expected for each in found)


@pytest.mark.parametrize("kind", [SystemExit, GeneratorExit, RuntimeError])
def test_what_ends_the_reading_is_told(model, place, kind, monkeypatch):
    def read(stream, row):
        raise kind("over")

    monkeypatch.setattr("unival.data.stream.Stream.read", read)
    with pytest.raises(kind, match="over"):
        model.run(QUESTION, [{"image": place / "good.png"}] * 3, batch_size=1)


def test_n_best(model, place):
    (three,) = model.run(QUESTION, {"image": place / "good.png"}, nbest=3, beam=4, max_len_b=5)
    (best,) = model.run(QUESTION, [{"image": place / "good.png"}], beam=4, max_len_b=np.int64(5))
    assert (three.text, three.score, three.tokens) == (best.text, best.score, best.tokens) and best.alternatives == ()
    scores = [three.score, *(output.score for output in three.alternatives)]
    assert len(scores) == 3 and scores == sorted(scores, reverse=True)
    assert len({three.tokens, *(output.tokens for output in three.alternatives)}) == 3
    assert three.text == model.task.vocabulary.decode(three.tokens).strip()
    assert Output("a", 0.5) == Output(text="a", score=0.5, tokens=(), alternatives=(), box=None, codes=None)


def test_a_closed_set_gives_way_to_nothing_but_what_was_given(model, place):
    """The captioning task forbids repeated trigrams and 23 tokens by default; an answer may have both."""
    answers = ["red red red red red red", "blue " * 25 + "circle"]
    (found,) = model.run(CLOSED, {"image": place / "good.png"}, closed_set=answers, nbest=5)
    assert {found.text, *(output.text for output in found.alternatives)} == set(answers)  # two, however wide the beam
    assert model.run(CLOSED, {"image": place / "good.png"}, closed_set=(a for a in answers))[0].text == found.text
    with pytest.raises(UserError, match="--no-repeat-ngram-size 3 could forbid"):
        model.run(CLOSED, {"image": place / "good.png"}, closed_set=answers, no_repeat_ngram_size=3)


@pytest.mark.parametrize("slot, name", [("IMAGE", "good.png"), ("VIDEO", "clip.webp"), ("AUDIO", "noise.wav")])
def test_half_precision_is_close_and_goes_back(checkpoint, place, slot, name):
    model = from_checkpoint(checkpoint)
    instruction, row, options = f"[{slot}:x] what? -> [TEXT:y]", {"x": place / name}, {"beam": 1, "min_len": 3, "max_len_b": 3}
    (whole,) = model.run(instruction, row, **options)
    for halve in (lambda: model.to(torch.bfloat16), model.half):
        assert halve() is model and model.dtype in (torch.bfloat16, torch.float16)
        (half,) = model.run(instruction, row, **options)
        assert half.score == pytest.approx(whole.score, abs=0.05)
    assert model.to("cpu", torch.float32).dtype == torch.float32 and model.device == torch.device("cpu")


def test_types_by_name(checkpoint, place):
    row, options = {"image": place / "good.png"}, {"beam": 1, "min_len": 3, "max_len_b": 3}
    (whole,) = from_checkpoint(checkpoint).run(QUESTION, row, **options)
    for name, dtype in (("bf16", torch.bfloat16), ("int8", torch.float32)):
        model = from_checkpoint(checkpoint, dtype=name)
        assert model.dtype == dtype and model.int8 == (name == "int8")
        (found,) = model.run(QUESTION, row, **options)
        assert found.score == pytest.approx(whole.score, abs=0.05) and found.score != whole.score
        again = pickle.loads(pickle.dumps(model))
        assert again.int8 == model.int8 and again.run(QUESTION, row, **options) == [found]
    assert model.to(torch.float32).int8 is False and model.run(QUESTION, row, **options)[0].score == pytest.approx(whole.score, abs=1e-5)
    with pytest.raises(UserError, match="unknown dtype 'int4'"):
        from_checkpoint(checkpoint, dtype="int4")


# Copies and processes -------------------------------------------------------------------------------------------------


def test_copies_and_pickles_answer_alike(model, place):
    row = {"image": place / "good.png"}
    expected = model.run(QUESTION, row)
    assert copy.deepcopy(model).run(QUESTION, row) == expected
    assert pickle.loads(pickle.dumps(model)).run(QUESTION, row) == expected


PROCESSES = """
import multiprocessing, sys
if __name__ == "__main__":
    import torch
    from unival.hub import from_checkpoint
    torch.set_num_threads(2)
    model = from_checkpoint(sys.argv[1])
    assert multiprocessing.get_start_method(allow_none=True) is None
    here = [model.caption(path) for path in sys.argv[2:]]
    torch.randn(400, 400) @ torch.randn(400, 400)  # the threads of this process have work: a forked process has none of them
    for method in ("fork", "spawn"):
        with multiprocessing.get_context(method).Pool(1) as pool:
            assert pool.map_async(model.caption, sys.argv[2:]).get(timeout=240) == here, method
    print("the same")
"""


def test_other_processes_answer_alike(checkpoint, place, tmp_path):
    (tmp_path / "program.py").write_text(PROCESSES)
    paths = [place / "good.png", place / "images" / "train.jsonl-1.png"]
    threads = {"OMP_NUM_THREADS": "2", "OMP_WAIT_POLICY": "PASSIVE"}  # two threads that wait idly: a busy machine has no time for more
    result = subprocess.run(
        [sys.executable, tmp_path / "program.py", checkpoint, *paths],
        capture_output=True,
        text=True,
        timeout=600,
        env={**os.environ, **threads, "PYTHONPATH": str(pathlib.Path(__file__).resolve().parents[1])},
    )
    assert result.stdout == "the same\n", result.stderr


# What it refuses ------------------------------------------------------------------------------------------------------


def text_file(place):
    return (place / "notes.txt").open()


WRONG_CALLS = {
    "None to caption": (lambda m, p: m.caption(None), "expected paths, bytes or images, got NoneType"),
    "a number to caption": (lambda m, p: m.caption(3), "got int"),
    "a row to caption": (lambda m, p: m.caption({"image": "a.jpg"}), "got dict"),
    "None as a medium": (lambda m, p: m.caption([None]), "row 0, column 'image': expected a path or base64 text, got null"),
    "no media": (lambda m, p: m.caption([]), "expected at least one row"),
    "a text file": (lambda m, p: m.caption(text_file(p)), "row 0, column 'image': .*is open as text"),
    "a used file": (lambda m, p: m.caption([io.BytesIO(b"")]), "row 0, column 'image': .*was read to its end"),
    "float pixels": (lambda m, p: m.caption(np.full((4, 4, 3), 255.0)), "an array of float64 from 255 to 255 is not an image"),
    "two channels": (lambda m, p: m.caption(np.zeros((4, 4, 2), np.uint8)), "an array of uint8, 4 x 4 x 2"),
    "a batch of pixels": (lambda m, p: m.caption([torch.zeros(2, 3, 4, 4)]), "an array of float32, 2 x 3 x 4 x 4"),
    "an array as a video": (
        lambda m, p: m.run("[VIDEO:v] what? -> [TEXT:a]", {"v": np.zeros((2, 4, 4, 3), np.uint8)}),
        "row 0, column 'v': VIDEO takes no arrays, and this is one of uint8, 2 x 4 x 4 x 3: give a path, bytes or an open file",
    ),
    "an array of numbers as text": (
        lambda m, p: m.run("[IMAGE:image] [TEXT:q] -> [TEXT:a]", {"image": p / "good.png", "q": np.array([1, 2])}),
        "row 0, column 'q': expected a string or a list of strings, got ",
    ),
    "rows of text": (lambda m, p: m.run(QUESTION, "a.jpg"), "rows: expected one dict .* got str"),
    "rows of paths": (lambda m, p: m.run(QUESTION, ["a.jpg"]), "row 0: expected a dict such as .* got str"),
    "rows None": (lambda m, p: m.run(QUESTION, None), "rows: expected one dict .* got NoneType"),
    "a later row": (lambda m, p: m.run(QUESTION, [{"image": p / "good.png"}, 1]), "row 1: expected a dict .* got int"),
    "instruction None": (lambda m, p: m.run(None, {"image": "a"}), "instruction None: expected a text"),
    "a number as text": (
        lambda m, p: m.run("[IMAGE:image] [TEXT:q] -> [TEXT:a]", {"image": p / "good.png", "q": 3}),
        "row 0, column 'q': expected a string or a list of strings, got a number",
    ),
    "batch size as text": (lambda m, p: m.run(QUESTION, {"image": p / "good.png"}, batch_size="2"), "batch size '2': must be"),
    "batch size 0": (lambda m, p: m.caption(p / "good.png", batch_size=0), "batch size 0: must be"),
    "batch size True": (lambda m, p: m.caption(p / "good.png", batch_size=True), "batch size True"),
    "closed set as text": (lambda m, p: closed(m, p, "yes"), r"closed_set 'yes': expected a list of answers such as"),
    "closed set a number": (lambda m, p: closed(m, p, 7), "closed_set 7: expected a list"),
    "numbers as answers": (lambda m, p: closed(m, p, ["one", 2]), r"answer 1 of the closed set is 2 \(a number\): answers are texts"),
    "no answers": (lambda m, p: closed(m, p, []), "closed_set is empty: give at least one answer"),
    "closed set without a slot": (lambda m, p: m.caption(p / "good.png", closed_set=["a"]), "no slot of the instruction has one"),
    "answers equal when cut": (
        lambda m, p: closed(m, p, ["a " * 30 + "b", "a " * 30 + "c"]),
        "'(a )+b' and '(a )+c' of the closed set become equal when they are cut to 30 words: raise --max-tgt-length",
    ),
    "beam as text": (lambda m, p: m.caption(p / "good.png", beam="3"), "generation option beam is '3': expected a whole number"),
    "n-best of a half": (lambda m, p: m.caption(p / "good.png", nbest=1.5), "generation option nbest is 1.5"),
    "n-best captions": (lambda m, p: m.caption(p / "good.png", nbest=2), r"nbest=2: caption\(\) gives one .* use run\(\)"),
    "an unknown option": (lambda m, p: m.caption(p / "good.png", beams=3), "unknown generation option 'beams'"),
    "an unknown device": (lambda m, p: m.to("gpu"), "device 'gpu' cannot be used"),
    "a device that is not there": (lambda m, p: m.to("cuda:99"), "device 'cuda:99' cannot be used"),
    "no device": (lambda m, p: m.to({}), "device {} cannot be used"),
    "whole numbers": (lambda m, p: m.to(torch.int8), "torch.int8 is not a type to compute in"),
}


def test_a_missing_column_is_not_among_those_of_the_row(model, place):
    with pytest.raises(UserError, match=r"^no column 'image'; there are photo\n"):
        model.run(QUESTION, {"photo": place / "good.png"})


def closed(model, place, answers):
    return model.run(CLOSED, {"image": place / "good.png"}, closed_set=answers)


@pytest.mark.parametrize("call", list(WRONG_CALLS))
def test_wrong_calls_get_one_line(model, place, call):
    run, message = WRONG_CALLS[call]
    with pytest.raises(UserError, match=message) as caught:
        run(model, place)
    assert "\n" not in str(caught.value)


def test_wrongly_typed_options_of_loading_get_one_line(checkpoint):
    for path in (None, 3, b"a.pt"):
        with pytest.raises(UserError, match=f"path is {path!r}: expected the path of a file"):
            from_checkpoint(path)
    with pytest.raises(UserError, match="vocab_dir is 3: expected the path of a folder"):
        from_checkpoint(checkpoint, vocab_dir=3)
    with pytest.raises(UserError, match="device 'tpu7' cannot be used"):
        from_checkpoint(checkpoint, device="tpu7")


def test_weights_that_are_no_numbers_are_named(checkpoint, tmp_path):
    container = read(checkpoint)
    state = container["model"]
    keys = ["encoder.layer_norm.weight", "decoder.layer_norm.bias"]
    for key, value in zip(keys, (torch.nan, torch.inf), strict=True):
        state[key] = state[key].clone()
        state[key][:2] = value
    torch.save(container, tmp_path / "broken.pt")
    size = state[keys[0]].numel()
    with pytest.raises(UserError, match="broken.pt: has weights with values that are infinite or not a number: ") as caught:
        from_checkpoint(tmp_path / "broken.pt")
    assert all(f"{key} (2 of {size})" in str(caught.value) for key in keys)


# unival run -----------------------------------------------------------------------------------------------------------


def test_run_answers_what_it_can_and_names_the_rest(place, checkpoint, capsys):
    files = [place / "good.png", place / "bad.jpg", place / "missing.png", place / "good.png"]
    code, out, err = command(capsys, "run", "--path", checkpoint, *files, "--batch-size", "2")
    assert code == 1
    (first, again), errors = out.splitlines(), err.splitlines()[-3:]
    assert first == again and first.startswith(f"{place / 'good.png'}\t")
    assert errors[0].startswith("unival: error: row 1, column 'image' (") and "bad.jpg" in errors[0]
    assert errors[1].startswith("unival: error: row 2, column 'image': ") and "missing.png" in errors[1]
    assert errors[2] == "unival: 2 of 4 rows could not be read"
    code, skipped, err = command(capsys, "run", "--path", checkpoint, *files, "--on-bad-sample", "skip")
    assert (code, skipped) == (0, out) and err.splitlines()[-1] == errors[2] and "unival: skipped: row 1" in err


def test_run_writes_json_and_the_n_best(place, checkpoint, model, capsys):
    row = {"image": str(place / "good.png")}
    arguments = ["run", "--path", checkpoint, "--row", json.dumps(row), "--row", json.dumps(row), "--nbest", "2", "--max-len-b", "4"]
    code, out, _ = command(capsys, *arguments, "--json")
    (expected,) = model.run(model.task.instruction_text, row, nbest=2, max_len_b=4)
    other = expected.alternatives[0]
    scores = [{name: pytest.approx(getattr(each, name)) for name in ("score", "answer_score")} for each in (expected, other)]
    found = {"inputs": row, "text": expected.text, **scores[0], "alternatives": [{"text": other.text, **scores[1]}]}
    assert code == 0 and [json.loads(line) for line in out.splitlines()] == [found, found]
    code, out, _ = command(capsys, *arguments)
    assert out == f"{row['image']}\t{expected.text}\n{row['image']}\t{other.text}\n" * 2
    code, out, err = command(capsys, "run", "--path", checkpoint, "--row", json.dumps(row), "--beam", "2", "--nbest", "3")
    assert code == 1 and "--nbest 3 is more than --beam 2" in err


ASKED = "[IMAGE:image] [TEXT:question] -> [TEXT:answer]"


def test_run_answers_every_question_about_an_image(place, checkpoint, capsys):
    """One after the other, as rows of their own; files alone are refused with a row that would do."""
    asked = {"image": str(place / "good.png"), "question": ["red?", "how many?"], "answer": ["yes", "no", "two"]}
    alone = [{**asked, "question": question} for question in asked["question"]]
    given = ["run", "--path", checkpoint, "--instruction", ASKED, "--max-len-b", "4", "--json"]
    code, out, err = command(capsys, *given, "--row", json.dumps(asked))
    assert code == 0, err
    assert out == command(capsys, *given, *(word for row in alone for word in ("--row", json.dumps(row))))[1] and out.count("\n") == 2
    code, _, err = command(capsys, *given, "--row", json.dumps({**asked, "image": [asked["image"]]}))
    assert code == 1 and "the lists of a row must be equally long, one place per example: 'image' has 1, 'question' has 2" in err
    code, _, err = command(capsys, *given, place / "good.png")
    assert code == 1 and f"use --row '{json.dumps({'image': str(place / 'good.png'), 'question': '…'}, ensure_ascii=False)}'" in err


# Files of another kind ------------------------------------------------------------------------------------------------

KINDS = {"good.png": "an image", "still.jpg": "an image", "clip.mp4": "a video", "clip.webm": "a video", "clip.avi": "a video"}
KINDS |= {"noise.wav": "an audio file", "noise.flac": "an audio file", "noise.mp3": "an audio file", "notes.txt": "a text file"}
KINDS |= {"paper.pdf": "a PDF document", "things.zip": "a ZIP archive"}
TAKES = {"IMAGE": ("an image",), "VIDEO": ("a video",), "AUDIO": ("an audio file", "a video")}
HEADS = {  # files that need a codec to be made: the kind shows in how they begin
    "clip.mp4": b"\0\0\0\x18ftypisom\0\0\x02\0isomiso2" + bytes(64),
    "clip.webm": b"\x1a\x45\xdf\xa3\x9fB\x86\x81\x01" + bytes(64),
    "clip.avi": b"RIFF\x48\0\0\0AVI LIST" + bytes(64),
    "noise.mp3": b"ID3\x04\0\0\0\0\0\0\xff\xfb\x90\x64" + bytes(64),
    "paper.pdf": b"%PDF-1.7\n" + bytes(64),
    "things.zip": b"PK\x03\x04" + bytes(64),
}


@pytest.fixture(scope="module")
def zoo(place, tmp_path_factory):
    import soundfile

    folder = tmp_path_factory.mktemp("zoo")
    for name, head in HEADS.items():
        (folder / name).write_bytes(head)
    for name in ("good.png", "noise.wav", "notes.txt"):
        shutil.copy(place / name, folder / name)
    Image.open(place / "good.png").convert("RGB").save(folder / "still.jpg")
    soundfile.write(folder / "noise.flac", np.zeros(4000), 8000)
    return folder


@pytest.mark.parametrize("slot", list(TAKES))
@pytest.mark.parametrize("name", list(KINDS))
def test_a_file_of_another_kind_is_named_as_such(model, zoo, slot, name):
    kind = KINDS[name]
    assert kind_of((zoo / name).read_bytes()) == kind
    message = None
    with contextlib.suppress(UserError):
        (answer,) = model.answers(f"[{slot}:x] what? -> [TEXT:y]", {"x": zoo / name}, beam=1, max_len_b=2)
        message = str(answer) if isinstance(answer, UserError) else None
    if kind in TAKES[slot]:
        assert message is None or "slot takes" not in message
    else:
        assert message == f"row 0, column 'x': {zoo / name} is {kind}; the instruction's slot takes {TAKES[slot][0]}"


@pytest.mark.parametrize(
    "data, kind",
    [
        (b"", None),
        (bytes(64), None),
        ("größer, schöner".encode(), "a text file"),
        (b"x" * 4095 + "ö".encode(), "a text file"),
        ("text".encode("utf-16"), "a text file"),
        (b"OggS" + bytes(24) + b"\x01vorbis", "an audio file"),
        (b"OggS" + bytes(24) + b"\x80theora", "a video"),
        (b"\0\0\0\x20ftypM4A " + bytes(16), "an audio file"),
        (b"\0\0\0\x20ftypheic" + bytes(16), "an image"),
        (b"\x47" + bytes(187) + b"\x47" + bytes(187), "a video"),
        (b"RIFF\0\0\0\0WEBPVP8 ", "an image"),
        (b"RIFF\0\0\0\0ACON", None),
    ],
    ids=lambda value: re.sub(r"\W", "", str(value))[:12],
)
def test_kinds_by_how_files_begin(data, kind):
    assert kind_of(data) == kind




# Shards ---------------------------------------------------------------------------------------------------------------


def test_shards_share_the_rows(place, checkpoint, tmp_path, capsys):
    tiny.write_table(place, rows=5, name="test.jsonl", seed=3)
    small = ("--patch-image-size", "32")
    whole = runs.generate(place, checkpoint, tmp_path / "whole", "test", *small)
    bare = tmp_path / "without vocab"  # which the checkpoint holds
    bare.mkdir()
    for name in ("test.jsonl", "images"):
        (bare / name).symlink_to(place / name)
    found = {}
    for number, data in (("0", place), ("1", bare)):
        file = runs.generate(data, checkpoint, tmp_path, "test", *small, "--num-shards", "2", "--shard-id", number)
        assert not file.exists()
        shard = tmp_path / f"shard-{number}-of-2" / file.name
        assert f"the texts are in {shard}, the whole log is {shard.with_suffix('.log')}" in capsys.readouterr().err
        found[number] = {row: text for row, (text, _) in read_generated(shard).items()}
    assert (sorted(found["0"]), sorted(found["1"])) == ([0, 2, 4], [1, 3])
    assert found["0"] | found["1"] == {row: text for row, (text, _) in read_generated(whole).items()}
    for flags, message in (
        (("--num-shards", "2", "--shard-id", "2"), "--shard-id 2 of --num-shards 2: shards are 0 to"),
        (("--num-shards", "6"), "--num-shards 6: .*test.jsonl has 5 rows only"),
    ):
        arguments = ["generate", place, *runs.TASK, *runs.CPU, "--path", checkpoint, "--gen-subset", "test", "--batch-size", "3"]
        code, _, err = command(capsys, *arguments, *flags)
        assert code == 1 and re.search(message, err)
    arguments = [bare, *runs.TASK, *runs.CPU, "--path", checkpoint, "--valid-subset", "test", "--batch-size", "5"]
    assert command(capsys, "validate", *arguments, "--eval-metrics", "exact_match", *small)[0] == 0
    code, _, err = command(capsys, "train", *runs.train_flags(place, tmp_path, "--batch-size", "2", "--num-shards", "2"))
    assert code == 1 and "--num-shards 2 is for unival generate and validate" in err
