"""Images read by torchvision and torch: the pixels are Pillow's, and so is what is said of files that cannot be read."""

import io

import numpy as np
import pytest
import torch
from PIL import Image

from tests.modalities.pictures import SAVING, exif, saved, sideways
from tests.modalities.test_image import photograph
from tests.modalities.test_image_kinds import KEPT, PICTURES
from unival.errors import UserError
from unival.modalities import torch_images
from unival.modalities.composed import MediaOptions
from unival.modalities.image import ImageLoader
from unival.modalities.torch_images import as_tensor, decode_jpeg, read_square, resized

KINDS = [  # of JPEGs
    *({"subsampling": how} for how in ("4:4:4", "4:2:2", "4:2:0")),
    {"progressive": True, "optimize": True},
    {"restart_marker_blocks": 2},
    {"keep_rgb": True},
]


def both(data, side=48, **options):
    """What the two backends make of a file: pixels and geometry, or an error."""
    found = []
    for backend in ("pil", "torchvision"):
        loader = ImageLoader(MediaOptions(patch_image_size=side, image_backend=backend, **options))
        try:
            found.append(loader(data, np.random.default_rng(0), False))
        except UserError as error:
            found.append(str(error))
    return found


def difference(one, other):
    return (one.int() - other.int()).abs()


def assert_alike(data, **options):
    pil, ours = both(data, **options)
    assert ours.values.dtype == torch.uint8 and ours.values.shape == pil.values.shape and ours.geometry == pil.geometry
    assert difference(pil.values, ours.values).max() <= 1


def test_every_format_and_mode_gives_the_pixels_of_pillow():
    for form, modes in KEPT.items():
        for mode in modes:
            data = saved(PICTURES[mode][0], form, **SAVING.get(form, {}))
            for fit in ("seen", "published"):
                assert_alike(data, image_fit=fit)


def test_turned_and_reduced_jpegs_too():
    for turn in range(1, 9):
        data = saved(sideways(turn), "JPEG", exif=exif(turn))
        for fit in ("seen", "published"):
            assert_alike(data, image_fit=fit)
    large = photograph(700, 500)
    for image in (large, large.convert("L"), large.convert("CMYK")):
        assert_alike(saved(image, "JPEG", exif=exif(6)), side=64)
        assert_alike(saved(image, "JPEG"), side=64)


def test_jpegs_are_decoded_to_the_same_bits_also_where_they_are_damaged(capfd):
    """Pillow is left to decode what torchvision refuses, and to say what is wrong."""
    rng = np.random.default_rng(0)
    outcomes = []
    for options in KINDS:
        for size in ((50, 37), (17, 64)):
            for image in (photograph(*size), photograph(*size).convert("L")):
                if image.mode == "L" and not options.keys() & {"progressive", "restart_marker_blocks"}:
                    continue
                whole = saved(image, "JPEG", quality=int(rng.integers(30, 98)), **options)
                pixels = np.asarray(Image.open(io.BytesIO(whole)))
                np.testing.assert_array_equal(decode_jpeg(whole).permute(1, 2, 0).numpy().squeeze(), pixels)
                for _ in range(4):
                    broken = bytearray(whole)
                    broken[int(rng.integers(300, len(broken)))] = int(rng.integers(256))
                    data = bytes(broken[: int(rng.integers(300, len(broken)))] if rng.integers(2) else broken)
                    pil, ours = both(data)
                    outcomes.append(isinstance(pil, str))
                    assert isinstance(pil, str) == isinstance(ours, str)
                    assert pil == ours if isinstance(pil, str) else difference(pil.values, ours.values).max() <= 1
    assert 10 < sum(outcomes) < len(outcomes) - 10


@pytest.mark.parametrize("side", [64, 96])
@pytest.mark.parametrize("size", [(130, 97), (97, 130), (60, 200), (200, 60), (30, 40), (96, 300), (96, 96)])
def test_resized_pixels_are_those_of_pillow_whichever_side_is_resized_first(size, side):
    image = photograph(*size)
    for one in (image, image.convert("L")):
        ours = resized(as_tensor(one), (side, side))
        pil = np.array(one.resize((side, side), Image.Resampling.BICUBIC).convert("RGB"))
        off = difference(ours, torch.from_numpy(pil).permute(2, 0, 1))
        assert off.max() <= 1 and off.float().mean() < 0.02


def test_few_pixels_of_noise_differ_by_more():
    """What the help of the option says, on the images that are hardest: black or white at random."""
    rng = np.random.default_rng(0)
    counts = torch.zeros(256, dtype=torch.long)
    for width, height in ((320, 240), (240, 320), (250, 188), (188, 250)):
        image = Image.fromarray((rng.integers(0, 2, (height, width, 3)) * 255).astype(np.uint8))
        pil = torch.from_numpy(np.array(image.resize((192, 192), Image.Resampling.BICUBIC))).permute(2, 0, 1)
        counts += difference(resized(as_tensor(image), (192, 192)), pil).flatten().bincount(minlength=256)
    assert counts[3:].sum() == 0 and counts[2] < 20 and counts[1] < 0.05 * counts.sum()


def test_threads_change_nothing():
    data = saved(photograph(130, 70), "JPEG")
    before, found = torch.get_num_threads(), []
    try:
        for threads in (1, 2):
            torch.set_num_threads(threads)
            found.append(read_square(data, 96, 192, False, True)[0])
    finally:
        torch.set_num_threads(before)
    assert torch.equal(*found)


def test_a_torchvision_without_decoders_leaves_the_decoding_to_pillow(monkeypatch):
    data = saved(photograph(130, 70), "JPEG")
    with_it = both(data)[1]
    monkeypatch.setattr("unival.modalities.image.has_decoder", lambda: False)
    monkeypatch.setattr(torch_images, "decode_jpeg", None)
    assert torch.equal(both(data)[1].values, with_it.values)
    with pytest.raises(UserError, match="unknown --image-backend 'opencv'; choose from torchvision, pil"):
        MediaOptions(image_backend="opencv")


def test_channels_stay_last_in_memory_whatever_decodes():
    for form in ("JPEG", "PNG"):
        pixels = read_square(saved(photograph(130, 70), form), 96, 192, False, True)[0]
        assert pixels.shape == (3, 96, 96) and pixels.permute(1, 2, 0).is_contiguous()
