"""`unival report`: from the files that other commands write to a page and a picture, and its refusals."""

import base64
import contextlib
import html.parser
import io
import json
import math
import re
import shutil

import numpy as np
import pytest
from PIL import Image

from unival.cli import main
from unival.commands.report import named_paths, ratio_failure
from unival.commands.report.content import (
    FAILED_HEADING,
    GENERATED_COLOUR,
    GUESSES,
    MAIN,
    OTHER_TEXT,
    REFERENCE_COLOUR,
    Curves,
    Report,
    ScoredRow,
    Split,
    evenly,
    key_figures,
    thumbnail,
)
from unival.commands.report.page import html_page
from unival.commands.report.picture import picture
from unival.commands.report.reading import read_log
from unival.drawing.figures import display_name, escape_dollars, wrapped

pytest.importorskip("matplotlib", reason="the report's pictures need the extra [eval]")

COLOURS = ["red", "green", "blue", "yellow", "black", "white"]
NASTY = '<script>alert("x")</script> costs $1 & $2'


def write_split(folder, name, said, captions=None):
    """A table of one-coloured images, generate's output and the files of `unival score`."""
    captions = captions or [[f"a {colour} square", f"the {colour} thing"] for colour in COLOURS]
    (folder / "images").mkdir(exist_ok=True)
    rows, lines = [], ["2026-01-01 | INFO | a line of the log"]
    for i, (references, text) in enumerate(zip(captions, said, strict=True)):
        Image.new("RGB", (300, 200), COLOURS[i]).save(folder / "images" / f"{name}-{i}.jpg")
        rows.append({"id": f"{name}-{i}", "image": f"images/{name}-{i}.jpg", "caption": references})
        lines += [f"S-{i}\tsource", f"H-{i}\t-0.5\t1 2", f"D-{i}\t-0.5\t{text}"]
    table, generated = folder / f"{name}.jsonl", folder / f"generate-{name}.txt"
    table.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    generated.write_text("\n".join(lines) + "\n", encoding="utf-8")
    files = {"summary": folder / f"{name}.json", "per-row": folder / f"{name}.rows.json"}
    command = ["score", str(generated), "--table", str(table), "--metrics", "cider,bleu,exact_match"]
    assert main([*command, "--json", str(files["summary"]), "--per-row", str(files["per-row"])]) == 0
    return {"table": table, "generated": generated, **files}


