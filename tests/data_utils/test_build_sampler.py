"""The builder as a whole: same bytes for a seed, disjoint splits, an honest manifest, stamps, fallback, bad input."""

import dataclasses
import hashlib
import json
import os
import pathlib
import shutil
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from data_utils.sampler import stamps, write
from data_utils.sampler.errors import UserError
from tests.data_utils.conftest import SMALL, build_small, make_composer

COMMAND = pathlib.Path(__file__).resolve().parents[2] / "data_utils" / "build_sampler.py"


def digests(folder: pathlib.Path) -> dict[str, str]:
    files = sorted(file for file in folder.rglob("*") if file.is_file())
    return {file.relative_to(folder).as_posix(): hashlib.sha256(file.read_bytes()).hexdigest() for file in files}


def rows(folder: pathlib.Path, split: str) -> list[dict]:
    return [json.loads(line) for line in (folder / f"{split}.jsonl").read_text(encoding="utf-8").splitlines()]


def run(*arguments: str, **environment: str) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, str(COMMAND), *arguments], capture_output=True, text=True, env={**os.environ, **environment}
    )


def test_a_seed_gives_the_same_bytes_with_any_number_of_processes(built, tmp_path):
    build_small(tmp_path / "again", workers=3)
    assert digests(tmp_path / "again") == digests(built)
    build_small(tmp_path / "other", seed=2)
    assert digests(tmp_path / "other").keys() == digests(built).keys()
    assert rows(tmp_path / "other", "train") != rows(built, "train")


def test_tables_of_pictures_are_what_they_always_were(built):
    """Folders that people have stay "the same data": a change of these sums must come with a change of VERSION."""
    sums = json.loads((built / "manifest.json").read_text())["sha256"]
    assert sums["train"] == "e679fa8d0629e4a4b000b52498b0902f79d08e44efc86e245a1599ba5fb6bb38"
    assert sums["test"] == "ce2b3688d7a23979b501a87107f9a8584d320d28bba70f9c06eb1a6794a92321"
    assert sums["test_unseen"] == "5947e53524ebbba9f3bfc3d2327a9d25f1f462f71249a33ec2023be86e0288c6"
    assert sums["valid_swapped"] == "edcfd22d6f5b8bd53cd834cc1094ac9b3e69f1ba69906a36a65ebfbb927a1c48"
    assert sums["test_swapped"] == "5fa0c41a557792310a5d37c6d4dbc67d76bdd93b4a77ed86f1f71a420341df4d"
    arguments = json.loads((built / "manifest.json").read_text())["builder"]["arguments"]
    assert list(arguments) == [
        *("sprites", "objects", "unseen_objects", "fewest", "most", "size", "train", "valid", "test", "test_unseen"),
        *("valid_swapped", "phrasing", "quality", "seed"),
    ]


def test_a_row_does_not_depend_on_the_number_of_rows(built, tmp_path):
    build_small(tmp_path / "less", train=7)
    assert rows(tmp_path / "less", "train") == rows(built, "train")[:7]


def test_splits_share_no_pair_caption_or_background(built):
    tables = {split: rows(built, split) for split in ("train", "valid", "test", "test_unseen")}
    pairs = {
        split: {tuple(sorted(t["name"] for t in row["objects"])) for row in table} for split, table in tables.items()
    }
    said = {split: {caption for row in table for caption in row["caption"]} for split, table in tables.items()}
    hues = {split: {row["background"]["hue"] for row in table} for split, table in tables.items()}
    for one, other in (("train", "valid"), ("train", "test"), ("valid", "test"), ("train", "test_unseen")):
        for found in (pairs, said, hues):
            assert found[one] and not found[one] & found[other], (one, other)
    known = {name for split in ("train", "valid", "test") for pair in pairs[split] for name in pair}
    assert not known & {name for pair in pairs["test_unseen"] for name in pair}


