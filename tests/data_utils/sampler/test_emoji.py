"""Animated emoji: packages in a folder, as archives or from the client; names, bad files; videos made of them."""

import dataclasses
import io
import json
import os
import pathlib
import tarfile

import numpy as np
import pytest
from PIL import Image

from data_utils.sampler import emoji, splits, tables, video
from data_utils.sampler.errors import UserError
from data_utils.sampler.settings import EmojiSettings
from tests.data_utils.test_build_sampler import digests, rows

LABELS = {
    "1F401": "mouse", "1F402": "ox", "1F403": "water buffalo", "1F404": "cow", "1F405": "tiger", "1F406": "leopard",
    "1F3C4-200D-2642-FE0F": "man surfing", "1F440": "eyes", "1F468-200D-1F466": "family: man, boy", "1F600": "grin",
    "1F3C4-1F3FB": "person surfing: light skin tone", "1F407": "rabbit", "1F408": "cat", "1F409": "dragon",
}  # fmt: skip
NAMED = {"mouse", "ox", "water buffalo", "cow", "tiger", "leopard", "man surfing", "rabbit", "cat", "dragon"}
SMALL = EmojiSettings(objects=7, unseen_objects=3, train=6, valid=3, test=8, test_unseen=3)


def picture(seed: int, frames: int = 6) -> bytes:
    """An animated square in random colours, on nothing."""
    rng, made = np.random.default_rng(seed), []
    for number in range(frames):
        pixels = np.zeros((64, 64, 4), dtype=np.uint8)
        left = 4 + 3 * number
        pixels[12:52, left : left + 36] = np.kron(rng.integers(0, 256, (4, 4, 4)), np.ones((10, 9, 1)))
        pixels[12:52, left : left + 36, 3] = 255
        made.append(Image.fromarray(pixels))
    file = io.BytesIO()
    made[0].save(file, "WEBP", save_all=frames > 1, append_images=made[1:], duration=100, lossless=True)
    return file.getvalue()


@pytest.fixture(scope="module")
def packages(tmp_path_factory) -> pathlib.Path:
    """Both packages as a package client lays them out."""
    folder = tmp_path_factory.mktemp("packages")
    pictures = folder / "@lobehub" / "fluent-emoji-anim-1" / "assets"
    names = folder / "emojibase-data" / "en"
    pictures.mkdir(parents=True)
    names.mkdir(parents=True)
    for seed, code in enumerate(LABELS):
        (pictures / f"{code.lower()}.webp").write_bytes(picture(seed, 1 if code == "1F600" else 6))
    entries = [{"hexcode": code, "label": label} for code, label in LABELS.items()]
    (names / "data.json").write_text(json.dumps(entries), encoding="utf-8")
    (folder / "emojibase-data" / "LICENSE").write_text("MIT License\n", encoding="utf-8")
    return folder


def pack(packages: pathlib.Path, target: pathlib.Path) -> None:
    """Archives as `npm pack` writes them, one of them with a name that leads out of its folder."""
    for number, inside in enumerate(("@lobehub/fluent-emoji-anim-1", "emojibase-data")):
        with tarfile.open(target / f"package-{number}.tgz", "w:gz") as archive:
            archive.add(packages / inside, "package")
            if number == 0:
                archive.add(packages / inside / "assets" / "1f404.webp", "../../escaped.webp")


def test_emoji_are_read_by_name(packages):
    with emoji.find_emoji(str(packages)) as found:
        read = {sprite.name: sprite for sprite in emoji.read_emoji(found, 32)}
    assert set(read) == NAMED
    cow = read["cow"]
    assert cow.seconds == pytest.approx(0.6) and max(cow.frames.shape[1:3]) <= 32 and len(cow.frames) == 6
    assert found.licence_text == "MIT License\n"


def test_archives_are_unpacked_and_stay_in_their_folder(packages, tmp_path):
    given = tmp_path / "given"
    given.mkdir()
    pack(packages, given)
    with emoji.find_emoji(str(given)) as found:
        assert {sprite.name for sprite in emoji.read_emoji(found, 32)} == NAMED
        room = next(iter(found.files.values())).parents[1]
        assert all(room in file.parents for file in found.files.values())
    assert not room.exists() and sorted(given.iterdir()) == sorted(given.glob("*.tgz"))
    assert not list(tmp_path.rglob("escaped.webp"))


