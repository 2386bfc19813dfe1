"""Images as a person sees them: every format, mode, depth and orientation that Pillow writes gives the picture that was written."""

import io
import os
import pathlib
import struct
import threading
import warnings
import zlib

import numpy as np
import pytest
import torch
from PIL import Image

from tests.modalities.pictures import (
    ALPHA,
    GREY,
    LOSSY,
    MIDDLES,
    RAMP,
    RGB,
    SAVING,
    WIDTH,
    chunk,
    on_white,
    png,
    read,
    saved,
    three,
    tiff,
)
from unival.data.rows import cell_of, plain
from unival.errors import UserError
from unival.modalities import pillow
from unival.modalities.arrays import image_file
from unival.modalities.composed import MediaOptions
from unival.modalities.image import IMAGE, ImageLoader
from unival.modalities.pillow import FORMATS, MAX_MEMORY, read_image
from unival.modalities.pixels import to_rgb

KEYED = "P with a transparent colour"


def pictures():
    """Mode -> an image of that mode, and what a person sees."""
    colour, grey = Image.fromarray(RGB), Image.fromarray(GREY)
    rgba = Image.fromarray(np.dstack([RGB, ALPHA]))
    la = Image.merge("LA", (grey, Image.fromarray(ALPHA)))
    palette = colour.quantize(8, dither=Image.Dither.NONE)
    keyed = palette.copy()
    keyed.info["transparency"] = int(np.asarray(palette)[0, 0])
    red_is_white = np.where((RGB[0, 0] == RGB).all(-1, keepdims=True), 255, RGB)
    cmyk, lab = colour.convert("CMYK"), colour.convert("LAB")
    return {
        "1": (Image.fromarray(GREY > 127), three((GREY > 127) * 255)),
        "L": (grey, three(GREY)),
        "LA": (la, on_white(three(GREY))),
        "P": (palette, RGB),
        KEYED: (keyed, red_is_white),
        "PA": (Image.merge("PA", (palette, Image.fromarray(ALPHA))), on_white(RGB)),
        "RGB": (colour, RGB),
        "RGBA": (rgba, on_white(RGB)),
        "RGBa": (rgba.convert("RGBa"), on_white(RGB)),
        "La": (la.convert("La"), on_white(three(GREY))),
        "RGBX": (colour.convert("RGBX"), RGB),
        "CMYK": (cmyk, RGB),
        "YCbCr": (colour.convert("YCbCr"), RGB),
        "HSV": (colour.convert("HSV"), RGB),
        "LAB": (lab, RGB),
        "I;16": (Image.fromarray(GREY.astype(np.uint16) * 257), three(GREY)),
        "F": (Image.fromarray(GREY.astype(np.float32) / 255), three(GREY)),
    }


PICTURES = pictures()
TOLERANCE = {"YCbCr": 3, "HSV": 6, "LAB": 6, "La": 3, "RGBa": 3}  # of the modes' own rounding


# Modes that a format keeps as they are (Pillow converts the others when it saves, and drops transparency on the way)
KEPT = {
    "PNG": ("1", "L", "LA", "P", KEYED, "RGB", "RGBA", "I;16"),
    "TIFF": ("1", "L", "LA", "P", "RGB", "RGBA", "RGBX", "CMYK", "YCbCr", "LAB", "I;16", "F"),
    "GIF": ("1", "L", "P", KEYED, "RGB"),
    "BMP": ("1", "L", "P", "RGB"),
    "DIB": ("1", "L", "P", "RGB"),
    "PPM": ("1", "L", "RGB", "I;16", "F"),
    "WEBP": ("L", "RGB", "RGBA"),
    "AVIF": ("L", "RGB", "RGBA"),
    "JPEG": ("1", "L", "RGB", "CMYK", "YCbCr"),
    "JPEG2000": ("L", "LA", "RGB", "RGBA", "YCbCr", "I;16"),
    "TGA": ("1", "L", "LA", "P", "RGB", "RGBA"),
    "PCX": ("1", "L", "P", "RGB"),
    "SGI": ("L", "RGB", "RGBA"),
    "QOI": ("RGB", "RGBA"),
    "DDS": ("L", "LA", "RGB", "RGBA"),
    "ICO": ("RGB", "RGBA"),
    "ICNS": ("RGB", "RGBA"),
}


