"""Where pixels go: the geometry that a loader reports is what it did to the pixels."""

import io

import numpy as np
import pytest
from PIL import Image

from tests import tiny
from unival.modalities.composed import MediaOptions
from unival.modalities.geometry import Geometry
from unival.modalities.image import ImageLoader
from unival.modalities.video import FRAME_FITS, VideoLoader

BOX = (24, 40, 72, 120)  # of the bright rectangle, in pixels of the image as a person sees it
SIZE = (160, 200)


def picture(box: tuple[int, int, int, int] = BOX, size: tuple[int, int] = SIZE) -> Image.Image:
    image = Image.new("RGB", size)
    image.paste((255, 255, 255), box)
    return image


def saved(image: Image.Image, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, **options)
    return buffer.getvalue()


def bright(values: np.ndarray) -> tuple[float, float, float, float]:
    """The box of the bright pixels of ``h x w``."""
    rows, columns = np.nonzero(values.max(axis=1) > 127)[0], np.nonzero(values.max(axis=0) > 127)[0]
    return float(columns[0]), float(rows[0]), float(columns[-1] + 1), float(rows[-1] + 1)


@pytest.mark.parametrize("fit", ["seen", "published"])
@pytest.mark.parametrize("format_", ["png", "jpeg"])
def test_a_box_goes_where_the_pixels_of_an_image_go(format_: str, fit: str) -> None:
    """JPEGs of these sizes are decoded at a quarter of their size, which is not the size that boxes are in."""
    image = picture(tuple(8 * x for x in BOX), tuple(8 * x for x in SIZE))
    values, geometry = ImageLoader(MediaOptions(patch_image_size=80, image_fit=fit))(
        saved(image, format=format_), np.random.default_rng(0), False
    )
    assert geometry == Geometry((1280, 1600), 80, (80 / 1280, 80 / 1600))
    assert bright(values[0].numpy()) == geometry.forward(tuple(8 * x for x in BOX)) == (12, 16, 36, 48)
    assert geometry.back((12, 16, 36, 48)) == tuple(8 * x for x in BOX)


@pytest.mark.parametrize("factor", [1, 8])
@pytest.mark.parametrize("turn", range(1, 9))
def test_boxes_are_those_of_the_image_as_a_person_sees_it(turn: int, factor: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = turn
    stored = picture(tuple(factor * x for x in BOX), tuple(factor * x for x in SIZE))
    data = saved(stored, format="jpeg", exif=exif.tobytes())
    for fit, swaps in (("seen", turn >= 5), ("published", False)):
        geometry = ImageLoader(MediaOptions(patch_image_size=40, image_fit=fit))(data, np.random.default_rng(0), False).geometry
        assert geometry.size == (factor * SIZE[swaps], factor * SIZE[not swaps])


@pytest.mark.parametrize("how", FRAME_FITS)
def test_a_box_goes_where_the_pixels_of_frames_go(how: str) -> None:
    frames = [picture(), picture()]
    frames[1].putpixel((0, 0), (9, 9, 9))  # else it is one frame
    data = saved(frames[0], format="webp", save_all=True, append_images=frames[1:], lossless=True)
    for side in (80, 200):
        loader = VideoLoader(MediaOptions(patch_frame_size=side, num_frames=1, frame_fit=how))
        values, geometry = loader(data, np.random.default_rng(0), False)
        seen = geometry.forward(BOX)
        visible = tuple(min(max(x, 0.0), float(side)) for x in seen)
        assert bright(values[0, 0].numpy()) == pytest.approx(visible, abs=1)
        assert geometry.back(seen) == pytest.approx(BOX)
    augmented = VideoLoader(MediaOptions(patch_frame_size=80, use_dataaug=True))
    assert augmented(data, np.random.default_rng(0), True).geometry is None


def test_audio_has_no_geometry(tmp_path) -> None:
    from unival.modalities.audio import AudioLoader

    tiny.write_sound(tmp_path / "a.wav", 0.1)
    assert AudioLoader(MediaOptions())((tmp_path / "a.wav").read_bytes(), np.random.default_rng(0), False).geometry is None