def test_videos_of_emoji_hold_names_out(packages, tmp_path):
    def build(out: pathlib.Path, workers: int) -> None:
        sprites, source = video.load_moving(SMALL, emoji_folder=str(packages))
        tables.build(out, video.make_video_composer(SMALL, sprites), source, workers)

    build(tmp_path / "data", 1)
    build(tmp_path / "again", 2)
    assert digests(tmp_path / "data") == digests(tmp_path / "again")
    names = {split: {row["objects"][0]["name"] for row in rows(tmp_path / "data", split)} for split in splits.SPLITS}
    assert names["test_unseen"] and not names["test_unseen"] & (names["train"] | names["valid"] | names["test"])
    row = rows(tmp_path / "data", "train")[0]
    assert row["caption"][0].split(" ", 1)[1] == row["objects"][0]["name"]
    assert row["objects"][0]["moves"] is None and len(row["objects"][0]["boxes"]) == 16
    manifest = json.loads((tmp_path / "data" / "manifest.json").read_text())
    assert manifest["sprites"]["kind"] == "emoji" and manifest["sprites"]["licence_file"]
    assert str(packages) not in json.dumps(manifest)


def test_frames_change_only_within_the_box(packages):
    settings = dataclasses.replace(SMALL, fewest=2, most=2, objects=10, unseen_objects=0, test_unseen=0)
    sprites, _ = video.load_moving(settings, emoji_folder=str(packages))
    record, frames = video.make_video_composer(settings, sprites).record("train", 0)
    outside = np.ones((64, 64), dtype=bool)
    for thing in record["objects"]:
        x0, y0, x1, y1 = thing["boxes"][0]
        outside[y0:y1, x0:x1] = False
        assert (frames[:, y0:y1, x0:x1] != frames[:1, y0:y1, x0:x1]).any()
    assert (frames[:, outside] == frames[:1, outside]).all()
    assert any(word in record["caption"][0] for word in (" above ", " below ", " left of ", " right of "))


def test_what_is_missing_is_named(packages, tmp_path, monkeypatch):
    monkeypatch.setenv(emoji.FOLDER_VARIABLE, "elsewhere")
    with pytest.raises(UserError, match="UNIVAL_EMOJI_DIR elsewhere: there is no such folder"), emoji.find_emoji():
        pass
    with pytest.raises(UserError, match=r"holds no \.webp files"), emoji.find_emoji(str(tmp_path)):
        pass
    pictures = packages / "@lobehub"
    with pytest.raises(UserError, match=r"holds no en/data\.json"), emoji.find_emoji(str(pictures)):
        pass
    (tmp_path / "broken.tgz").write_bytes(b"no archive")
    with pytest.raises(UserError, match=r"broken\.tgz: cannot be unpacked"), emoji.find_emoji(str(tmp_path)):
        pass


def test_a_broken_picture_is_named(packages, tmp_path):
    broken = tmp_path / "1f404.webp"
    broken.write_bytes(picture(0)[:200])
    found = emoji.Emoji({"1f404": broken}, {"1f404": "cow"}, None, "a test")
    with pytest.raises(UserError, match=r"1f404\.webp: cannot be read as an animated image"):
        emoji.read_emoji(found, 32)


def test_the_package_client_is_used_and_its_failure_quoted(packages, tmp_path, monkeypatch):
    monkeypatch.delenv(emoji.FOLDER_VARIABLE, raising=False)
    (tmp_path / "archives").mkdir()
    (tmp_path / "bin").mkdir()
    pack(packages, tmp_path / "archives")
    client = tmp_path / "bin" / "npm"
    client.write_text(f"#!/bin/sh\ncp {tmp_path}/archives/*.tgz .\n")
    client.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:/bin:/usr/bin")
    with emoji.find_emoji() as found:
        assert len(emoji.read_emoji(found, 32)) == len(NAMED) and "the package client" in found.origin
    lines = ["npm error code E404", "npm error 404 Not Found", "npm error A complete log of this run: x"]
    client.write_text("#!/bin/sh\n" + "".join(f"echo '{line}' >&2\n" for line in lines) + "exit 1\n")
    wanted = f"npm pack {emoji.ANIMATIONS} failed: npm error 404 Not Found"
    with pytest.raises(emoji.EmojiUnavailableError, match=wanted), emoji.find_emoji():
        pass
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(emoji.EmojiUnavailableError, match="npm is not here to fetch the emoji"), emoji.find_emoji():
        pass


@pytest.mark.slow
def test_the_real_emoji_give_enough_names():
    folder = os.environ.get(emoji.FOLDER_VARIABLE)
    if not folder:
        pytest.skip("needs the animated emoji (set UNIVAL_EMOJI_DIR to a folder with both npm packages)")
    sprites, source = video.load_moving(EmojiSettings(), emoji_folder=folder)
    names = {sprite.name for sprite in sprites}
    assert len(names) == 96 and "man surfing" in names and not names & {"family", "eyes", "man"}
    assert source.licence_text and all(len(sprite.frames) > 10 for sprite in sprites)