@pytest.mark.parametrize("form", KEPT)
def test_files_of_every_format_and_mode_show_what_was_saved(form):
    for mode in KEPT[form]:
        image, seen = PICTURES[mode]
        data = saved(image, form, **SAVING.get(form, {}))
        assert pillow.size_of(data) == pillow.read_sized_image(data, 1)[1], "by the header alone"
        read_back = read(data)
        if form == "ICNS":  # resizes what it saves
            read_back = np.asarray(Image.fromarray(read_back.astype(np.uint8)).resize(image.size)).astype(int)
        difference = np.abs(read_back - seen)[MIDDLES].max()
        assert difference <= TOLERANCE.get(mode, 1) + LOSSY.get(form, 0), mode


def test_the_size_in_a_header_is_that_of_the_upright_image():
    exif = Image.Exif()
    exif[0x0112] = 6
    data = saved(Image.new("RGB", (8, 4)), "JPEG", exif=exif.tobytes())
    for published, size in ((False, (4, 8)), (True, (8, 4))):
        assert pillow.size_of(data, published) == pillow.read_sized_image(data, 1, published)[1] == size
    with pytest.raises(UserError, match="unknown format"):
        pillow.size_of(b"no image")


def test_pil_images_of_every_mode_are_read_as_files_of_them():
    for mode, (image, seen) in PICTURES.items():
        assert np.abs(read(plain(image)) - seen).max() <= TOLERANCE.get(mode, 1), mode


def test_large_images_are_converted_in_strips_to_the_same_pixels(monkeypatch):
    whole = {mode: np.asarray(to_rgb(image)) for mode, (image, _) in PICTURES.items()}
    monkeypatch.setattr("unival.modalities.pixels.STRIP", 3 * WIDTH)
    for mode, (image, _) in PICTURES.items():
        np.testing.assert_array_equal(np.asarray(to_rgb(image)), whole[mode], err_msg=mode)


# Depth ----------------------------------------------------------------------------------------------------------------


def test_values_of_every_depth_are_scaled_by_their_range():
    wanted = np.round(RAMP * 255)
    words = np.round(RAMP * 65535).astype(np.uint16)
    files = {
        "PNG 16": saved(Image.fromarray(words), "PNG"),
        "JPEG 2000 16": saved(Image.fromarray(np.repeat(words, 64, 0)), "JPEG2000"),
        "PGM 16": b"P5 64 1 65535\n" + words.byteswap().tobytes(),
        "PGM 10": b"P5 64 1 1023\n" + np.round(RAMP * 1023).astype(np.uint16).byteswap().tobytes(),
        "PGM 3": b"P2 4 1 3\n0 1 2 3\n",
        "PPM 16": b"P6 64 1 65535\n" + np.repeat(words.byteswap(), 3).tobytes(),
        "PFM": b"Pf\n64 1\n-1\n" + RAMP.astype("<f4").tobytes(),
    }
    whole, half = np.round(RAMP * (2**32 - 1)), (words.astype(int) - 32768).astype(np.int16)
    for order in "<>":
        for photometric in (1, 0):  # black is 0, white is 0
            for compressed in (False, True):
                how = {"order": order, "photometric": photometric, "compressed": compressed}
                name = " ".join(map(str, how.values()))
                for kind, values, bits, form in (
                    ("16", words, 16, 1),
                    ("16 signed", half, 16, 2),
                    ("32", whole.astype(np.uint32), 32, 1),
                    ("32 signed", (whole - 2**31).astype(np.int32), 32, 2),
                    ("float", RAMP.astype(np.float32), 32, 3),
                ):
                    file = tiff(values if photometric else values[:, ::-1], bits, form, **how)
                    files[f"TIFF {kind} {name}"] = file
    for name, data in files.items():
        grey = read(data)[:1, :, 0]
        expected = [[0, 85, 170, 255]] if name == "PGM 3" else wanted
        assert np.abs(grey - expected).max() <= 1, name
    twelve = np.round(RAMP[0] * 4095).astype(int)
    packed = b"".join(
        (int(a) << 12 | int(b)).to_bytes(3, "big") for a, b in zip(twelve[::2], twelve[1::2], strict=True)
    )
    for order in "<>":
        for photometric, expected in ((1, wanted), (0, 255 - wanted)):
            grey = read(tiff(np.frombuffer(packed, np.uint8), 12, photometric=photometric, order=order))[..., 0]
            assert np.abs(grey - expected).max() <= 1, (order, photometric)


