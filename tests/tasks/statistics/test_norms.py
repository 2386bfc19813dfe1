"""Statistics of batch norms on rows: right, the same whatever the batch size, and nothing else changes."""

import pytest
import torch
from torch.nn.modules.batchnorm import _BatchNorm

from tests import tiny
from unival.errors import UserError
from unival.tasks.statistics.norms import Moments, recalibrate
from unival.tasks.statistics.rows import spread

IMAGES = torch.rand(7, 3, 64, 64, generator=torch.Generator().manual_seed(1)) * torch.arange(1.0, 8.0)[:, None, None, None]


@pytest.fixture(scope="module")
def vocab(tmp_path_factory):
    return tiny.vocabulary(tmp_path_factory.mktemp("vocab"))


def batches(size, values=IMAGES, modality="image"):
    """Batches as collation makes them, of media alone."""
    groups = [[{"media": [{"modality": modality, "values": part, "rows": torch.arange(len(part))}]}] for part in values.split(size)]
    return [{"net_input": {"groups": group}} for group in groups]


def statistics(model):
    return {key: value.clone() for key, value in model.state_dict().items() if "running_" in key}


def norms(model):
    return {name: norm for name, norm in model.named_modules() if isinstance(norm, _BatchNorm)}


def test_moments_are_those_of_all_values():
    values = torch.randn(9, 5, 4, 3, generator=torch.Generator().manual_seed(0)) + 1000
    found = Moments()
    for part in values.split(2):
        found.add(part)
    exact = values.double().transpose(0, 1).flatten(1)
    torch.testing.assert_close(found.mean, exact.mean(1), rtol=1e-12, atol=0)
    torch.testing.assert_close(found.variance, exact.var(1), rtol=1e-9, atol=0)


def test_one_batch_of_all_rows_is_torchs_cumulative_average(vocab):
    """The first pass is what a norm with momentum None keeps."""
    model = tiny.model(vocab, modalities="image,video")
    before = statistics(model)
    found = recalibrate(model, [batches(7)], passes=1)
    assert (found.media, found.kept) == (7, ())
    assert len(found.norms) > 9 and all(name.startswith("encoder.media.image.backbone.") for name in found.norms)
    assert found.unreached and all(name.startswith("encoder.media.video.") for name in found.unreached)
    new = statistics(model)
    other = tiny.model(vocab, modalities="image,video")
    for norm in norms(other.encoder.media["image"]).values():
        norm.train()
        norm.momentum = 1.0
    other.encoder.media["image"].backbone(IMAGES)
    for key, expected in statistics(other).items():
        torch.testing.assert_close(new[key], expected, rtol=1e-5, atol=1e-6)
        assert torch.equal(new[key], before[key]) == (".video." in key)


def test_batch_size_matters_less_with_every_pass(vocab):
    """The first norm is exact after one pass, all are after as many passes as there are norms one behind the other."""
    model = tiny.model(vocab, modalities="image")
    states = {}
    for passes in (1, 2, len(norms(model))):
        for size in (7, 2):
            recalibrate(model, [batches(size)], passes=passes)
            states[passes, size] = statistics(model)
    exact = states[len(norms(model)), 7]

    def error(passes):
        return max(float(((value - exact[key]).abs() / (exact[key].abs().mean() + 1e-3)).max()) for key, value in states[passes, 2].items())

    first = "encoder.media.image.backbone.bn1.running_var"
    torch.testing.assert_close(states[1, 2][first], exact[first], rtol=1e-6, atol=0)
    # not the first pass of all rows: torch normalises by the biased variance, and keeps the other
    assert error(1) > 2 * error(2) and error(len(norms(model))) < 1e-3
    parts = [batches(2, IMAGES[:3]), batches(2, IMAGES[3:])]  # two tables
    recalibrate(model, parts, passes=len(norms(model)))
    for key, value in statistics(model).items():
        torch.testing.assert_close(value, exact[key], rtol=1e-3, atol=1e-4)


def test_nothing_else_changes(vocab):
    """Weights, modes, momentum, counters, frozen statistics, torch's generator, gradients."""
    model = tiny.model(vocab, modalities="image,video").train()
    video = model.encoder.media["video"]
    kept = {"encoder.media.image.backbone.bn1.running_mean", "encoder.media.image.backbone.bn1.running_var"}
    next(iter(norms(video).values())).num_batches_tracked = torch.tensor(3)  # ours have none, a backbone from outside may
    before, modes = {key: value.clone() for key, value in model.state_dict().items()}, [part.training for part in model.modules()]
    momenta = [norm.momentum for norm in norms(model).values()]
    random = torch.get_rng_state()
    clip = torch.rand(3, 3, 4, 32, 32, generator=torch.Generator().manual_seed(1))
    found = recalibrate(model, [batches(3), batches(3, clip, "video")], keep=kept)
    assert found.kept == ("encoder.media.image.backbone.bn1",) and not found.unreached
    assert str(found) == f"{len(found.norms)} batch norms of 10 images, videos or audios, 1 kept (frozen in training)"
    changed = {key for key, value in model.state_dict().items() if not torch.equal(value, before[key])}
    assert changed == {f"{name}.{value}" for name in found.norms for value in ("running_mean", "running_var")}
    assert [part.training for part in model.modules()] == modes and [norm.momentum for norm in norms(model).values()] == momenta
    assert torch.equal(torch.get_rng_state(), random) and all(p.grad is None for p in model.parameters())


def test_rows_without_media_are_refused(vocab):
    model = tiny.model(vocab, modalities="image")
    with pytest.raises(UserError, match="the rows have no image, video or audio"):
        recalibrate(model, [[{"net_input": {"groups": [{}]}}]])


def test_rows_are_spread_over_the_table():
    assert spread(10, 4) == [0, 2, 5, 7]
    assert spread(3, 10) == spread(3, None) == [0, 1, 2]
