"""Images as tensors."""

import io

import numpy as np
import pytest
import torch
from PIL import Image

from unival.errors import UserError
from unival.modalities import media_of
from unival.modalities.composed import MediaOptions
from unival.modalities.image import ImageLoader, statistics_of


def photograph(width, height):
    """Smooth gradients with some noise, as photographs have; the same ones whatever other tests draw."""
    y, x = np.mgrid[0:height, 0:width]
    waves = np.stack([np.sin(x / 37 + 1), np.cos(y / 23), np.sin((x + y) / 51)], -1) * 90 + 128
    return Image.fromarray(np.clip(waves + np.random.default_rng(0).normal(0, 6, waves.shape), 0, 255).astype(np.uint8))


def encoded(image, form, **options):
    buffer = io.BytesIO()
    image.save(buffer, format=form, **options)
    return buffer.getvalue()


def load(data, size=96, **options):
    """Pixels as the network gets them: bytes travel, and are normalised where the model is."""
    read_by = MediaOptions(patch_image_size=size, image_backend="pil", **options)
    values = ImageLoader(read_by)(data, np.random.default_rng(0), False).values
    assert values.dtype == torch.uint8
    return statistics_of(read_by).normalise(values[None])[0]


def plain(data, size):
    image = Image.open(io.BytesIO(data)).convert("RGB").resize((size, size), Image.Resampling.BICUBIC)
    return torch.from_numpy(np.array(image)).permute(2, 0, 1).float() / 255


@pytest.mark.parametrize("shape", [(2, 5, 7), (1, 4, 1), (2, 3, 5, 7)])
@pytest.mark.parametrize("imagenet", [True, False])
def test_normalised_values_are_those_of_the_formula_in_every_layout(shape, imagenet):
    statistics = statistics_of(MediaOptions(imagenet_mean_and_std=imagenet))
    last = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (*shape, 3), dtype=np.uint8)).movedim(-1, 1)
    for values in (last, last.contiguous()):
        mean, std = (torch.tensor(numbers).view(-1, *[1] * (len(shape) - 1)) for numbers in statistics)
        before = values.clone()
        found = statistics.normalise(values)
        assert found.dtype == torch.float32 and torch.equal(found, (values.float() / 255 - mean) / std)
        assert torch.equal(values, before)


def test_a_square_bicubic_resize_normalised_to_half():
    data = encoded(photograph(130, 70), "PNG")
    torch.testing.assert_close(load(data), plain(data, 96) * 2 - 1)
    mean, std = torch.tensor([0.485, 0.456, 0.406])[:, None, None], torch.tensor([0.229, 0.224, 0.225])[:, None, None]
    torch.testing.assert_close(load(data, imagenet_mean_and_std=True), (plain(data, 96) - mean) / std)


def test_jpegs_decoded_at_reduced_scale_differ_less_than_the_resize_itself():
    """The published recipe resizes a fully decoded image; how much its own filter matters (bicubic or bilinear) is the yardstick."""
    data = encoded(photograph(1600, 1200), "JPEG", quality=92)
    full = plain(data, 192)
    image = Image.open(io.BytesIO(data)).convert("RGB").resize((192, 192), Image.Resampling.BILINEAR)
    yardstick = (torch.from_numpy(np.array(image)).permute(2, 0, 1).float() / 255 - full).abs().mean()
    difference = (load(data, 192) / 2 + 0.5 - full).abs().mean()
    assert 0 < difference < yardstick


def test_small_jpegs_are_decoded_whole():
    data = encoded(photograph(150, 150), "JPEG", quality=92)
    torch.testing.assert_close(load(data, 96) / 2 + 0.5, plain(data, 96))


@pytest.mark.parametrize("mode", ["L", "P", "RGBA", "1", "CMYK"])
def test_every_mode_becomes_rgb(mode):
    image = photograph(40, 40).convert(mode)
    data = encoded(image, "JPEG" if mode == "CMYK" else "PNG")
    assert load(data, 32).shape == (3, 32, 32)


@pytest.mark.parametrize("form", ["PNG", "JPEG", "WEBP", "GIF"])
def test_truncated_files_are_refused(form):
    data = encoded(photograph(200, 200), form)
    with pytest.raises(UserError, match="cannot decode the image"):
        load(data[: len(data) // 2])
    with pytest.raises(UserError, match="cannot decode"):
        load(b"no image at all")


def test_unknown_modalities_list_the_known():
    with pytest.raises(UserError, match="smell.*image, video, audio"):
        media_of("smell")
