"""`unival report --stage`: curves of streams, what each stage gained and forgot, examples of every task, what came afterwards."""

import io
import json
import re

import pytest
from PIL import Image, ImageDraw

from tests.commands.test_report import COLOURS, NASTY, write_split
from unival.cli import main
from unival.commands.report.content import GENERATED_COLOUR, REFERENCE_COLOUR, ScoredRow, thumbnail
from unival.commands.report.stages import Pretraining, read_stage

pytest.importorskip("matplotlib", reason="the report's pictures need the extra [eval]")


def write_stage(path, losses, scores, updates=20):
    """The log of a stage: a line within the epoch and one at its end (twice, as fairseq does), and a validation."""
    half = {f"loss/{name}": str(value) for name, value in losses.items()}
    end = {f"train_loss/{name}": str(value / 2) for name, value in losses.items()}
    lines = [
        json.dumps({"epoch": 1, "num_updates": str(updates // 2), **half}),
        json.dumps({"epoch": 1, "num_updates": str(updates), **{key: str(float(value) / 2) for key, value in half.items()}}),
        json.dumps({"epoch": 1, "valid_num_updates": str(updates), **{f"valid_{key}": str(value) for key, value in scores.items()}}),
        *[json.dumps({"epoch": 1, "train_num_updates": str(updates), **end})] * 2,
    ]
    path.write_text("begin\n" + "\n".join(lines) + "\n", encoding="utf-8")
    return path


@pytest.fixture
def stages(tmp_path):
    """Texts, then images as well: texts are forgotten; then videos: images gain, texts come back."""
    return {
        "texts": write_stage(tmp_path / "1.jsonl", {"text": 8}, {"text/loss": 3, "text/nsentences": 4}),
        "images": write_stage(
            tmp_path / "2.jsonl",
            {"text": 4, "captions": 6},
            {"text/loss": 3.5, "captions/loss": 4, "captions/cider": 1.5, "captions/bleu4": 0.2},
        ),
        "<videos>": write_stage(
            tmp_path / "3.jsonl",
            {"captions": 2, "clips": 9},
            {"text/loss": 3.25, "captions/cider": 2, "captions/bleu4": 0.1, "clips/cider": 0.5},
        ),
    }


def test_stages_are_joined(stages):
    read = tuple(read_stage(name, path) for name, path in stages.items())
    report = Pretraining("title", read, ())
    assert report.streams == ("text", "captions", "clips") and report.starts == (0, 20, 40)
    assert report.curve("captions") == ((30, 6), (40, 3), (50, 2), (60, 1))
    text, captions, clips = report.histories()
    assert (text.score, captions.score, clips.score) == ("loss", "cider", "cider")
    assert [cell.change for cell in text.cells] == [None, 0.5, -0.25] and [text.gain(cell) for cell in text.cells] == [0, -0.5, 0.25]
    assert [cell.is_trained for cell in text.cells] == [True, True, False]
    assert captions.cells[0] is None and captions.cells[2].text == "2.00" and captions.gain(captions.cells[2]) == 0.5


@pytest.fixture
def made(tmp_path, stages):
    """The command's arguments: two tasks, one of them without images."""
    right = [f"a {colour} square" for colour in COLOURS]
    files = {"captions": write_split(tmp_path, "test", [*right[:5], NASTY]), "sounds": write_split(tmp_path, "heard", right)}
    command = ["report", "--out", str(tmp_path / "out"), "--title", "Three <stages>", "--note", "In 3 & minutes."]
    for name, paths in files.items():
        command += [part for flag, path in paths.items() for part in (f"--{flag}", f"{name}={path}")]
    command += [part for name, path in stages.items() for part in ("--stage", f"{name}={path}")]
    return command, tmp_path


def test_page_and_picture(made, capsys):
    command, folder = made
    log = write_stage(folder / "after.jsonl", {"a": 1}, {"cider": 1.25})
    views = ["--view", "sounds=,,caption,exact_match"]
    assert main([*command, *views, "--after", f"pretrained={log}", "--after", f"from scratch={log}"]) == 0
    said = capsys.readouterr().out
    assert "captions, validation CIDEr: images 1.50, <videos> 2.00" in said and "pretrained: validation CIDEr 1.25" in said
    page = (folder / "out" / "report.html").read_text(encoding="utf-8")
    assert "Three &lt;stages&gt;" in page and "<stages>" not in page and "In 3 &amp; minutes." in page and NASTY not in page
    row = re.search(r"<tr><td>text</td>.*?</tr>", page, flags=re.S)[0]
    assert '<small class="forgot">+0.50' in row and '<small class="gained">-0.25' in row and '<span class="untrained">3.25' in row
    heard = page.split("<h2>sounds</h2>")[1]
    assert "exact match 1.000" in heard and "<img" not in heard and "<img" in page.split("<h2>captions</h2>")[1].split("<h2>sounds")[0]
    with Image.open(folder / "out" / "report.png") as picture:
        assert picture.width > 1000


def test_what_is_wrong_is_one_line(made, capsys):
    command, folder = made
    plain = folder / "plain.jsonl"
    plain.write_text('{"loss": "8", "num_updates": "10"}\n')
    for flags, said in (
        (["--stage", f"more={plain}"], f"{plain}: no losses of streams, such as loss/captions"),
        (["--after", f"more={plain}"], f"{plain}: no valid_cider (choose with --after-metric)"),
        (["--view", "sounds=caption"], "--view sounds=caption: expected SPLIT=IMAGE,TEXT,REFERENCE,METRIC"),
        (["--view", "noise=,,caption,cider"], "--view noise=,,caption,cider: no split noise; given are captions, sounds"),
    ):
        assert main([*command, *flags]) == 1
        error = capsys.readouterr().err
        assert said in error and error.count("\n") == 1


def test_of_a_video_four_frames_are_shown_and_boxes_are_drawn_on_the_first():
    frames = [Image.new("RGB", (60, 40), colour) for colour in ("red", "green", "blue", "black", "white", "yellow", "gray")]
    stream = io.BytesIO()
    frames[0].save(stream, "WEBP", save_all=True, append_images=frames[1:], lossless=True)
    example = ScoredRow(0, "here", stream.getvalue, (), "", {})
    with Image.open(io.BytesIO(thumbnail(example))) as film:
        shown = [film.convert("RGB").getpixel((x, y)) for y in (20, film.height - 20) for x in (30, film.width - 30)]
    expected = [ImageDraw.ImageColor.getrgb(colour) for colour in ("red", "blue", "white", "gray")]
    assert all(abs(one - other) < 12 for a, b in zip(shown, expected, strict=True) for one, other in zip(a, b, strict=True))
    boxes = tuple(((10, 10, 50, 30), colour) for colour in (GENERATED_COLOUR, REFERENCE_COLOUR))
    boxed = ScoredRow(0, "here", stream.getvalue, (), "", {}, boxes=boxes)
    with Image.open(io.BytesIO(thumbnail(boxed))) as picture:
        assert picture.size == (224, 149)