def test_tiff_pixels_of_other_kinds_are_named():
    for values, bits, form, reason in (
        (np.zeros((1, 4), np.int8), 8, 2, "signed 8-bit integers, by which some programs mean -128 to 127 and others 0 to 255"),
        (RAMP, 64, 3, "grey in 1 sample of 64 bits, floats, {}-endian, which is not supported: convert it"),
        (RAMP.astype(np.float16), 16, 3, "grey in 1 sample of 16 bits, floats, {}-endian"),
        (np.zeros((1, 4), np.uint16), 24, 1, "of 24 bits, unsigned integers, {}-endian"),
    ):
        for order, name in (("<", "little"), (">", "big")):
            with pytest.raises(UserError, match=reason.format(name)):
                read(tiff(values, bits, form, order=order))
    with pytest.raises(UserError, match="--image-fit seen"):
        read(tiff(np.zeros((1, 4), np.uint32), 32, order=">"), published=True)
    loaded = Image.open(io.BytesIO(tiff(RAMP.astype(np.float32), 32, 3, order=">", compressed=True)))
    loaded.load()
    with pytest.raises(UserError, match="as little-endian: give the file"):
        plain(loaded)
    with pytest.raises(UserError, match=r"grey \(0 is white\) in 1 sample of 64 bits"):
        read(tiff(RAMP, 64, 3, photometric=0))


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        ([[0.0, 1.5]], "from 0 to 1.5"),
        ([[-0.1, 1.0]], "from -0.1 to 1"),
        ([[0.0, np.nan]], "nan"),
        ([[0.0, np.inf]], "inf"),
    ],
)
def test_floats_beyond_0_to_1_are_refused(values, reason):
    values = np.array(values, np.float32)
    for data in (tiff(values, 32, 3), b"Pf\n2 1\n-1\n" + values.tobytes()):
        with pytest.raises(UserError, match=reason):
            read(data)
    for given in (Image.fromarray(values), values, torch.from_numpy(values)):
        with pytest.raises(UserError, match=reason):
            cell_of(given, IMAGE)


def test_arrays_and_tensors_of_every_kind_are_the_same_picture():
    red, transparent = RGB.copy(), np.dstack([RGB, ALPHA])
    handed = [
        red,
        red.astype(np.uint16) * 257,
        red / 255,
        (red / 255).astype(np.float16),
        (red / 255).astype(np.float32),
    ]
    handed += [
        torch.from_numpy(red),
        torch.from_numpy(red).permute(2, 0, 1),
        torch.from_numpy(red / 255).permute(2, 0, 1),
    ]
    handed += [red.astype(kind) * (257 if kind[1] == "u" else 1 / 255) for kind in ("<u2", "<f2", "<f4", "<f8")]
    handed += [value.astype(value.dtype.newbyteorder(">")) for value in handed if isinstance(value, np.ndarray)]
    for value in handed:
        assert np.abs(read(image_file(value)) - RGB).max() <= (1 if getattr(value, "itemsize", 4) == 2 else 0)
    assert np.abs(read(image_file(torch.from_numpy(red / 255).bfloat16())) - RGB).max() <= 1
    np.testing.assert_array_equal(read(image_file(GREY > 127))[..., 0], (GREY > 127) * 255)
    for value in (transparent, torch.from_numpy(transparent).permute(2, 0, 1)):
        assert np.abs(read(image_file(value)) - on_white(RGB)).max() <= 1
    with pytest.raises(UserError, match="uint8, uint16, bool or floats"):
        image_file(red.astype(np.int64))
    with pytest.raises(UserError, match="32-bit integers"):
        plain(Image.fromarray(GREY.astype(np.int32)))