def test_the_manifest_tells_the_truth(built):
    manifest = json.loads((built / "manifest.json").read_text())
    counts = {"train": 60, "valid": 12, "test": 16, "test_unseen": 8, "test_swapped": 16, "valid_swapped": 8}
    assert manifest["counts"] == counts
    for split, count in manifest["counts"].items():
        table = rows(built, split)
        assert len(table) == count == len({row["id"] for row in table})
        assert manifest["sha256"][split] == hashlib.sha256((built / f"{split}.jsonl").read_bytes()).hexdigest()
        names = {thing["name"] for row in table for thing in row["objects"]}
        assert names <= set(manifest["unseen_objects" if split == "test_unseen" else "objects"])
    assert len(manifest["objects"]) == 20 and len(manifest["unseen_objects"]) == 5
    held_out = {tuple(pair) for pair in manifest["held_out_pairs"]["test"]}
    assert {tuple(sorted(thing["name"] for thing in row["objects"])) for row in rows(built, "test")} <= held_out
    assert manifest["builder"]["arguments"] == dataclasses.asdict(SMALL)
    assert manifest["sprites"]["kind"] == "shapes" and manifest["sprites"]["licence"]


def test_images_show_what_the_rows_say(built):
    composer = make_composer()
    for split in ("train", "test"):
        for number, row in enumerate(rows(built, split)[:5]):
            record, picture = composer.record(split, number)
            assert record == row
            with Image.open(built / row["image"]) as image:
                assert image.size == (64, 64)
                assert np.abs(np.asarray(image, dtype=int) - picture).mean() < 6  # what JPEG loses
    assert Image.open(built / "preview.png").width > 0


def test_training_has_one_caption_unless_both_are_asked_for(built):
    assert {len(row["caption"]) for row in rows(built, "train")} == {1}
    assert {len(row["caption"]) for row in rows(built, "test")} == {2}
    canonical = make_composer().record("train", 0)[0]["caption"]
    both = make_composer(phrasing="both").record("train", 0)[0]["caption"]
    assert len(both) == 2 and both[:1] == canonical
    assert " left of " in canonical[0] or " above " in canonical[0]


@pytest.mark.parametrize("split, count", [("test", 16), ("valid", 8)])
def test_swapped_rows_show_none_of_their_objects(built, split, count):
    test, swapped = rows(built, split)[:count], rows(built, f"{split}_swapped")
    by_id = {row["id"]: row for row in test}
    for row, other in zip(test, swapped, strict=True):
        shown = by_id[other["image_of"]]
        assert other["image"] == shown["image"] and other["caption"] == row["caption"]
        assert not {thing["name"] for thing in row["objects"]} & {thing["name"] for thing in shown["objects"]}
    assert len({row["image"] for row in swapped}) == len(test)


def test_swapping_needs_other_objects():
    alike = [{"id": f"test-{number}", "image": "", "objects": [{"name": "owl"}]} for number in range(4)]
    with pytest.raises(UserError, match="--test 4: too few rows"):
        write.swapped(alike, seed=0)
    with pytest.raises(UserError, match="--valid-swapped 4: too few rows"):
        write.swapped(alike, seed=0, split="valid")
    with pytest.raises(UserError, match="--valid-swapped 13: must not be more than --valid 12"):
        dataclasses.replace(SMALL, valid_swapped=13).check()


def test_a_failed_build_leaves_nothing_behind(tmp_path):
    with pytest.raises(UserError, match="too few rows"):
        build_small(tmp_path / "data", test=1)
    assert not any(tmp_path.iterdir())


@pytest.fixture
def toy_stamps(tmp_path) -> pathlib.Path:
    """An unpacked package with drawn cut-outs, some of them unusable."""
    folder = tmp_path / "package" / "usr" / "share" / "tuxpaint" / "stamps"
    licence = tmp_path / "package" / "usr" / "share" / "doc" / stamps.PACKAGE / "copyright"
    licence.parent.mkdir(parents=True)
    licence.write_text("License: GPL-2\n")
    rng = np.random.default_rng(0)

    def add(path: str, caption: str, shape: tuple[int, int] = (60, 80), alpha: bool = True) -> None:
        coarse = rng.integers(0, 256, (4, 4, 3), dtype=np.uint8)
        pixels = np.asarray(Image.fromarray(coarse).resize(shape, Image.Resampling.NEAREST))
        mask = np.full((*pixels.shape[:2], 1), 255, dtype=np.uint8)
        mask[: len(mask) // 4, : mask.shape[1] // 4] = 0 if alpha else 255
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.concatenate([pixels, mask], axis=2)).save(folder / f"{path}.png")
        (folder / f"{path}.txt").write_text(f"{caption}\nfr.utf8=Autre chose.\n", encoding="utf-8")

    for word in "ape bat cat cow eel elk emu owl yak ram".split():  # noqa: SIM905
        add(f"animals/{word}", f"A {word}.")
    add("animals/cartoon/cat", "A cat.", shape=(200, 200))
    add("animals/thin", "A worm.", shape=(100, 20))
    add("animals/tiny", "A flea.", shape=(20, 20))
    add("animals/full", "A poster.", alpha=False)
    add("animals/phrase", "Eat your greens!")
    add("symbols/letter", "A letter.")
    add("animals/fox_left", "A fox.")
    return tmp_path / "package"


