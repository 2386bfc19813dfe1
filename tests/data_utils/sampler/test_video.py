"""Videos: what the rows say is what the frames show, also where one sprite hides another; same bytes, disjoint splits."""

import dataclasses
import importlib.util
import json
import pathlib

import numpy as np
import pytest
from PIL import Image

from data_utils.sampler import backgrounds, clips, crossing, motion, motion_language, splits, tables
from data_utils.sampler.animated import AnimatedAtlas, animate
from data_utils.sampler.errors import UserError
from data_utils.sampler.relations import Thing
from data_utils.sampler.scene import Scene
from data_utils.sampler.settings import VideoSettings
from data_utils.sampler.sprites import VISIBLE, Atlas, Sprite
from data_utils.sampler.video import load_moving, make_video_composer
from tests.data_utils.test_build_sampler import digests, rows

SMALL = VideoSettings(sprites="shapes", objects=20, unseen_objects=5, train=40, valid=8, test=12, test_unseen=6)
WAYS = {"to the right": (1, 0), "to the left": (-1, 0), "down": (0, 1), "up": (0, -1), None: (0, 0)}


def build_videos(out: pathlib.Path, workers: int = 1, **changes) -> dict:
    settings = dataclasses.replace(SMALL, **changes)
    sprites, source = load_moving(settings)
    return tables.build(out, make_video_composer(settings, sprites), source, workers)


@pytest.fixture(scope="module")
def composer():
    return make_video_composer(SMALL, load_moving(SMALL)[0])


@pytest.fixture(scope="module")
def videos(tmp_path_factory) -> pathlib.Path:
    out = tmp_path_factory.mktemp("videos") / "data"
    build_videos(out)
    return out


@pytest.fixture(scope="module")
def crossings(composer) -> list[crossing.Crossing]:
    found = [composer.motion("train", row)[0] for row in range(80)]
    return [one for one in found if isinstance(one, crossing.Crossing)]


def test_a_seed_gives_the_same_bytes_with_any_number_of_processes(videos, tmp_path):
    build_videos(tmp_path / "again", workers=2)
    assert digests(tmp_path / "again") == digests(videos)


def test_files_have_the_frames_and_times_that_were_asked_for(videos):
    for split in splits.SPLITS:
        for row in rows(videos, split)[:6]:
            with Image.open(videos / row["video"]) as video:
                assert video.size == (64, 64) and video.n_frames == 16  # every sprite moves a pixel in every frame
                milliseconds = 0
                for number in range(video.n_frames):
                    video.seek(number)
                    video.load()
                    milliseconds += video.info["duration"]
            assert milliseconds == 2000


def test_rows_tell_what_the_frames_show(composer, videos):
    """Frames read back from the files are the drawn ones; boxes move as they say; outside them is the background."""
    for number, row in enumerate(rows(videos, "test")[:6]):
        record, frames = composer.record("test", number)
        assert record == row
        loaded = clips.load(videos / row["video"])
        assert loaded.shape == frames.shape == (16, 64, 64, 3)
        assert np.abs(loaded.astype(int) - frames).mean() < 8  # what WebP loses
        empty = backgrounds.paint(composer.motion("test", number)[0].scene.background, 64)
        for time, frame in enumerate(frames):
            outside = np.ones((64, 64), dtype=bool)
            for thing in row["objects"]:
                x0, y0, x1, y1 = thing["boxes"][time]
                outside[y0:y1, x0:x1] = False
            assert (frame[outside] == empty[outside]).all()
        for thing in row["objects"]:
            first, last = thing["boxes"][0], thing["boxes"][-1]
            assert tuple(np.sign([last[0] - first[0], last[1] - first[1]])) == WAYS[thing["moves"]]
            assert len(thing["boxes"]) == 16


def test_something_always_moves_and_the_answers_agree_with_it(composer):
    does_it_move = []
    for row in range(60):
        record, _ = composer.record("train", row)
        ways = {thing["name"]: thing["moves"] for thing in record["objects"]}
        moving = [name for name, way in ways.items() if way]
        assert moving and len(record["caption"]) == 1
        for asked in record["questions"]:
            question, answer = asked["question"], asked["answer"]
            if question.startswith("which way does the "):
                assert answer == ways[question.removeprefix("which way does the ").removesuffix(" move?")]
            elif question == "how many objects move?":
                assert answer == str(len(moving))
            elif question == "which object moves?":
                assert [answer] == moving
            elif question == "which object stays still?":
                assert ways[answer] is None
            elif question.startswith("does the ") and question.endswith(" move?"):
                assert answer == ("yes" if question.removeprefix("does the ").removesuffix(" move?") in moving else "no")
                does_it_move.append(answer)
    assert 0.25 < does_it_move.count("no") / len(does_it_move) < 0.75


