"""Log-mel front end and PANNs, against golden values and by invariants."""

import math

import pytest
import torch

from tests import golden
from unival.backbones.pann import PANNS, Pann, filters_sample_rate, mask_stripes, mel_filters
from unival.errors import UserError
from unival.modalities.base import MediaEmbedding, audio_layout

PREFIX = "encoder.embed_audios."
RENAMED = {"mel_filters": "logmel_extractor.melW"}


def noise(n=2, samples=16000, seed=0):
    return 0.1 * torch.randn(n, samples, generator=torch.Generator().manual_seed(seed))


def small(**changes):
    torch.manual_seed(0)
    return Pann("cnn6", **changes).eval()


@pytest.fixture(scope="module")
def published():
    """CNN14 with the reference's weights."""
    model = Pann("cnn14", hop_size=200).eval()
    state = {PREFIX + RENAMED.get(key, key): value for key, value in model.state_dict().items()}
    golden.recipe.fill_(state)  # writes into the model; skips the mel filters
    return model


# Golden values --------------------------------------------------------------------------------------------------------


def test_golden_log_mel(published):
    values = golden.tensors("cnn")
    assert torch.equal(mel_filters(48000, 1024, 64, 50.0, 14000.0)[:, ::4], values["melW"])
    found = published.log_mel(golden.case("audio")["values"])[..., ::8]
    torch.testing.assert_close(found, values["logmel_hop200"][:, 0], rtol=1e-5, atol=5e-4)  # dB


