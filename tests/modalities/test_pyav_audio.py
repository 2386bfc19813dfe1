"""Audio of every kind of file, and the audio tracks of videos: all samples, at their rate, the mean of the channels."""

import io

import numpy as np
import pytest
import torch

from tests.modalities import clips
from unival.errors import UserError
from unival.modalities import pyav_audio
from unival.modalities.audio import AudioLoader
from unival.modalities.audio_files import open_audio
from unival.modalities.composed import MediaOptions

av = pytest.importorskip("av")
soundfile = pytest.importorskip("soundfile")

LAYOUTS = {1: "mono", 2: "stereo", 6: "5.1"}


def tones(rate=48000, channels=2, seconds=0.5):
    """A chirp per channel: channels x samples."""
    time = np.arange(round(seconds * rate)) / rate
    return np.stack([0.4 * np.sin(2 * np.pi * ((200 + 150 * c) * time + 700 * time**2)) for c in range(channels)]).astype(np.float32)


def encoded(container, codec, values, rate=48000, video=False, pts=0):
    """A file of ``values`` (channels x samples), with a video beside them or not."""
    buffer = io.BytesIO()
    layout = LAYOUTS[len(values)]
    with av.open(buffer, "w", format=container) as out:
        pictures = clips.encoder(out, "libx264", options={"preset": "ultrafast"}) if video else None
        stream = out.add_stream(codec, rate=rate, layout=layout)
        if codec == "wmav2":
            stream.bit_rate = 128000
        frame = av.AudioFrame.from_ndarray(values, format="fltp", layout=layout)
        frame.sample_rate, frame.pts = rate, 0
        resampler = av.AudioResampler(stream.format.name, layout, rate, stream.frame_size or None)
        for part in resampler.resample(frame) + resampler.resample(None):
            part.pts = None if part.pts is None else part.pts + pts
            out.mux(stream.encode(part))
        out.mux(stream.encode())
        if pictures is not None:
            for i, picture in enumerate(clips.frames_of(range(12), 64, 64, "yuv420p")):
                picture.pts = i
                out.mux(pictures.encode(picture))
            out.mux(pictures.encode())
    return buffer.getvalue()


def written(values, rate=48000, **how):
    """A file by libsndfile."""
    buffer = io.BytesIO()
    soundfile.write(buffer, values.T, rate, **how)
    return buffer.getvalue()