def test_a_crossing_hides_the_rear_sprite_and_shows_the_front_one(crossings, composer):
    """In the frames, pixels that both cover have the front sprite's colours, and they are a good part of the rear one."""
    assert len(crossings) > 8 and {one.depth for one in crossings} == {"behind", "in front of"}
    for one in crossings:
        looks = [composer.atlas.pixels(thing.name, side) for thing, side in zip(one.scene.things, one.scene.sides, strict=True)]
        frames, most = one.frames(16, composer.atlas), 0.0
        for moment, frame in zip(np.linspace(0, 1, 16), frames, strict=True):
            rear, front = (_cover(box, pixels, VISIBLE) for box, pixels in zip(one.boxes(moment), looks, strict=True))
            most = max(most, (rear & front).sum() / rear.sum())
            x0, y0, x1, y1 = one.boxes(moment)[1]
            opaque = looks[1][..., 3] == 255
            assert (frame[y0:y1, x0:x1][opaque] == looks[1][opaque][:, :3]).all()
        assert most >= crossing.LEAST_HIDDEN
        assert not _overlap(*one.boxes(0.0)) and not _overlap(*one.boxes(1.0))
        mover = 0 if one.depth == "behind" else 1
        assert one.tracks[mover].name == one.mover and one.tracks[1 - mover].direction is None


def _cover(box, pixels: np.ndarray, least: int) -> np.ndarray:
    cover = np.zeros((64, 64), dtype=bool)
    cover[box[1] : box[3], box[0] : box[2]] = pixels[..., 3] >= least
    return cover


def test_two_frames_show_no_crossing():
    """With only a start and an end, nothing is ever hidden: no row may then speak of behind and in front."""
    settings = dataclasses.replace(SMALL, frames=2)
    composer = make_video_composer(settings, load_moving(settings)[0])
    assert not any(isinstance(composer.motion("train", row)[0], crossing.Crossing) for row in range(15))


def _overlap(one, other) -> bool:
    return one[0] < other[2] and other[0] < one[2] and one[1] < other[3] and other[1] < one[3]


def test_a_crossing_is_told_in_words():
    things = (Thing("flag", (40, 10, 50, 20)), Thing("owl", (20, 10, 30, 20)))
    tracks = (
        motion.Track("flag", (40, 10, 50, 20), (0, 10, 10, 20), "to the left"),
        motion.Track("owl", things[1].box, things[1].box, None),
    )
    scene = Scene(64, backgrounds.Background("plain", ((0, 0, 0), (0, 0, 0)), 0, 0), things, (10, 10))
    behind = crossing.Crossing(scene, tracks, "flag")
    assert behind.caption() == "a flag moves to the left behind an owl"
    assert "a flag passes behind an owl and moves to the left" in behind.captions()
    masks = [np.ones((10, 10), dtype=bool)] * 2
    assert crossing.hidden(tracks, masks, 64, frames=3) == 1.0 and crossing.hidden(tracks, masks, 64, frames=2) == 0.0
    front = crossing.Crossing(dataclasses.replace(scene, things=things[::-1], sides=(10, 10)), tracks[::-1], "flag")
    assert front.caption() == "a flag moves to the left in front of an owl"
    asked = {
        one["question"]: one["answer"] for one in motion_language.questions(front, [], np.random.default_rng(0))
    }
    assert asked["does the flag pass behind or in front of the owl?"] == "in front of"
    assert asked["what does the flag pass in front of?"] == "owl"
    assert asked["which object stays still?"] == "owl" and asked["how many objects move?"] == "1"


def test_sprites_too_large_to_pass_make_no_crossing():
    plain = np.full((64, 64, 4), 255, dtype=np.uint8)
    atlas = Atlas([Sprite("tower", plain, "test"), Sprite("wall", plain, "test")])
    nowhere = np.zeros((64, 64), dtype=bool)
    drawn = crossing.plan_crossing(["tower", "wall"], atlas, nowhere, (0,), 16, np.random.default_rng(0))
    assert drawn is None