def test_golden_stages(published):
    expected = golden.numbers("cnn")["audios"]
    found = {}
    hooks = [
        getattr(published, name).register_forward_hook(lambda _, __, out, name=name: found.update({name: out}))
        for name in ("bn0", "conv_block1", "conv_block3", "conv_block6")
    ]
    with torch.no_grad():
        published(golden.case("audio")["values"])
    for hook in hooks:
        hook.remove()
    for name, out in found.items():
        assert tuple(out.shape) == tuple(expected[name]["shape"])
        torch.testing.assert_close(out.flatten()[:: out.numel() // 64][:64], golden.tensors("cnn")[f"audios/{name}"], rtol=1e-4, atol=1e-4)
        assert abs(out.mean().item() - expected[name]["mean"]) < 1e-5
        assert abs(out.std().item() - expected[name]["std"]) < 1e-5


def test_golden_features_in_float64(published):
    with torch.no_grad():
        features = published.double()(golden.case("audio")["values"].double())[:, golden.CHANNELS]
    published.float()
    expected = golden.tensors("cnn")["features/audios"]  # stored in float32: half a unit in its last place
    torch.testing.assert_close(features, expected.double(), rtol=6e-8, atol=1e-12)


def test_state_dict_has_the_published_names():
    shapes = golden.numbers("model")["base"]
    theirs = {key.removeprefix(PREFIX): shape for key, shape in shapes.items() if key.startswith(PREFIX)}
    dropped = ("num_batches_tracked", "stft.conv_real.weight", "stft.conv_imag.weight")
    theirs = {key: shape for key, shape in theirs.items() if not key.endswith(dropped)}
    ours = {RENAMED.get(key, key): list(value.shape) for key, value in Pann("cnn14").state_dict().items()}
    assert ours == theirs


# Spectrogram ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("window, hop, rate", [(1024, 200, 48000), (512, 160, 16000)])
def test_log_mel_is_an_stft_and_mel_bands(window, hop, rate):
    model = small(sample_rate=rate, hop_size=hop, window_size=window, mel_bins=40, fmax=7000.0).double()
    waveform = noise(samples=5000).double()
    hann = torch.hann_window(window, dtype=torch.float64)
    spectrum = torch.stft(waveform, window, hop, window=hann, return_complex=True).abs().square()
    expected = 10 * (spectrum.transpose(1, 2) @ mel_filters(rate, window, 40, 50.0, 7000.0).double()).log10()
    torch.testing.assert_close(model.log_mel(waveform), expected, rtol=0, atol=1e-4)
    assert model.log_mel(torch.zeros(1, 5000).double()).eq(-100).all()


@pytest.mark.parametrize("rate, window, bins, low, high", [(48000, 1024, 64, 50.0, 14000.0), (16000, 400, 40, 0.0, 8000.0)])
def test_filters_are_librosas(rate, window, bins, low, high):
    filters = pytest.importorskip("librosa.filters")
    expected = torch.from_numpy(filters.mel(sr=rate, n_fft=window, n_mels=bins, fmin=low, fmax=high).T.copy())
    assert torch.equal(mel_filters(rate, window, bins, low, high), expected)


def test_a_tone_is_loudest_in_its_band():
    """Slaney's scale: 64 bands from 50 Hz (0.75 mel) to 14 kHz (15 + 27 ln 14 / ln 6.4 mel)."""
    top = 15 + 27 * math.log(14) / math.log(6.4)
    time = torch.arange(24000) / 48000
    for hertz, mel in ((600, 9.0), (2000, 15 + 27 * math.log(2) / math.log(6.4))):
        band = small().log_mel(torch.sin(2 * math.pi * hertz * time)[None])[0, 10:40].mean(0).argmax()
        assert abs(band + 1 - (mel - 0.75) / (top - 0.75) * 65) < 0.6


@pytest.mark.parametrize("rate", [8000, 16000, 22050, 32000, 44100, 48000])
def test_filters_tell_their_sample_rate(rate):
    filters = mel_filters(rate, 1024, 64, 50.0, min(14000.0, rate / 2))
    assert filters_sample_rate(filters) == rate
    assert filters_sample_rate(filters.half()) == rate
    assert filters_sample_rate(filters.flip(1)) is None
    assert filters_sample_rate(mel_filters(rate, 1024, 64, 0.0, min(12000.0, rate / 2))) is None


def test_spectrogram_is_float32_whatever_the_rest():
    model, waveform = small(), noise()
    expected = model.log_mel(waveform)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(model.log_mel(waveform), expected)
        assert model(waveform).dtype == torch.bfloat16
    for kind in (torch.float16, torch.bfloat16):
        half = small().to(kind)
        assert torch.equal(half.log_mel(waveform), expected)
        assert half(waveform.to(kind)).dtype == kind
        assert half.state_dict()["mel_filters"].dtype == torch.float32
    assert torch.equal(small().half().float().log_mel(waveform), expected)


def test_checkpoints_keep_their_filters():
    theirs, ours = small(sample_rate=32000), small()
    assert "kernels" not in theirs.state_dict()
    ours.load_state_dict(theirs.state_dict())
    assert torch.equal(ours.log_mel(noise()), theirs.log_mel(noise()))
    assert filters_sample_rate(ours.mel_filters) == 32000


def test_empty_bands_are_reported(caplog):
    small()
    assert not caplog.records
    small(mel_bins=256)
    assert "256 mel bands" in caplog.text and "--audio-window-size" in caplog.text


# Network --------------------------------------------------------------------------------------------------------------

# parameters: Kong et al. 2020, table 3, without the classifier; CNN14 as in the published model
SIZES = {"cnn6": 4_837_455 - 533_007, "cnn10": 5_219_279 - 533_007, "cnn14": 75_477_440}
SIZES["clap_cnn10"] = SIZES["cnn10"] + 9 * 512 * 1024 + 9 * 1024 * 1024 + 4 * 1024  # a fifth block of two convolutions and norms


@pytest.mark.parametrize("name", PANNS)
def test_sizes_and_shapes(name):
    model = Pann(name).eval()
    assert sum(p.numel() for p in model.parameters()) == SIZES[name]
    assert all(value.is_floating_point() for value in model.state_dict().values())
    with torch.no_grad():
        features = model(noise(1, 480 * 99))
    assert features.shape == (1, model.out_channels, 100 // model.stride, 64 // model.stride)


def test_too_short_sounds_name_the_shortest():
    model = small(sample_rate=16000, hop_size=400, fmax=8000.0)
    shortest = 15 * 400  # 16 frames, which four poolings make one
    assert model(noise(1, shortest)).shape[2:] == (1, 4)
    with pytest.raises(UserError, match=rf"at least {shortest / 16000:.3f} s"):
        model(noise(1, shortest - 1))


def test_sounds_do_not_depend_on_batch_mates():
    model, waveform = small().double(), noise(3).double()
    with torch.no_grad():
        torch.testing.assert_close(model(waveform)[1:2], model(waveform[1:2]), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"name": "cnn7"}, "cnn7.*cnn6, cnn10, cnn14"),
        ({"fmax": 30000.0}, "--audio-fmax <= 24000"),
        ({"fmin": 15000.0}, "--audio-fmin"),
        ({"hop_size": 0}, "--audio-hop-size 0"),
        ({"window_size": 1023}, "--audio-window-size 1023.*even"),
        ({"mel_bins": 15}, "--audio-mel-bins 15.*at least 16"),
    ],
)
def test_impossible_settings(changes, message):
    with pytest.raises(UserError, match=message):
        Pann(**{"name": "cnn6", **changes})


