"""Sounds: rows tell what is heard when, names can be told apart, no recording has two names, splits stay apart."""

import dataclasses
import json
import pathlib

import numpy as np
import pytest

from data_utils.sampler import audio, hearing, image_audio, sounds, splits, stamps, synth, tables
from data_utils.sampler.errors import UserError
from data_utils.sampler.hearing import ALONE, MIXED, SEQUENCE, Heard
from data_utils.sampler.relations import Thing
from data_utils.sampler.settings import ImageAudioSettings, SoundSettings
from tests.data_utils.test_build_sampler import digests, rows, run

soundfile = pytest.importorskip("soundfile")
SMALL = SoundSettings(sounds="synthesised", rate=16000, most=3, train=30, valid=12, test=14, test_unseen=8)


def build_sounds(out: pathlib.Path, workers: int = 1, **changes) -> dict:
    settings = dataclasses.replace(SMALL, **changes)
    library, source = audio.load_sounds(settings)
    return tables.build(out, audio.make_sound_composer(settings, library), source, workers)


@pytest.fixture(scope="module")
def built_sounds(tmp_path_factory) -> pathlib.Path:
    out = tmp_path_factory.mktemp("sounds") / "data"
    build_sounds(out)
    return out


def test_a_seed_gives_the_same_bytes_with_any_number_of_processes(built_sounds, tmp_path):
    build_sounds(tmp_path / "again", workers=2)
    assert digests(tmp_path / "again") == digests(built_sounds)


def test_files_are_16_bit_mono_of_the_right_length(built_sounds):
    for row in rows(built_sounds, "train")[:10]:
        about = soundfile.info(str(built_sounds / row["audio"]))
        assert (about.samplerate, about.channels, about.subtype, about.frames) == (16000, 1, "PCM_16", 48000)
        samples, _ = soundfile.read(str(built_sounds / row["audio"]))
        assert 0.01 < np.abs(samples).max() < 0.99


def test_sounds_are_where_the_rows_say():
    """Without noise, a recording is silent outside its objects and sounds within each; layouts are what they say."""
    library, rng = sounds.Synthesised(16000), np.random.default_rng(0)
    layouts = [(ALONE, 1), (SEQUENCE, 2), (SEQUENCE, 3), (MIXED, 2), (MIXED, 3)]
    quiet = 0
    for layout, count in layouts * 6:
        names = [synth.NAMES[index] for index in rng.permutation(len(synth.NAMES))[:count]]
        made = audio.record_sounds(names, layout, library, 16000, 3.0, rng)
        assert len(made.samples) == 48000 and {one.name for one in made.heard} == set(names)
        times = np.arange(48000) / 16000
        inside = np.zeros(48000, dtype=bool)
        for one in made.heard:
            assert 0 <= one.onset < one.offset <= 3.001
            inside |= (times >= one.onset - 0.001) & (times <= one.offset + 0.001)
            within = made.samples[(times >= one.onset) & (times <= one.offset)]
            assert np.abs(within).max() > 0.01
        outside = made.samples[~inside]  # nothing, or noise at least 20 dB below the level of the sounds
        assert np.sqrt((outside**2).mean()) < 2 * 0.1 * sounds.LEVEL  # twice: brown noise is louder here than there
        quiet += not outside.any()
        if layout == SEQUENCE:
            assert [one.name for one in made.heard] == names
            assert all(a.offset + 0.099 <= b.onset for a, b in zip(made.heard, made.heard[1:], strict=False))
        if layout == MIXED:
            longest = max(made.heard, key=lambda one: one.offset - one.onset)
            assert all(longest.onset <= one.onset and one.offset <= longest.offset + 0.001 for one in made.heard)
    assert 0 < quiet < 30  # some recordings have noise, some do not