def heard(data, backend="pyav"):
    """Rate and all samples."""
    with open_audio(data, backend) as sound:
        whole = sound.read(0, sound.frames)
        assert len(whole) == sound.frames and whole.dtype == np.float32
        assert np.array_equal(sound.read(sound.frames // 3, 1000), whole[sound.frames // 3 :][:1000])
        return sound.rate, whole


def delay(found, expected):
    """How many samples later the beginning of what is expected comes, and how far off it is there."""
    length = 4000
    windows = np.lib.stride_tricks.sliding_window_view(found[: length + 3000], length)[:, 1000::10]
    off = np.abs(windows - expected[1000:length:10]).mean(axis=1)
    return int(off.argmin()), float(off.min())


# Lossless: samples are those that were written ------------------------------------------------------------------------

EXACT = {
    **{f"{codec} {container}": (container, codec) for container in ("matroska", "mov") for codec in ("pcm_s16le", "pcm_s24le")},
    **{f"{codec} nut": ("nut", codec) for codec in ("pcm_u8", "pcm_s16be", "pcm_s32le", "pcm_f32le", "pcm_f64le")},
    **{f"{codec} matroska": ("matroska", codec) for codec in ("flac", "wavpack", "tta", "pcm_f32le")},
    **{f"{codec} avi": ("avi", codec) for codec in ("pcm_s16le", "pcm_u8")},
    **{f"alac {container}": (container, "alac") for container in ("ipod", "mov")},
    **{f"flac {container}": (container, "flac") for container in ("ogg", "mp4", "flac")},
    **{f"{codec} wav": ("wav", codec) for codec in ("pcm_s16le", "pcm_s24le", "pcm_f32le", "pcm_u8", "pcm_s32le")},
    **{f"{container}": (container, "pcm_s16be") for container in ("aiff", "au", "caf")},
    "wavpack": ("wv", "wavpack"),
}


@pytest.mark.parametrize("kind", EXACT)
def test_samples_of_lossless_kinds(kind):
    container, codec = EXACT[kind]
    for rate, channels in ((48000, 2), (44100, 1), (22050, 6)):
        values = tones(rate, channels)
        try:
            data = encoded(container, codec, values, rate)
        except ValueError:  # the encoder takes no such layout
            assert channels == 6
            continue
        found_rate, found = heard(data)
        assert found_rate == rate and len(found) == values.shape[1]
        assert np.abs(found - values.mean(0)).max() < (1 / 128 if "u8" in kind or codec in ("wavpack", "tta") else 1 / 16000)


@pytest.mark.parametrize("codec, container", [("pcm_s16le", "matroska"), ("flac", "matroska"), ("alac", "mov"), ("pcm_s16le", "avi")])
def test_sound_tracks_of_videos(codec, container):
    values = tones()
    rate, found = heard(encoded(container, codec, values, video=True))
    assert rate == 48000 and found.shape == values.mean(0).shape and np.abs(found - values.mean(0)).max() < 1e-4


def test_a_track_that_starts_late_has_no_silence_before_it():
    """As the ffmpeg command writes it."""
    values = tones()
    found = heard(encoded("matroska", "pcm_s16le", values, video=True, pts=4800))[1]
    assert found.shape == values.mean(0).shape and np.abs(found - values.mean(0)).max() < 1e-4


# Lossy: in time, and nothing missing ----------------------------------------------------------------------------------

# Kind -> how many samples may come before the audio: what an encoder puts there and the file does not tell
LOSSY = {
    ("ipod", "aac"): 0,
    ("mp4", "aac"): 0,
    ("webm", "libopus"): 0,
    ("ogg", "libopus"): 0,
    ("mp3", "libmp3lame"): 0,
    ("adts", "aac"): 1024,
    ("flv", "aac"): 1024,
    ("mpegts", "aac"): 1024,
    ("ac3", "ac3"): 256,
    ("eac3", "eac3"): 256,
    ("mp2", "mp2"): 481,
    ("avi", "libmp3lame"): 1105,
    ("wav", "libmp3lame"): 1105,
    ("matroska", "ac3"): 0,
}


@pytest.mark.parametrize("container, codec", LOSSY)
def test_lossy_kinds_are_whole_and_in_time(container, codec):
    values = tones()
    rate, found = heard(encoded(container, codec, values))
    at, off = delay(found, values.mean(0))
    assert rate == 48000 and abs(at - LOSSY[container, codec]) <= 2 and off < 0.02
    assert values.shape[1] <= len(found) + 2 and len(found) <= values.shape[1] + at + 2048


def test_files_that_libsndfile_recognises_and_refuses():
    """FFmpeg reads them; truncated, they are refused all the same."""
    values = tones(22050, 1, 1.0)
    for container, codec in (("wav", "ac3"), ("wav", "mp2"), ("wav", "flac"), ("wav", "adpcm_yamaha"), ("voc", "pcm_u8"), ("w64", "ac3")):
        rate = 44100 if codec == "ac3" else 22050
        data = encoded(container, codec, values, rate)
        found_rate, found = heard(data)
        assert abs(found_rate / rate - 1) < 0.01 and 22050 <= len(found) <= 22050 + 3072  # VOC rounds rates
        for part in (0.5, 0.99):
            with pytest.raises(UserError, match="cannot decode the audio"):
                heard(data[: int(len(data) * part)])


@pytest.mark.parametrize("rate", [22050, 44100])
def test_mp2_of_any_length(rate):
    """Of which libsndfile guesses how long it is."""
    for seconds in (1.0, 1.3, 2.0):
        assert len(heard(encoded("mp2", "mp2", tones(rate, 1, seconds), rate))[1]) >= seconds * rate


@pytest.mark.parametrize("container, codec", [("sox", "pcm_s32le"), ("w64", "pcm_s16le"), ("voc", "pcm_u8"), ("caf", "pcm_s16be")])
def test_cut_off_files_of_ffmpeg(container, codec):
    values = tones(22050, 1)
    data = encoded(container, codec, values, 22050)
    assert abs(len(heard(data)[1]) - values.shape[1]) < 8
    for part in (0.5, 0.995):
        with pytest.raises(UserError, match="truncated"):
            heard(data[: int(len(data) * part)])


def test_wma():
    """FFmpeg takes the first two blocks of 2048 samples for what the encoder put there; its own encoder puts only one."""
    values = tones()
    rate, found = heard(encoded("asf", "wmav2", values))
    at, off = delay(found, values.mean(0)[2048:])
    assert rate == 48000 and at == 0 and off < 0.01


def test_amr():
    if "libopencore_amrnb" not in av.codecs_available:
        pytest.skip("this FFmpeg cannot write AMR")
    values = tones(8000, 1, 1.0)
    rate, found = heard(encoded("amr", "libopencore_amrnb", values, 8000))
    assert rate == 8000 and 8000 <= len(found) <= 8320 and np.abs(found).max() > 0.2


# Files put together ---------------------------------------------------------------------------------------------------


def ogg(kind, values, rate=48000):
    if kind == "vorbis":
        return written(values, rate, format="OGG", subtype="VORBIS")
    return encoded("ogg", {"opus": "libopus", "flac": "flac"}[kind], values, rate)


@pytest.mark.parametrize("kinds", [("vorbis", "vorbis"), ("opus", "opus"), ("flac", "flac"), ("vorbis", "opus", "flac")])
def test_chained_ogg_is_heard_whole(kinds):
    values = [tones(channels=1 + i % 2) for i in range(len(kinds))]
    rate, found = heard(b"".join(ogg(kind, part) for kind, part in zip(kinds, values, strict=True)))
    expected = np.concatenate([part.mean(0) for part in values])
    assert rate == 48000 and len(found) == len(expected) and np.abs(found - expected).mean() < 0.01


def test_chained_ogg_of_several_rates():
    pytest.importorskip("torchaudio")
    rate, found = heard(ogg("vorbis", tones(44100, 1), 44100) + ogg("opus", tones(48000, 1)))
    assert rate == 44100 and np.abs(found - np.tile(tones(44100, 1)[0], 2)).mean() < 0.01


def test_stretches_of_chained_ogg_come_from_any_part():
    values = [scale * tones(8000, 1) for scale in (1.0, 0.8, 0.6)]
    data = b"".join(ogg("flac", part, 8000) for part in values)
    loader = AudioLoader(MediaOptions(audio_sample_rate=8000, max_audio_seconds=0.3))
    whole, starts = np.concatenate(values, axis=1)[0], set()
    for seed in range(12):
        out = loader(data, np.random.default_rng(seed), True).values.numpy()
        errors = [np.abs(whole[i : i + len(out)] - out).max() for i in range(len(whole) - len(out) + 1)]
        starts.add(int(np.argmin(errors)) // 1600)
        assert min(errors) < 1e-3
    assert len(starts) > 3


def test_chained_ogg_that_is_damaged_is_refused():
    part = ogg("vorbis", tones())
    with pytest.raises(UserError, match="truncated"):
        heard(part + part[:-300])
    with pytest.raises(UserError, match="it is damaged at byte"):
        heard(part[:-300] + part)


@pytest.mark.parametrize("kind", ["twice", "says too little", "says nothing"])
def test_mp3_is_heard_whole_whatever_its_header_says(kind):
    values = tones()
    data = encoded("mp3", "libmp3lame", values)
    at = data.index(b"Info")
    wrong = {
        "twice": data + data,
        "says too little": data[: at + 8] + (5).to_bytes(4, "big") + data[at + 12 :],
        "says nothing": data[:at] + bytes(4) + data[at + 4 :],
    }[kind]
    found = heard(wrong)[1]
    parts = 2 if kind == "twice" else 1
    assert parts * values.shape[1] - 2400 <= len(found) <= parts * values.shape[1] + parts * 2304
    assert delay(found[-10000:], values.mean(0)[-8600:])[1] < 0.02  # its end is there


def test_mp3_that_says_too_much_is_refused():
    data = encoded("mp3", "libmp3lame", tones())
    at = data.index(b"Info")
    with pytest.raises(UserError, match="it ends"):
        heard(data[: at + 8] + (500).to_bytes(4, "big") + data[at + 12 :])


# Memory, and what is refused ------------------------------------------------------------------------------------------


def test_long_tracks_are_decoded_again_instead_of_kept(monkeypatch):
    data = encoded("matroska", "pcm_s16le", tones())
    expected = heard(data)[1]
    monkeypatch.setattr(pyav_audio, "KEPT", 1000)
    with open_audio(data) as sound:
        assert sound.frames == len(expected)
        for first, count in ((0, 500), (3000, 9000), (sound.frames - 10, 10)):
            assert np.array_equal(sound.read(first, count), expected[first : first + count])


def test_tracks_whose_rate_changes_are_refused():
    data = encoded("adts", "aac", tones()) + encoded("adts", "aac", tones(44100), 44100)
    with pytest.raises(UserError, match="its sample rate changes from 48000 to 44100 Hz"):
        heard(data)


@pytest.mark.parametrize("container, codec", [("ogg", "flac"), ("matroska", "flac"), ("ipod", "alac"), ("ipod", "aac"), ("ac3", "ac3")])
def test_damaged_sounds_are_refused_in_one_line_or_heard(container, codec, capfd):
    data = encoded(container, codec, tones())
    rng = np.random.default_rng(0)
    refused = 0
    for _ in range(8):
        at = int(rng.integers(len(data)))
        for broken in (data[:at], data[:at] + rng.bytes(300) + data[at + 300 :]):
            try:
                rate, found = heard(broken)
            except UserError as error:
                refused += 1
                assert str(error).isprintable() and "cannot decode the audio" in str(error) and len(str(error)) < 150
            else:
                assert rate == 48000 and len(found) <= 26000
    assert refused and not capfd.readouterr().err


def test_loading_is_as_of_a_wav_file():
    values = tones()
    loader = AudioLoader(MediaOptions(max_audio_seconds=0.3))
    data = (encoded("matroska", "pcm_s16le", values, video=True), encoded("wav", "pcm_s16le", values))
    tracks = [loader(one, np.random.default_rng(3), True).values for one in data]
    assert torch.equal(*tracks)
