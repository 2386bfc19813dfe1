"""Tables of a pretraining from sampler data: every row is true of its scene, and the mixture has all of them but audio."""

import importlib

import pytest
from omegaconf import OmegaConf

from data_utils.sampler.audio import load_sounds, make_sound_composer
from data_utils.sampler.settings import SoundSettings, VideoSettings
from data_utils.sampler.tables import build
from data_utils.sampler.video import load_moving, make_video_composer
from tests.data_utils.sampler.test_tasks import DATA_UTILS, rows

SMALL = {"unseen_objects": 0, "test_unseen": 0, "train": 20, "valid": 6, "test": 16, "objects": 9}
VIDEO = VideoSettings(sprites="shapes", size=48, frames=2, **SMALL)
AUDIO = SoundSettings(sounds="synthesised", rate=8000, seconds=1.2, **SMALL)


@pytest.fixture(scope="module")
def media(built, tmp_path_factory):
    """Folders with sampler data of all media."""
    out = tmp_path_factory.mktemp("media")
    sprites, source = load_moving(VIDEO)
    build(out / "video", make_video_composer(VIDEO, sprites), source)
    library, source = load_sounds(AUDIO)
    build(out / "audio", make_sound_composer(AUDIO, library), source)
    return {"image": built, "video": out / "video", "audio": out / "audio"}


@pytest.fixture
def make(monkeypatch, media, tmp_path):
    """Runs the command; keyword arguments replace folders."""
    monkeypatch.syspath_prepend(str(DATA_UTILS))
    command = importlib.import_module("sampler_pretraining")

    def run(*flags, **others):
        folders = [part for name, folder in {**media, **others}.items() for part in (f"--{name}", str(folder))]
        return command.main([*folders, "--out", str(tmp_path / "made"), *flags]), tmp_path / "made"

    return run


def test_every_row_is_true_of_its_scene(make, media):
    code, out = make()
    assert code == 0
    scenes = {
        (out / row[medium]).resolve(): record
        for stream, medium in {"captions": "image", "video_captions": "video", "audio_captions": "audio"}.items()
        for split in ("train", "valid", "test")
        for row, record in zip(rows(out, f"{stream}-{split}"), rows(media[medium], split), strict=True)
        if row["caption"] == record["caption"] and row["objects"] == [thing["name"] for thing in record["objects"]]
    }
    assert len(scenes) == 88 + 2 * 42 and all(path.is_file() for path in scenes)
    for row in rows(out, "regions-test"):
        assert {"name": row["text"], "box": row["box"]} in scenes[(out / row["image"]).resolve()]["objects"]
    for stream, medium, answers in (("questions", "image", "answers.txt"), ("video_questions", "video", "video_answers.txt")):
        for row in rows(out, f"{stream}-valid"):
            known = scenes[(out / row[medium]).resolve()]["questions"]
            assert (row["question"], row["answer"]) in [(asked["question"], asked["answer"]) for asked in known]
        train = rows(out, f"{stream}-train")
        assert {answer for row in train for (answer,) in row["answer"]} == set((out / answers).read_text().splitlines())
        assert len({row[medium] for row in train}) == len(train) and any(len(row["question"]) > 1 for row in train)
        assert all(len(row["question"]) == len(row["answer"]) for row in train)
    assert {len(row["text"]) for row in rows(out, "regions-train")} == {2} == {len(row["box"]) for row in rows(out, "regions-train")}


def test_texts_are_of_images_and_videos_each_once(make, media):
    _, out = make()
    texts = [row["text"] for row in rows(out, "text-train")]
    captions = {record["caption"][0] for medium in ("image", "video") for record in rows(media[medium], "train")}
    assert captions < set(texts) and len(set(texts)) == len(texts)
    assert not any("image" in row or "video" in row for row in rows(out, "text-train"))
    heard = {record["caption"][0] for record in rows(media["audio"], "train")}
    assert not heard & set(texts)


def test_the_mixture_has_all_tables_but_those_of_audio(make):
    _, out = make("--valid-rows", "5", "--test-rows", "7")
    mixture = OmegaConf.to_container(OmegaConf.load(out / "mixture.yaml"))
    tables = {stream[key] for stream in mixture["streams"].values() for key in ("table", "valid")}
    there = {path.name for path in out.glob("*.jsonl")}
    assert tables == {name for name in there if not name.startswith("audio") and not name.endswith("-test.jsonl")}
    assert {len(rows(out, path.stem)) for path in out.glob("*-valid.jsonl")} == {5}
    assert {len(rows(out, path.stem)) for path in out.glob("*-test.jsonl")} == {7}


def test_what_is_wrong_is_one_line(make, media, tmp_path, capsys):
    for others, flags, said in (
        ({"video": tmp_path}, (), f"--video {tmp_path}: is not sampler data"),
        ({"video": media["image"]}, (), f"--video {media['image']}: its rows have no column video; there are id, image"),
        ({}, ("--test-rows", "0"), "--test-rows 0: must be at least 1"),
    ):
        assert make(*flags, **others)[0] == 2
        error = capsys.readouterr().err
        assert error.startswith(f"error: {said}") and error.count("\n") == 1


def test_second_tasks_have_test_tables_of_their_own(make):
    _, out = make()
    captions, matching = rows(out, "captions-test"), rows(out, "matching-test")
    assert [row["image"] for row in matching] == [row["image"] for row in captions]
    for row, other in zip(captions, matching, strict=True):
        assert (other["match"] == "yes") == (other["caption"] in row["caption"])
        if other["match"] == "no":
            assert not any(name in other["caption"] for name in row["objects"])
    assert {row["match"] for row in matching} == {"yes", "no"} and rows(out, "region_captions-test") == rows(out, "regions-test")
    for row in rows(out, "text-test"):
        before, after = row["masked"].split("<mask>")
        assert row["text"].startswith(before) and row["text"].endswith(after)
        assert len(row["text"].split()) == len(row["masked"].split()) + 1