def test_captions_and_questions_of_a_sequence_and_of_a_mixture():
    dog, bell, owl = Heard("dog", 0.1, 0.5), Heard("bell", 0.8, 1.2), Heard("owl", 1.5, 2.0)
    assert hearing.captions([dog], ALONE)[:2] == ["a dog", "the sound of a dog"]
    assert hearing.captions([dog, bell], SEQUENCE)[0] == "a dog, then a bell"
    assert "a bell after a dog" in hearing.captions([dog, bell], SEQUENCE)
    assert hearing.captions([dog, bell, owl], SEQUENCE)[0] == "a dog, then a bell, then an owl"
    mixed = hearing.captions([dog, bell], MIXED)
    assert mixed == ["a bell and a dog at the same time", "a dog and a bell at the same time"]
    for seed in range(8):
        rng = np.random.default_rng(seed)
        told = hearing.questions([dog, bell, owl], SEQUENCE, ["cat"], rng)
        answers = {one["question"]: one["answer"] for one in told}
        assert answers["what is heard first?"] == "dog" and answers["what is heard last?"] == "owl"
        assert answers["how many sounds are heard?"] == "3"
        order = ["dog", "bell", "owl"]
        for question, answer in answers.items():
            if question.startswith("what is heard right after the "):
                before = question.removeprefix("what is heard right after the ").removesuffix("?")
                assert order.index(answer) == order.index(before) + 1
            if " heard before the " in question:
                one, other = question.removeprefix("is the ").removesuffix("?").split(" heard before the ")
                assert answer == ("yes" if order.index(one) < order.index(other) else "no")
            if question in ("is a cat heard?", "is a dog heard?"):
                assert answer == ("no" if "cat" in question else "yes")
        answers = {one["question"]: one["answer"] for one in hearing.questions([dog, bell], MIXED, [], rng)}
        assert answers["are the sounds heard at the same time or one after the other?"] == MIXED
        assert "what is heard first?" not in answers


def test_splits_share_no_caption_or_pair(built_sounds):
    said = {split: {one for row in rows(built_sounds, split) for one in row["caption"]} for split in splits.SPLITS}
    for one in said:
        assert said[one] and not any(said[one] & said[other] for other in said if other != one)
    manifest = json.loads((built_sounds / "manifest.json").read_text())
    held_out = {tuple(pair) for pair in manifest["held_out_pairs"]["test"]}
    for row in rows(built_sounds, "test"):
        names = sorted(thing["name"] for thing in row["objects"])
        assert len(names) >= 2 and all((a, b) in held_out for i, a in enumerate(names) for b in names[i + 1 :])
    assert not set(manifest["objects"]) & set(manifest["unseen_objects"])
    swapped = rows(built_sounds, "test_swapped")
    assert all(row["audio_of"] != row["id"].replace("test_swapped", "test") for row in swapped)