# Published ------------------------------------------------------------------------------------------------------------


def test_ordinary_images_are_the_same_bits_as_published():
    rng = np.random.default_rng(0)
    noise = Image.fromarray(rng.integers(0, 256, (97, 131, 3), np.uint8))
    large = noise.resize((900, 700))
    for image in (noise, noise.convert("L"), noise.convert("1"), noise.quantize(64), large, large.convert("L")):
        for form in ("PNG", "JPEG", "BMP", "WEBP", "GIF", "TIFF"):
            if form in ("JPEG", "WEBP") and image.mode in ("P", "1"):
                continue
            data = saved(image, form)
            file = Image.open(io.BytesIO(data))
            file.draft("RGB", (128, 128))
            before = np.asarray(file.convert("RGB").resize((64, 64), Image.Resampling.BICUBIC))
            for fit in ("seen", "published"):
                now = ImageLoader(MediaOptions(patch_image_size=64, image_fit=fit, image_backend="pil"))(data, rng, False).values
                assert torch.equal(now, torch.from_numpy(before.copy()).permute(2, 0, 1)), (form, image.mode, fit)


def test_published_shows_what_the_original_saw():
    clear = Image.fromarray(np.dstack([RGB, np.zeros_like(ALPHA)]))
    np.testing.assert_array_equal(read(saved(clear, "PNG"), published=True), RGB)
    assert (read(saved(clear, "PNG")) == 255).all()
    words = Image.fromarray(GREY.astype(np.uint16) * 257)
    data = saved(words, "PNG")
    np.testing.assert_array_equal(read(data, published=True), np.asarray(Image.open(io.BytesIO(data)).convert("RGB")))
    with pytest.raises(UserError, match="unknown --image-fit 'square'; choose from seen, published"):
        ImageLoader(MediaOptions(image_fit="square"))


# Bombs, programs and broken files -------------------------------------------------------------------------------------