def test_stamps_are_read_with_care(toy_stamps):
    with stamps.find_stamps(str(toy_stamps)) as found:
        read = {sprite.name: sprite for sprite in stamps.read_stamps(found)}
        assert found.licence_file and found.licence_file.read_text().startswith("License")
    assert set(read) == set("ape bat cat cow eel elk emu owl yak ram".split())  # noqa: SIM905
    assert read["cat"].source == "animals/cat.png" and not read["cat"].drawing  # a photograph before a drawing
    assert all(sprite.pixels.shape[2] == 4 for sprite in read.values())


def test_a_build_from_stamps_keeps_their_licence(toy_stamps, tmp_path):
    arguments = [
        "--sprites",
        "stamps",
        "--objects",
        "8",
        "--unseen-objects",
        "2",
        "--train",
        "6",
        "--valid",
        "2",
        "--test",
        "12",
    ]
    done = run("--out", str(tmp_path / "data"), "--test-unseen", "2", "--stamps-dir", str(toy_stamps), *arguments)
    assert done.returncode == 0, done.stderr
    manifest = json.loads((tmp_path / "data" / "manifest.json").read_text())
    assert manifest["sprites"]["kind"] == "stamps" and manifest["sprites"]["licence"] == "GPL-2"
    assert (tmp_path / "data" / manifest["sprites"]["licence_file"]).read_text() == "License: GPL-2\n"
    assert str(tmp_path) not in (tmp_path / "data" / "manifest.json").read_text()


@pytest.mark.skipif(shutil.which("dpkg-deb") is None, reason="needs dpkg-deb to make and unpack a package")
def test_a_package_file_is_unpacked(toy_stamps, tmp_path, monkeypatch):
    (toy_stamps / "DEBIAN").mkdir()
    about = [
        "Package: toy",
        "Version: 1",
        "Architecture: all",
        "Maintainer: Nobody <nobody@example.org>",
        "Description: toy",
    ]
    (toy_stamps / "DEBIAN" / "control").write_text("\n".join(about) + "\n")
    subprocess.run(["dpkg-deb", "--build", str(toy_stamps), str(tmp_path / "toy.deb")], check=True, capture_output=True)
    monkeypatch.setenv(stamps.FOLDER_VARIABLE, "elsewhere")  # what is given goes before the environment
    with stamps.find_stamps(None, str(tmp_path / "toy.deb")) as found:
        assert len(stamps.read_stamps(found)) == 10 and found.origin == "the file toy.deb"
        room = found.folder
    assert not room.exists()


def test_a_broken_cut_out_is_named(toy_stamps):
    broken = toy_stamps / "usr" / "share" / "tuxpaint" / "stamps" / "animals" / "owl.png"
    broken.write_bytes(broken.read_bytes()[:60])
    with stamps.find_stamps(str(toy_stamps)) as found, pytest.raises(UserError, match=r"owl\.png: cannot be read"):
        stamps.read_stamps(found)


def test_without_stamps_shapes_are_drawn_and_the_reason_is_given(tmp_path):
    few = [
        "--objects",
        "9",
        "--unseen-objects",
        "3",
        "--train",
        "4",
        "--valid",
        "2",
        "--test",
        "12",
        "--test-unseen",
        "2",
    ]
    nowhere = {"PATH": str(tmp_path), "UNIVAL_STAMPS_DIR": ""}
    done = run("--out", str(tmp_path / "data"), *few, **nowhere)
    assert done.returncode == 0, done.stderr
    said = [line for line in done.stderr.splitlines() if "instead of stamps" in line]
    assert len(said) == 1 and "because apt-get is not here" in said[0]
    assert json.loads((tmp_path / "data" / "manifest.json").read_text())["sprites"]["kind"] == "shapes"
    refused = run("--out", str(tmp_path / "more"), *few, "--sprites", "stamps", **nowhere)
    assert refused.returncode == 2 and refused.stderr.startswith("error: apt-get is not here") and not refused.stdout