# Training -------------------------------------------------------------------------------------------------------------


def test_stripes():
    torch.manual_seed(0)
    x = torch.ones(2000, 1, 100, 16)
    times, mels = mask_stripes(x, 2, 64)[:, 0], mask_stripes(x, 3, 8)[:, 0]
    assert times.eq(times[:, :, :1]).all() and mels.eq(mels[:, :1]).all()  # whole frames, whole bands
    masked = 1 - times[:, :, 0]
    edges = (masked.diff(dim=1) == 1).sum(1) + masked[:, 0]
    assert edges.max() == 2 and masked.sum(1).max() > 64 and masked.sum(1).max() <= 2 * 63
    assert len({tuple(row.tolist()) for row in masked[:50]}) == 50  # each sound has its own
    # a stripe of w frames starts at one of 100 - w places, max(0, min(50, 99 - w) - max(0, 51 - w) + 1) of which cover frame 50
    cover = sum(max(0, min(50, 99 - w) - max(0, 51 - w) + 1) / (100 - w) for w in range(64)) / 64
    assert abs(masked[:, 50].mean().item() - (1 - (1 - cover) ** 2)) < 0.04


def test_stripes_fit_short_sounds():
    torch.manual_seed(0)
    masked = mask_stripes(torch.ones(500, 1, 20, 16), 2, 64)
    assert masked.flatten(1).any(1).float().mean() > 0.9  # two stripes seldom cover all of it


def test_training_masks_and_drops_evaluation_does_not():
    model, waveform = small().train(), noise(4, 48000)
    assert not torch.equal(model(waveform), model(waveform))
    still = small().train()
    seen = []
    still.conv_block1.register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    still(waveform)
    still.spec_augment = False
    still(waveform)
    assert seen[0].eq(0).all(2).any() or seen[0].eq(0).all(3).any()
    assert not seen[1].eq(0).all(2).any() and not seen[1].eq(0).all(3).any()
    model.eval()
    assert torch.equal(model(waveform), model(waveform))


def test_frozen_backbones_neither_mask_nor_move():
    embedding = MediaEmbedding(small(), 8, 42, frozen=True, layout=audio_layout).train()
    before = {key: value.clone() for key, value in embedding.backbone.state_dict().items()}
    first, again = embedding(noise()), embedding(noise())
    assert torch.equal(first.tokens, again.tokens)
    assert all(torch.equal(value, before[key]) for key, value in embedding.backbone.state_dict().items())
    assert first.tokens.shape == (2, 2 * 4, 8) and first.position_ids.tolist() == [1, 2, 3, 43, 44, 45, 85, 86]
