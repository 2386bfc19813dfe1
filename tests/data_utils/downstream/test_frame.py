"""What every builder says of files that are not as they should be, and of counts."""

import importlib
import re

import pytest

from tests.data_utils.conftest import DATA_UTILS


@pytest.fixture
def frame(build):
    return importlib.import_module("downstream.frame")


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ('{"images": [}', "dataset_coco.json, line 1, character 13: not valid JSON: Expecting value"),
        ("[]", "dataset_coco.json: expected an object, got a list"),
        ({"annotations": []}, "dataset_coco.json: there is no key 'images'; there are 'annotations'"),
        ({"images": {}}, "dataset_coco.json, key 'images': expected a list, got an object"),
        ({"images": [3]}, "dataset_coco.json, images 0: expected an object, got 3"),
        ({"images": [{"split": "dev"}]}, "images 0, key 'split': expected one of train, restval, val, test, got 'dev'"),
        ({"images": [{"split": "val", "filename": ""}]}, "images 0, key 'filename': expected a text that is not empty, got ''"),
        (
            {"images": [{"split": "val", "filename": "a", "sentences": [{"raw": 5}]}]},
            "images 0, sentences 0, key 'raw': expected a text, got 5",
        ),
        (
            {"images": [{"split": "val", "filename": "a", "filepath": "b", "cocoid": "x", "sentences": []}]},
            "images 0, key 'cocoid': expected a whole number, got 'x'",
        ),
        ({"images": []}, "coco: there is no row for any table"),
        ("\ud800".encode("utf-8", "surrogatepass"), "dataset_coco.json: not UTF-8 text"),
    ],
)
def test_broken_files_are_one_line(build, source, content, said):
    source(**{"dataset_coco.json": content})
    built = build("coco")
    assert built.code == 2 and built.error.startswith("error: ") and built.error.count("\n") == 1
    assert said in built.error and not list(built.out.iterdir())


def test_missing_files_and_folders(build, source, tmp_path):
    assert f"--source {tmp_path / 'source'}: there is no such folder" in build("coco").error
    source(**{"other.json": {}, "a/dataset_coco.json": {}, "b/dataset_coco.json": {}})
    assert "dataset_coco.json is there twice" in build("coco").error
    assert "there is no train.csv or val.csv or test.csv; the folder has a, b, other.json" in build("audiocaps").error
    assert "--media-root nowhere: there is no such folder" in build("coco", "--media-root", "nowhere").error


def test_csv_errors(build, source):
    source(**{"train.csv": "audiocap_id,youtube_id,start_time,caption\n1,abc,10\n"})
    assert "train.csv, line 2: expected 4 cells (audiocap_id, youtube_id, start_time, caption), got 3" in build("audiocaps").error
    source(**{"train.csv": 'audiocap_id,youtube_id,start_time,caption\n1,abc,10,"open\n'})
    assert "train.csv, line 2: not valid CSV: unexpected end of data" in build("audiocaps").error
    source(**{"train.csv": "youtube_id,start_time\nabc,1.5\n"})
    assert "train.csv, line 2, key 'start_time': expected a whole number, got '1.5'" in build("audiocaps").error


def test_rounded_numbers_of_the_paper(frame):
    agreeing = {"113K": 113_287, "5K": 5_000, "6.5K": 6_513, "0.5K": 497, "37.5K": 37_421, "17K": 17_505, "30K": 29_783, "4.3K": 4_319}
    assert all(frame.agrees(count, paper) for paper, count in agreeing.items())
    assert not frame.agrees(447_793, "453K") and not frame.agrees(10_834, "6K") and not frame.agrees(14_465, "17.5K")


# --- the documentation -----------------------------------------------------------------------------------------------

PAGE = (DATA_UTILS / "README.md").read_text(encoding="utf-8")
ROWS = re.findall(r"^\| .* \| `python data_utils/(.*?)` \| .* \| (.*) \| .* \|$", PAGE, re.MULTILINE)


@pytest.mark.parametrize(("command", "tables"), ROWS, ids=[command for command, _ in ROWS])
def test_the_documentation_names_the_tables_of_a_command(frame, command, tables):
    script, *flags = command.split()
    dataset = importlib.import_module(script.removesuffix(".py")).DATASET
    flags = [str(DATA_UTILS) if flag == "VIDEOS" else flag for flag in flags]
    args = frame.parser(dataset).parse_args(["--source", "a", "--out", "b", *flags])
    sizes = dataset.sizes(args) if callable(dataset.sizes) else dataset.sizes
    named = {name for name in re.split(r", | and ", re.sub(r" \(.*?\)", "", tables)) if name != "answers"}
    assert named == set(sizes)


def test_every_builder_is_in_the_documentation():
    others = ("build_sampler.py", "build_pretrain.py")
    builders = {path.name for path in DATA_UTILS.glob("build_*.py") if path.name not in others}
    assert builders == {command.split()[0] for command, _ in ROWS}