def blank_png(side, bits=8, colour=0):
    samples = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}[colour]
    packer = zlib.compressobj(9)
    row = bytes(1 + side * samples * bits // 8)
    pixels = b"".join(packer.compress(row * 64) for _ in range(side // 64)) + packer.flush()
    head = struct.pack(">IIBBBBB", side, side, bits, colour, 0, 0, 0)
    palette = chunk(b"PLTE", bytes(3)) if colour == 3 else b""
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + palette + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")


def huge_headers():
    """Small files that say they are huge."""
    jpeg = bytearray(saved(Image.new("RGB", (64, 64)), "JPEG", progressive=True))
    place = jpeg.index(b"\xff\xc2") + 5
    jpeg[place : place + 4] = struct.pack(">HH", 65500, 65500)
    webp = bytearray(saved(Image.new("RGBA", (64, 64)), "WEBP", lossless=True))
    webp[21:25] = struct.pack("<I", 16382 | 16382 << 14 | int.from_bytes(webp[21:25], "little") & 0xF0000000)
    gif = bytearray(saved(Image.new("P", (64, 64)), "GIF"))
    gif[6:10] = struct.pack("<HH", 60000, 60000)
    bmp = bytearray(saved(Image.new("RGB", (64, 64)), "BMP"))
    bmp[18:26] = struct.pack("<ii", 60000, 60000)
    inner = png(30000, 30000, 8, 0, [])
    ico = struct.pack("<HHHBBBBHHII", 0, 1, 1, 16, 16, 0, 0, 1, 32, len(inner), 22) + inner
    icns = b"icns" + struct.pack(">I", 16 + len(inner)) + b"ic07" + struct.pack(">I", 8 + len(inner)) + inner
    jp2 = bytearray(saved(Image.new("RGB", (64, 64)), "JPEG2000", no_jp2=True))
    jp2[8:16] = struct.pack(">II", 30000, 30000)
    tiles = tiff(np.zeros((1, 8), np.uint16), 16).replace(
        struct.pack("<HHII", 259, 4, 1, 1), struct.pack("<HHII", 259, 4, 1, 8)
    )
    for tag, tile, value in ((273, 324, 134), (278, 323, 1), (277, 322, 1)):
        old, new = (
            struct.pack("<HHII", tag, 4, 1, value),
            struct.pack("<HHII", tile, 4, 1, 134 if tile == 324 else 60000),
        )
        tiles = tiles.replace(old, new)
    return {
        "PNG": bytes(inner),
        "progressive JPEG": bytes(jpeg),
        "WEBP": bytes(webp),
        "GIF": bytes(gif),
        "BMP": bytes(bmp),
        "ICO": ico,
        "ICNS": icns,
        "JPEG 2000": bytes(jp2),
        "PPM": b"P6 60000 60000 255\n",
        "TIFF": tiff(np.zeros((1, 8), np.uint16), 16).replace(
            struct.pack("<HHII", 257, 4, 1, 1), struct.pack("<HHII", 257, 4, 1, 2**28)
        ),
        "tiles of TIFF": tiles,
        "QOI": b"qoif" + struct.pack(">IIBB", 60000, 60000, 3, 0) + bytes(64),
        "TGA": struct.pack("<BBBHHBHHHHBB", 0, 0, 10, 0, 0, 0, 0, 0, 60000, 60000, 24, 0) + bytes(64),
        "PSD": b"8BPS" + struct.pack(">H6xHIIHH", 1, 3, 30000, 30000, 8, 3) + bytes(14) + b"\0\1" + bytes(64),
    }


@pytest.mark.parametrize("name", huge_headers())
def test_memory_is_bounded_before_decoding(name):
    with pytest.raises(
        UserError, match=r"pixels; decoding them would need [\d,]+ MB, but the limit is 512 MB"
    ) as refusal:
        read(huge_headers()[name])
    assert "\n" not in str(refusal.value)


def test_a_bomb_of_a_few_kilobytes_is_refused_and_large_photographs_are_read():
    with pytest.raises(UserError, match="12032 x 12032 pixels"):
        read(blank_png(12032, 1, 3))
    small = Image.new("RGB", (64, 64))
    for data in (saved(small, "JPEG"), saved(small, "MPO", save_all=True, append_images=[small], subsampling=0)):
        place = data.index(b"\xff\xc0") + 5
        data = (
            data[:place] + struct.pack(">HH", 12240, 16320) + data[place + 4 :]
        )  # 200 million pixels, a 64th of them decoded
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            assert read_image(data, 768).size == (2040, 1530)


def test_compressed_texts_and_profiles_are_bounded():
    bomb = zlib.compress(bytes(2**26), 9)
    for more in (
        chunk(b"zTXt", b"a\0\0" + bomb),
        chunk(b"iCCP", b"a\0\0" + bomb),
        chunk(b"iTXt", b"a\0\1\0\0\0" + bomb),
    ):
        with pytest.raises(UserError, match="cannot decode the image"):
            read(png(2, 1, 8, 0, [b"\0\0"], more))


@pytest.mark.parametrize(
    ("start", "name"),
    [
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "EPS"),
        (b"\xc5\xd0\xd3\xc6" + bytes(60), "EPS"),
        (b"\xd7\xcd\xc6\x9a" + bytes(60), "WMF"),
        (b"\1\0\0\0" + bytes(36) + b" EMF" + bytes(60), "EMF"),
        (b"\0\0\0\x1cftypheic" + bytes(60), "HEIF"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "SVG"),
        (b"<?xml version='1.0'?>\n<svg/>", "SVG"),
        (b"SIMPLE  =                    T", "FITS"),
        (b"\xff\x0a" + bytes(60), "JPEG XL"),
        (b"/* XPM */ static char *a[]", "XPM"),
    ],
)
def test_formats_that_are_not_read_are_named(start, name):
    with pytest.raises(UserError, match=rf"it is an? {name}.*; supported formats: AVIF, BMP"):
        read(start)


def test_every_failure_is_one_line_and_nothing_is_printed(capfd):
    rng = np.random.default_rng(0)
    files = [saved(PICTURES[modes[-1]][0], form, **SAVING.get(form, {})) for form, modes in KEPT.items()]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for data in files:
            for i in range(12):
                broken = bytearray(data)
                for place in rng.integers(0, min(len(broken), 200 if i % 2 else len(broken)), 1 + i % 4):
                    broken[place] = rng.integers(256)
                try:
                    read(bytes(broken[: rng.integers(1, len(broken))] if i % 3 == 0 else broken))
                except UserError as error:
                    assert "\n" not in str(error) and len(str(error)) < 400
    captured = capfd.readouterr()
    assert not captured.out
    assert (
        not captured.err.replace("tempfile.tif: ", "").strip() or "tempfile.tif" in captured.err
    )  # libtiff's own words


def raises(kind):
    warnings.warn("a stray warning", stacklevel=1)
    raise kind("broken\nindeed")


def test_exceptions_of_any_kind_and_warnings_stay_within_a_thread(monkeypatch):
    data = saved(Image.fromarray(RGB), "PNG")
    for kind in (
        MemoryError,
        OverflowError,
        struct.error,
        zlib.error,
        AttributeError,
        RecursionError,
        KeyError,
        AssertionError,
    ):
        monkeypatch.setitem(Image.OPEN, "PNG", (lambda *args, kind=kind: raises(kind), Image.OPEN["PNG"][1]))
        with pytest.raises(UserError, match=r"cannot decode the image .*broken"), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            read(data)
    monkeypatch.undo()
    noisy = saved(Image.fromarray(RGB), "GIF")
    with warnings.catch_warnings(record=True) as shown:
        warnings.simplefilter("always")
        with pillow.quiet():
            warnings.warn_explicit("quiet", UserWarning, "a.py", 1, module="PIL.Image")
            other = threading.Thread(target=warnings.warn_explicit, args=("heard", UserWarning, "a.py", 2, "PIL.Image"))
            other.start()
            other.join()
        warnings.warn_explicit("heard too", UserWarning, "a.py", 3, module="PIL.Image")
        read(noisy)
    assert [str(warning.message) for warning in shown] == ["heard", "heard too"]
    assert MAX_MEMORY <= 2**29 and "EPS" not in FORMATS


# Pillow's own images --------------------------------------------------------------------------------------------------


def test_pillows_test_images_give_a_picture_or_one_line():
    folder = pathlib.Path(os.environ.get("UNIVAL_PILLOW_IMAGES", ""))
    if not os.environ.get("UNIVAL_PILLOW_IMAGES") or not folder.is_dir():
        pytest.skip("set UNIVAL_PILLOW_IMAGES to Tests/images of Pillow's source distribution")
    pictures = 0
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        try:
            pictures += read_image(path.read_bytes(), 256).mode in ("L", "RGB")
        except UserError as error:
            assert "\n" not in str(error), path
    assert pictures > 500