def test_splits_share_no_caption_and_swapped_rows_show_other_objects(videos):
    said = {split: {one for row in rows(videos, split) for one in row["caption"]} for split in splits.SPLITS}
    for one in said:
        for other in said:
            assert one == other or not said[one] & said[other]
    test = {row["id"]: row for row in rows(videos, "test")}
    for row in rows(videos, "test_swapped"):
        shown = test[row["video_of"]]
        assert row["video"] == shown["video"]
        assert not {thing["name"] for thing in row["objects"]} & {thing["name"] for thing in shown["objects"]}
    manifest = json.loads((videos / "manifest.json").read_text())
    assert manifest["builder"]["arguments"] == dataclasses.asdict(SMALL)


def test_many_frames_and_sprites_still_find_room():
    crowded = dataclasses.replace(SMALL, fewest=3, most=4, frames=40, size=48)
    composer = make_video_composer(crowded, load_moving(crowded)[0])
    for row in range(5):
        record, frames = composer.record("test", row)
        assert frames.shape == (40, 48, 48, 3) and len(record["objects"]) in (3, 4)


def test_animated_sprites_keep_their_box_at_every_moment():
    """A square that jumps within its picture: the box bounds it over all frames, and the frames go round."""
    frames = np.zeros((4, 40, 40, 4), dtype=np.uint8)
    for number, left in enumerate((4, 12, 20, 12)):
        frames[number, 10:30, left : left + 12] = (200, 10, 10, 255)
    sprite = animate("jumper", frames, 2.0, "test")
    assert sprite is not None and sprite.frames.shape == (4, 20, 28, 4)
    atlas = AnimatedAtlas([sprite])
    assert atlas.pixels("jumper", 28).shape == (20, 28, 4)
    lefts = [
        int(np.flatnonzero((atlas.moment(time).pixels("jumper", 28)[..., 3] >= VISIBLE).any(0))[0])
        for time in (0.0, 0.6, 1.1, 1.6, 2.0)
    ]
    assert lefts == [0, 8, 16, 8, 0]
    assert animate("nothing", np.zeros((2, 4, 4, 4), dtype=np.uint8), 1.0, "test") is None


def test_a_video_of_no_motion_has_no_questions():
    scene = Scene(64, backgrounds.Background("plain", ((0, 0, 0), (0, 0, 0)), 0, 0), (Thing("owl", (0, 0, 9, 9)),), (9,))
    still = motion.Motion(scene, (motion.Track("owl", (0, 0, 9, 9), (0, 0, 9, 9), None),))
    with pytest.raises(AssertionError, match="nothing moves"):
        motion_language.questions(still, [], np.random.default_rng(0))


@pytest.mark.skipif(importlib.util.find_spec("av") is None, reason="needs av")
def test_mp4_files_hold_the_frames(tmp_path):
    build_videos(tmp_path / "data", video_format="mp4", train=1, valid=0, test=0, test_unseen=0)
    (row,) = rows(tmp_path / "data", "train")
    frames = make_video_composer(SMALL, load_moving(SMALL)[0]).record("train", 0)[1]
    loaded = clips.load(tmp_path / "data" / row["video"])
    assert row["video"].endswith(".mp4") and loaded.shape == frames.shape
    assert np.abs(loaded.astype(int) - frames).mean() < 8


@pytest.mark.skipif(importlib.util.find_spec("av") is None, reason="needs av")
def test_mp4_files_do_not_depend_on_what_memory_held(composer, tmp_path):
    rng = np.random.default_rng(0)
    for row in range(8):
        frames, found = composer.record("train", row)[1], set()
        for _ in range(6):
            rubbish = [rng.integers(0, 256, int(size), dtype=np.uint8) for size in rng.integers(1000, 60000, 200)]
            del rubbish[::2]
            clips.save(frames, tmp_path / "a.mp4", fps=8, quality=92)
            found.add((tmp_path / "a.mp4").read_bytes())
        assert len(found) == 1


def test_mp4_without_its_package_is_refused(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match="--video-format mp4: needs the package av"):
        clips.check_format("mp4")
    clips.check_format("webp")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"frames": 1}, "--frames 1: must be from 2 to 256"),
        ({"fps": 0}, "--fps 0: must be from 1 to 60"),
        ({"video_format": "avi"}, "--video-format avi: must be one of webp, mp4"),
        ({"sprites": "stickers"}, "--sprites stickers: must be one of auto, stamps, shapes, emoji"),
        ({"video_format": "mp4", "size": 65}, "--size 65: must be even for --video-format mp4"),
    ],
)
def test_bad_settings_name_the_argument(changes, message):
    with pytest.raises(UserError, match=message):
        dataclasses.replace(SMALL, **changes).check()