def test_a_failing_package_client_is_quoted(tmp_path, monkeypatch):
    for tool in ("apt-get", "dpkg-deb"):
        (tmp_path / tool).write_text("#!/bin/sh\necho 'E: Unable to locate package' >&2\nexit 100\n")
        (tmp_path / tool).chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/bin:/usr/bin")
    monkeypatch.delenv(stamps.FOLDER_VARIABLE, raising=False)
    wanted = f"apt-get download {stamps.PACKAGE} failed: E: Unable to locate package"
    with pytest.raises(stamps.StampsUnavailableError, match=wanted), stamps.find_stamps():
        pass


def test_the_command_can_be_run_again(tmp_path):
    out = tmp_path / "data"
    few = ["--out", str(out), "--sprites", "shapes", "--objects", "9", "--unseen-objects", "0"]
    few += ["--train", "3", "--valid", "0", "--test", "0", "--test-unseen", "0"]
    assert run(*few).returncode == 0
    before = digests(out)
    again = run(*few)
    assert again.returncode == 0 and "already holds this data" in again.stdout and digests(out) == before
    other = run(*few, "--seed", "5")
    assert other.returncode == 2 and "other arguments (give --force" in other.stderr and digests(out) == before
    assert run(*few, "--seed", "5", "--force").returncode == 0 and digests(out) != before


def test_a_folder_of_something_else_is_left_alone(tmp_path):
    (tmp_path / "letter.txt").write_text("dear reader")
    done = run("--out", str(tmp_path), "--sprites", "shapes", "--force")
    assert done.returncode == 2 and "exists and is not sampler data" in done.stderr
    assert (tmp_path / "letter.txt").read_text() == "dear reader"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"sprites": "stickers"}, "--sprites stickers: must be one of auto, stamps, shapes"),
        ({"phrasing": "long"}, "--phrasing long: must be one of canonical, both"),
        ({"most": 5}, "--per-scene 2-5: must be one number or a range within 1-4"),
        ({"fewest": 3}, "--per-scene 3-2"),
        ({"size": 8}, "--size 8: must be from 48 to"),
        ({"train": -1}, "--train -1: must be from 0"),
        ({"quality": 101}, "--quality 101: must be from 1 to 100"),
        ({"unseen_objects": 0}, "--test-unseen 8: needs --unseen-objects"),
    ],
)
def test_bad_settings_name_the_argument(changes, message):
    with pytest.raises(UserError, match=message):
        dataclasses.replace(SMALL, **changes).check()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--per-scene", "two"], "error: --per-scene two: must be a number or a range such as 1-4"),
        (["--workers", "0"], "error: --workers 0: must be at least 1"),
        (["--objects", "5000"], "error: --objects 5000 --unseen-objects 20: only 140 sprites can be told apart"),
        (["--stamps-dir", "nowhere"], "error: --sprites shapes: takes no --stamps-dir"),
    ],
)
def test_bad_arguments_give_one_line(tmp_path, arguments, message):
    done = run("--out", str(tmp_path / "data"), "--sprites", "shapes", *arguments)
    assert done.returncode == 2 and not (tmp_path / "data").exists()
    assert done.stderr.startswith(message) and done.stderr.count("\n") == 1


def test_bad_stamps_are_named(tmp_path, monkeypatch):
    monkeypatch.setenv(stamps.FOLDER_VARIABLE, "elsewhere")
    with pytest.raises(UserError, match="UNIVAL_STAMPS_DIR elsewhere: there is no such folder"), stamps.find_stamps():
        pass
    with pytest.raises(UserError, match="nowhere: there is no such folder"), stamps.find_stamps("nowhere"):
        pass
    with pytest.raises(UserError, match=r"holds no \.png cut-outs"), stamps.find_stamps(str(tmp_path)):
        pass
    with (
        pytest.raises(UserError, match=r"a\.deb: there is no such file"),
        stamps.find_stamps(None, str(tmp_path / "a.deb")),
    ):
        pass


def test_the_real_stamps_give_a_hundred_and_twenty_clear_names(stamps_folder):
    sprites, source = write.load_sprites(write.Settings(sprites="stamps"), stamps_folder)
    names = [sprite.name for sprite in sprites]
    assert len(set(names)) == 120 and source.licence == "GPL-2"
    assert all(1 <= len(name.split()) <= 3 and name == name.lower() for name in names)
    assert {"owl", "penguin", "red flag"} <= set(names)
    assert sum(sprite.drawing for sprite in sprites) < 30