def features(samples: np.ndarray, rate: int = 16000) -> np.ndarray:
    """Eight moments of 24 logarithmic bands, relative to the loudest: how a listener might compare two sounds."""
    window = 1024
    starts = np.linspace(0, len(samples) - window, 32).astype(int)
    power = np.abs(np.fft.rfft(samples[starts[:, None] + np.arange(window)] * np.hanning(window))) ** 2
    edges = np.unique(np.geomspace(3, window // 2, 25).astype(int))
    bands = np.stack([power[:, a:b].mean(1) for a, b in zip(edges, edges[1:], strict=False)], axis=1)
    level = 10 * np.log10(bands / bands.max() + 1e-5)
    changes = np.abs(np.diff(level, axis=0)).mean(0)
    return np.concatenate([level.reshape(8, 4, -1).mean(1).ravel(), 3 * changes])


def test_synthesised_sounds_can_be_told_apart():
    """A nearest neighbour on plain features names nearly all of 36 sounds, of which pitch and length vary."""
    rng = np.random.default_rng(0)
    known = [(name, features(synth.synthesise(name, 16000, 1.2, rng))) for name in synth.NAMES for _ in range(8)]
    table = np.stack([feature for _, feature in known])
    right = 0
    for name in synth.NAMES:
        for _ in range(3):
            feature = features(synth.synthesise(name, 16000, 1.2, rng))
            right += known[int(((table - feature) ** 2).sum(1).argmin())][0] == name
    assert len(synth.NAMES) == 36 and right / 108 > 0.9, f"{right} of 108"


def test_resampling_keeps_a_tone():
    for own, rate in ((44100, 32000), (22254, 16000), (8000, 32000)):
        tone = np.sin(2 * np.pi * 500 * np.arange(own // 2) / own)
        made = sounds.resample(tone, own, rate)
        wanted = np.sin(2 * np.pi * 500 * np.arange(rate // 2) / rate)
        assert len(made) == len(wanted)
        middle = slice(rate // 10, -rate // 10)
        assert np.abs(made[middle] - wanted[middle]).max() < 0.02
    assert sounds.resample(np.ones(3), 8000, 8000) is not None


@pytest.fixture
def toy_stamps(tmp_path) -> pathlib.Path:
    """Stamps with sounds: two recordings of a cow, one recording under two names, silence, a voice, a description."""
    folder = tmp_path / "stamps"
    rng = np.random.default_rng(0)

    def add(path: str, caption: str, samples: np.ndarray, rate: int = 22050) -> None:
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / f"{path}.txt").write_text(f"{caption}\n", encoding="utf-8")
        soundfile.write(str(folder / f"{path}.ogg"), samples, rate, format="OGG", subtype="VORBIS")

    def noise(seconds: float = 0.6) -> np.ndarray:
        return 0.3 * rng.standard_normal(int(22050 * seconds))

    for word in ("ape", "bat", "cat", "dog", "owl"):
        add(f"animals/{word}", f"A {word}.", noise())
    add("animals/cow", "A cow.", noise())
    add("animals/cow_white", "A cow.", np.stack([noise(), noise()], axis=1))
    same = noise()
    add("animals/emu", "An emu.", same)
    add("animals/rhino", "A rhino.", np.concatenate([np.zeros(3000), 0.5 * same]))
    add("animals/elk", "An elk.", np.zeros(9000))
    add("animals/flea", "A flea.", noise(0.1))
    add("animals/wild", "A wild cat.", noise())
    add("symbols/one", "A one.", noise())
    (folder / "animals" / "cat.png").write_bytes(b"")
    soundfile.write(str(folder / "animals" / "cat_desc.ogg"), noise(), 22050, format="OGG", subtype="VORBIS")
    return folder


def test_recordings_are_read_with_care(toy_stamps):
    with stamps.find_stamps(str(toy_stamps)) as found:
        library = sounds.read_recordings(found, 16000)
    assert list(library.sources) == ["ape", "bat", "cat", "cow", "dog", "emu", "owl"]
    assert library.sources["cow"] == ["animals/cow.ogg", "animals/cow_white.ogg"]
    clip = library.clip("dog", 0.3, np.random.default_rng(0))
    assert len(clip) == 4800 and clip.dtype == np.float32
    drawn = {library.clip("cow", 2.0, np.random.default_rng(seed)).tobytes() for seed in range(20)}
    assert len(drawn) == 2  # both recordings are used


def test_clips_are_equally_loud_and_long_ones_lose_their_quiet_part():
    rng = np.random.default_rng(0)
    samples = np.concatenate([np.full(16000, 1e-4), rng.standard_normal(16000)]).astype(np.float32)
    library = sounds.Recorded(16000, {"gong": [("a", samples)], "whisper": [("b", 0.001 * samples)]})
    for name in library.recordings:
        clip = library.clip(name, 0.5, rng)
        assert len(clip) == 8000 and clip[0] == 0.0
        loudest = max(np.sqrt((clip[start : start + 1600] ** 2).mean()) for start in range(0, 6400, 100))
        assert loudest == pytest.approx(sounds.LEVEL, rel=0.05)


def test_a_broken_recording_is_named(toy_stamps):
    (toy_stamps / "animals" / "owl.ogg").write_bytes(b"OggS nothing")
    with stamps.find_stamps(str(toy_stamps)) as found, pytest.raises(UserError, match=r"owl\.ogg: cannot be read as"):
        sounds.read_recordings(found, 16000)


def test_questions_about_a_picture_and_a_sound():
    owl, bell = Thing("owl", (5, 30, 25, 50)), Thing("bell", (60, 30, 80, 50))
    for seed in range(6):
        told = image_audio.questions([owl, bell], bell, 96, np.random.default_rng(seed))
        answers = {one["question"]: one["answer"] for one in told}
        assert answers["which object is heard?"] == "bell"
        assert answers["which side of the picture is the object that is heard on?"] == "right"
        assert answers["what is to the left of the object that is heard?"] == "owl"
        assert answers.get("is the owl heard?", "no") == "no" and answers.get("is the bell heard?", "yes") == "yes"


@pytest.mark.slow
def test_real_stamps_give_recordings_and_pictures_with_sounds(stamps_folder, tmp_path):
    few = {"objects": 20, "unseen_objects": 4, "train": 4, "valid": 2, "test": 12, "test_unseen": 2}
    library, source = audio.load_sounds(SoundSettings(sounds="stamps"), stamps_folder)
    assert len(library.sources) >= 55 and {"dog", "cow", "violin"} <= set(library.sources)
    assert source.licence == "GPL-2" and not {"ram", "beaver", "wombat"} & set(library.sources)
    settings = ImageAudioSettings(**few)
    sprites, recorded, source = image_audio.load_both(settings, stamps_folder)
    tables.build(tmp_path / "both", image_audio.make_both_composer(settings, sprites, recorded), source)
    for row in rows(tmp_path / "both", "test"):
        (heard,) = (thing for thing in row["objects"] if thing["heard"])
        assert row["caption"][0].endswith(f", and the {heard['name']} is heard")
        assert {"kind": "what", "question": "which object is heard?", "answer": heard["name"]} in row["questions"]
        assert (tmp_path / "both" / row["image"]).is_file()
        assert soundfile.info(str(tmp_path / "both" / row["audio"])).duration == 3.0


def test_without_stamps_sounds_are_synthesised_and_the_reason_is_given(tmp_path):
    few = ["--media", "audio", "--train", "3", "--valid", "2", "--test", "0", "--test-unseen", "0", "--rate", "16000"]
    nowhere = {"PATH": str(tmp_path), "UNIVAL_STAMPS_DIR": ""}
    done = run("--out", str(tmp_path / "data"), *few, **nowhere)
    assert done.returncode == 0, done.stderr
    assert "synthesised instead of the stamps' own, because apt-get is not here" in done.stderr
    assert json.loads((tmp_path / "data" / "manifest.json").read_text())["sounds"]["kind"] == "synthesised"
    again = run("--out", str(tmp_path / "data"), *few, **nowhere)
    assert again.returncode == 0 and "already holds this data" in again.stdout
    refused = run("--out", str(tmp_path / "more"), *few, "--sounds", "stamps", **nowhere)
    assert refused.returncode == 2 and refused.stderr.startswith("error: apt-get is not here")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--media", "audio", "--frames", "4"], "--frames 4: not an option of --media audio, only of video"),
        (["--seconds", "4"], "--seconds 4.0: not an option of --media image, only of audio, image"),
        (["--media", "audio", "--per-scene", "4"], "--per-scene 4-4: must be one number or a range within 1-3"),
        (["--media", "audio", "--seconds", "1"], "--seconds 1: too short for 2 sounds"),
        (["--media", "audio", "--sounds", "synthesised", "--objects", "40"], "there are only 36 sounds"),
        (["--media", "image+audio", "--sprites", "shapes"], "--sprites shapes: shapes have no sounds of their own"),
        (["--media", "video", "--emoji-dir", "x"], "--emoji-dir x: needs --media video --sprites emoji"),
        (["--sprites", "emoji"], "--sprites emoji: must be one of auto, stamps, shapes"),
    ],
)
def test_bad_arguments_are_named(tmp_path, arguments, message):
    done = run("--out", str(tmp_path / "data"), *arguments)
    assert done.returncode == 2 and message in done.stderr and len(done.stderr.splitlines()) == 1
    assert not (tmp_path / "data").exists()


def test_sounds_without_their_package_are_refused(monkeypatch):
    monkeypatch.setattr(sounds, "find_spec", lambda name: None)
    with pytest.raises(UserError, match="needs the package soundfile"):
        sounds.check_soundfile()