def write_log(path):
    """fairseq's log: later epochs stand there twice, numbers are strings, other lines stand between."""
    first = ['{"task": {"_name": "unival_caption"', "{'not': 'json'}"]
    first.append(json.dumps({"epoch": 1, "update": 0.5, "loss": "8", "num_updates": "10"}))
    valid = json.dumps({"epoch": 1, "valid_loss": "7", "valid_cider": "0.25", "valid_num_updates": "20"})
    second = json.dumps({"epoch": 2, "update": 1.5, "loss": "4.5", "num_updates": "30"})
    path.write_text("\n".join([*first, valid, second, second]) + "\n")


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Main: all right but one. Swapped: all wrong but one. Unseen: a caption that must be escaped."""
    folder = tmp_path_factory.mktemp("made")
    right = [f"a {colour} square" for colour in COLOURS]
    unseen = [["a purple star"]] + [[f"a {colour} star"] for colour in COLOURS[1:]]
    write_log(folder / "train.jsonl")
    return folder, {
        "test": write_split(folder, "test", [*right[:5], "a grey circle"]),
        "test_swapped": write_split(folder, "test_swapped", [*right[1:5], "a red square", "a white square"]),
        "test_unseen": write_split(folder, "test_unseen", [NASTY, *right[1:]], unseen),
    }


@pytest.fixture
def splits(made, tmp_path):
    """A copy of the files that a test may spoil."""
    folder, files = made
    shutil.copytree(folder, tmp_path, dirs_exist_ok=True)
    return {name: {flag: tmp_path / path.name for flag, path in paths.items()} for name, paths in files.items()}


@pytest.fixture
def log(splits, tmp_path):
    return tmp_path / "train.jsonl"


@pytest.fixture(scope="module")
def written(made, tmp_path_factory):
    """A whole report, and what the command said."""
    folder, files = made
    out = tmp_path_factory.mktemp("written") / "new"
    with contextlib.redirect_stdout(io.StringIO()) as said:
        assert main(arguments(files, out, log=folder / "train.jsonl", require_ratio=2)) == 0
    return out, said.getvalue()


@pytest.fixture(scope="module")
def page(written):
    return Page((written[0] / "report.html").read_text(encoding="utf-8"))


def arguments(splits, out, **more):
    command = ["report", "--out", str(out)]
    for name, files in splits.items():
        for flag, path in files.items():
            command += [f"--{flag}", f"{name}={path}"]
    for flag, value in more.items():
        command += [f"--{flag.replace('_', '-')}", str(value)]
    return command


class Page(html.parser.HTMLParser):
    """Tags by name, and the text."""

    def __init__(self, content):
        super().__init__()
        self.tags, self.text = [], []
        self.feed(content)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data):
        self.text.append(data)

    def all(self, tag, css=None):
        return [
            attrs for name, attrs in self.tags if name == tag and (css is None or css in attrs.get("class", "").split())
        ]


def test_page_shows_every_example_of_small_splits(page):
    cards = page.all("div", "card")
    assert len(cards) == 6 + 6 + 6, "all rows: each split has fewer than are shown at most"
    assert len(page.all("div", "right")) == 5
    assert len(page.all("div", "wrong")) == 1 + 6, "one of the main split, all unseen objects; swapped rows are neither"


def test_page_is_self_contained(page):
    sources = [attrs["src"] for attrs in page.all("img")]
    assert len(sources) == 1 + 18, "the loss curve and one image per card"
    kinds = []
    for source in sources:
        kind, content = re.fullmatch(r"data:image/(\w+);base64,(.*)", source).groups()
        image = Image.open(io.BytesIO(base64.b64decode(content)))
        assert image.format.lower() == kind
        kinds.append((kind, max(image.size)))
    assert kinds[1:] == [("jpeg", 224)] * 18
    assert not page.all("link") and not page.all("script")


def test_images_are_those_of_their_rows(page):
    first = base64.b64decode(page.all("img")[1]["src"].split(",")[1])
    red, green, blue = Image.open(io.BytesIO(first)).getpixel((10, 10))
    assert red > 240 and green < 15 and blue < 15


def test_page_escapes_captions(written, page):
    assert "<script>" not in (written[0] / "report.html").read_text(encoding="utf-8")
    assert NASTY in "".join(page.text)


def test_page_escapes_title_and_names():
    split = Split("<i>test</i>", "main", (), {"<u>": 0.0, "cider": 0.0})
    content = html_page(Report("<b>bold</b>", "cider", (split,)), 3)
    assert not {"i", "u"} & {tag for tag, _ in Page(content).tags} and "<b>bold" not in content


def test_sections_are_apart(page):
    headings = "".join(page.text)
    assert "Same model, another image's pixels" in headings and "Unseen objects, reported apart" in headings
    assert len(page.all("tr")) == 1 + 3


def test_figures_agree_with_the_scores(made, written):
    out, said = written
    right, other = (json.loads(made[1][name]["summary"].read_text())["cider"] for name in ("test", "test_swapped"))
    assert right > 2 * other > 0
    assert f"CIDEr, right pixels: {right:.3f}\n" in said
    assert f"CIDEr, another image's pixels: {other:.3f}\n" in said
    assert f"right pixels to other pixels: {right / other:.1f} : 1\n" in said
    assert "exactly right, unseen scenes: 83%\n" in said
    assert "exactly right, unseen objects: 0%\n" in said
    assert str(out / "report.png") in said and str(out / "report.html") in said


def test_picture_can_be_read(written):
    path = written[0] / "report.png"
    with Image.open(path) as image:
        assert image.format == "PNG" and min(image.size) > 1000
        found = {colour for _, colour in image.convert("RGB").getcolors(1 << 22)}
    for wanted in ((255, 0, 0), (0, 128, 0), (0, 0, 255), (255, 255, 0)):  # the images of the grid
        assert any(max(abs(a - b) for a, b in zip(colour, wanted, strict=True)) < 25 for colour in found), wanted
    assert path.stat().st_size < 500_000


def test_one_split_without_log_or_exact_match_is_enough(splits, tmp_path):
    only = {"test": splits["test"]}
    assert main(arguments(only, tmp_path / "out")) == 0
    page = Page((tmp_path / "out" / "report.html").read_text(encoding="utf-8"))
    assert len(page.all("img")) == 6, "no loss curve"
    assert main([*arguments(only, tmp_path / "out"), "--require-ratio", "3"]) == 1, "nothing to compare with"


def test_examples_flag_limits_the_cards(splits, tmp_path):
    assert main(arguments(splits, tmp_path / "out", examples=2)) == 0
    page = Page((tmp_path / "out" / "report.html").read_text(encoding="utf-8"))
    assert len(page.all("div", "card")) == 2 + 1 + 1


# Ratio ----------------------------------------------------------------------------------------------------------


def report_with(right, swapped):
    splits = (Split("test", "main", (), {"cider": right}), Split("test_swapped", "swapped", (), {"cider": swapped}))
    return Report("", "cider", splits)


@pytest.mark.parametrize(
    "right, swapped, ratio, fails",
    [(3.0, 1.0, 3.0, False), (2.9, 1.0, 2.9, True), (1.0, 0.0, math.inf, False), (0.0, 0.0, 0.0, True), (0.0, 1.0, 0.0, True)],
)
def test_ratio(right, swapped, ratio, fails):
    report = report_with(right, swapped)
    assert report.ratio == pytest.approx(ratio)
    said = ratio_failure(report, 3.0, "MINUTES=9")
    assert ("has not learnt to look. MINUTES=9" in said) == bool(said) == fails
    assert ratio_failure(report, None) == ""


def test_command_fails_when_the_model_does_not_look(splits, tmp_path, capsys):
    """The page is written all the same, since it shows what went wrong: under another heading, with what to do."""
    splits["test_swapped"] = splits["test"]
    out, headline = tmp_path / "out", "What a small model says"
    advice = "Training made 42 updates; set MINUTES=30"
    assert main(arguments(splits, out, require_ratio=3, title=headline, advice=advice)) == 1
    shown = capsys.readouterr().err
    assert "only 1.00 times as high" in shown and advice in shown and shown.count("\n") == 1
    page = (out / "report.html").read_text(encoding="utf-8")
    assert headline not in page and f"<h1>{FAILED_HEADING}</h1>" in page and advice in page
    drawn = [(out / "report.png").read_bytes()]
    assert main(arguments(splits, out, title=headline, advice=advice)) == 0
    page = (out / "report.html").read_text(encoding="utf-8")
    assert f"<h1>{headline}</h1>" in page and advice not in page
    assert (out / "report.png").read_bytes() != drawn[0]


# Reading --------------------------------------------------------------------------------------------------------


def test_log(log):
    curves = read_log(log, "cider")
    assert curves.loss == ((10, 8.0), (30, 4.5))
    assert curves.valid_loss == ((20, 7.0),)
    assert (curves.metric_name, curves.metric) == ("cider", ((20, 0.25),))
    assert read_log(log, "bleu4").metric_name == ""


def test_log_of_a_short_run_has_the_epoch_averages(tmp_path):
    path = tmp_path / "log"
    path.write_text(json.dumps({"epoch": 1, "train_loss": "6.5", "train_num_updates": "7"}) + "\n")
    assert read_log(path, "cider") == Curves(loss=((7, 6.5),))


def test_log_of_many_short_epochs_shows_them_all(tmp_path):
    epochs = [{"epoch": n, "train_loss": str(9 - n), "train_num_updates": str(13 * n)} for n in (1, 2, 3)]
    within = {"epoch": 2, "update": 1.5, "loss": "7.5", "num_updates": "20"}
    path = tmp_path / "log"
    path.write_text("".join(json.dumps(record) + "\n" for record in [*epochs, within]))
    assert read_log(path, "cider").loss == ((13, 8.0), (26, 7.0), (39, 6.0))


def refused(command, capsys):
    """The one line that a command ends with."""
    capsys.readouterr()
    assert main(command) == 1
    shown = capsys.readouterr().err
    assert shown.count("\n") == 1, shown
    return shown


@pytest.mark.parametrize("flag", ["table", "generated", "summary", "per-row"])
def test_missing_file_is_named(splits, tmp_path, capsys, flag):
    splits["test"][flag] = tmp_path / "nowhere.jsonl"
    assert "nowhere.jsonl" in refused(arguments(splits, tmp_path / "out"), capsys)
    assert not (tmp_path / "out").exists()


def test_missing_log_is_named(splits, tmp_path, capsys):
    assert "nowhere" in refused(arguments(splits, tmp_path / "out", log=tmp_path / "nowhere"), capsys)


def test_split_without_all_files_is_named(splits, tmp_path, capsys):
    del splits["test_unseen"]["summary"]
    assert "split test_unseen: give it to --table and to --summary" in refused(
        arguments(splits, tmp_path / "out"), capsys
    )


def test_main_split_must_be_there(splits, tmp_path, capsys):
    shown = refused(arguments(splits, tmp_path / "out", main="valid"), capsys)
    assert "--main valid: no such split; given are test, test_swapped, test_unseen" in shown


def test_files_of_different_runs_are_told(splits, tmp_path, capsys):
    generated = splits["test"]["generated"]
    generated.write_text(generated.read_text() + "D-6\t-1\tone more\n")
    assert "row 6" in refused(arguments(splits, tmp_path / "out"), capsys)
    splits["test"]["per-row"].write_text('{"0": {"cider": 1}}')
    generated.write_text("D-0\t-1\tone\nD-1\t-1\ttwo\n")
    assert "no scores of row 1" in refused(arguments(splits, tmp_path / "out"), capsys)


@pytest.mark.parametrize("content", ["[1]", "{", '{"a": {"cider": 1}}', '{"0": 3}', '{"0": {"cider": "high"}}'])
def test_broken_row_scores_are_told(splits, tmp_path, capsys, content):
    splits["test"]["per-row"].write_text(content)
    assert "test.rows.json" in refused(arguments(splits, tmp_path / "out"), capsys)


def test_unknown_metric_lists_the_known_ones(splits, tmp_path, capsys):
    shown = refused(arguments(splits, tmp_path / "out", metric="meteor"), capsys)
    assert "no meteor; there are cider, bleu1" in shown


def test_broken_image_names_file_row_and_column(splits, tmp_path, capsys):
    broken = tmp_path / "images" / "test-2.jpg"
    broken.write_bytes(broken.read_bytes()[:100])
    shown = refused(arguments(splits, tmp_path / "out"), capsys)
    assert "test.jsonl, row 2" in shown and "'image'" in shown
    broken.unlink()
    assert "test-2.jpg" in refused(arguments(splits, tmp_path / "out"), capsys)


def test_unknown_column_is_told(splits, tmp_path, capsys):
    assert "'photo'" in refused(arguments(splits, tmp_path / "out", image_column="photo"), capsys)


def test_number_of_examples_must_be_positive(splits, tmp_path, capsys):
    assert "--examples 0: must be at least 1" in refused(arguments(splits, tmp_path / "out", examples=0), capsys)


@pytest.mark.parametrize("values", [["test"], ["=a"], ["test="], ["test=a", "test=b"]])
def test_named_paths_refuses(values):
    with pytest.raises(ValueError, match=r"^--table "):
        named_paths(values, "--table")


# Small parts ----------------------------------------------------------------------------------------------------


def test_evenly_goes_through_the_whole_split():
    assert evenly(range(100), 4) == [0, 25, 50, 75]
    assert evenly(range(3), 12) == [0, 1, 2]
    assert evenly([], 12) == []


def test_names_and_text():
    assert [display_name(name) for name in ("cider", "bleu4", "rouge_l", "new")] == [
        "CIDEr",
        "BLEU-4",
        "ROUGE-L",
        "new",
    ]
    assert escape_dollars("$5") == r"\$5"
    assert wrapped("one two three four five six", 9, 2) == "one two\nthree …"


def test_picture_of_a_model_that_says_nothing(tmp_path):
    split = Split("test", "main", (), {"cider": 0.0})
    assert Image.open(io.BytesIO(picture(Report("Empty", "cider", (split,))))).format == "PNG"


def test_a_long_title_fits_the_picture():
    split = Split("test", "main", (), {"cider": 0.0})
    for title in ("Short", "What a small UnIVAL says about composed pictures of real things it has never seen " * 2):
        pixels = np.asarray(Image.open(io.BytesIO(picture(Report(title, "cider", (split,))))).convert("L"))
        top = pixels[: pixels.shape[0] // 25]
        inked = np.flatnonzero((top < 128).any(axis=0))
        assert len(inked) and inked[0] > 5 and inked[-1] < top.shape[1] - 5


# Questions and boxes ---------------------------------------------------------------------------------------------


def test_boxes_are_drawn_where_they_are():
    """An image of 56 pixels is enlarged to 224: an edge at 14 is drawn at 56."""
    stream = io.BytesIO()
    Image.new("RGB", (56, 28)).save(stream, "PNG")
    boxes = (((14, 7, 28, 21), REFERENCE_COLOUR), ((50, 20, 40, 10), GENERATED_COLOUR))  # a model may swap edges
    row = ScoredRow(0, "a.jsonl, row 0", stream.getvalue, ("14,7,28,21",), "50,20,40,10", {}, boxes=boxes)
    drawn = np.asarray(Image.open(io.BytesIO(thumbnail(row)))).astype(int)
    assert drawn.shape == (112, 224, 3)
    expected = {(57, 50): REFERENCE_COLOUR, (111, 50): REFERENCE_COLOUR, (180, 41): GENERATED_COLOUR, (80, 60): "#000000"}
    for (x, y), colour in expected.items():
        wanted = [int(colour[i : i + 2], 16) for i in (1, 3, 5)]
        assert abs(drawn[y, x] - wanted).max() < 60, (x, y, drawn[y, x])


def test_answers_that_change_with_the_question_are_counted_by_row():
    def split(role, said):
        rows = tuple(ScoredRow(i, "", None, ("a",), text, {"accuracy": 1.0}, id=name, asked="<b>?") for i, (name, text) in enumerate(said))
        return Split(role, role, rows, {"accuracy": 0.5})

    main_split, other = split(MAIN, [("x", "a"), ("y", "b"), ("z", "c")]), split(OTHER_TEXT, [("z", "c"), ("x", "b")])
    report = Report("title", "accuracy", (main_split, other, split(GUESSES, [("x", "a")])))
    assert report.changed == 0.5 and Report("title", "accuracy", (main_split,)).changed is None
    assert ("50%", "say something else when asked otherwise") in key_figures(report)
    content = html_page(report, 3)
    assert content.count('<div class="asked">&lt;b&gt;?</div>') == 3 + 1, "guesses are not shown; an other text has half as many"
    assert content.count("<img") == 0 and content.count('class="card right"') == 3
    assert picture(report)
