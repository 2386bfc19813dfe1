"""Images upright and on white, in every format: orientation by EXIF and XMP, alpha and what is none, transparent colours."""

import io
import os
import pathlib
import struct

import numpy as np
import pytest
from PIL import Image, ImageOps, PngImagePlugin

from tests.modalities.pictures import (
    GREY,
    HEIGHT,
    LOSSY,
    MIDDLES,
    RGB,
    SAVING,
    WIDTH,
    chunk,
    exif,
    on_white,
    png,
    read,
    saved,
    sideways,
)
from unival.data.rows import plain
from unival.errors import UserError
from unival.modalities.pillow import read_image
from unival.modalities.pixels import TURNS
from unival.modalities.video import open_frames

# Orientation ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP", "AVIF", "TIFF"])
def test_exif_turns_images_upright_in_every_format(form):
    for turn in range(1, 9):
        image = sideways(turn)
        data = saved(image, form, exif=exif(turn), **SAVING.get(form, {}))
        assert np.abs(read(data) - RGB)[MIDDLES].max() <= LOSSY.get(form, 0), turn
        handed = Image.open(io.BytesIO(data))
        assert np.abs(read(plain(handed)) - RGB)[MIDDLES].max() <= LOSSY.get(form, 0), turn
        published = np.asarray(Image.open(io.BytesIO(data)).convert("RGB")).astype(int)
        np.testing.assert_array_equal(read(data, published=True), published)


def test_xmp_late_chunks_and_several_images_tell_the_orientation():
    image = sideways(6)
    xmp = b'<x:xmpmeta><rdf:Description tiff:Orientation="6"/></x:xmpmeta>'
    text = PngImagePlugin.PngInfo()
    text.add_itxt("XML:com.adobe.xmp", xmp.decode())
    plainly = saved(image, "PNG")
    late = plainly[:-12] + chunk(b"eXIf", exif(6).tobytes()[6:]) + plainly[-12:]
    both = saved(image, "MPO", save_all=True, append_images=[image], exif=exif(6), quality=95)
    for data in (saved(image, "JPEG", xmp=xmp, quality=95), saved(image, "PNG", pnginfo=text), late, both):
        assert np.abs(read(data) - RGB)[MIDDLES].max() <= LOSSY["JPEG"]


def xmp_packets():
    """How programs write an orientation into XMP."""
    uri = "http://ns.adobe.com/tiff/1.0/"
    for description in (
        f'<rdf:Description xmlns:tiff="{uri}" tiff:Orientation="6"/>',
        f"<rdf:Description xmlns:tiff='{uri}' tiff:Orientation='6'/>",
        f'<rdf:Description xmlns:tiff="{uri}" tiff:Make="x"\n  tiff:Orientation = "6" />',
        f'<rdf:Description xmlns:tiff="{uri}"><tiff:Orientation>6</tiff:Orientation></rdf:Description>',
        f'<rdf:Description xmlns:tiff="{uri}"><tiff:Orientation rdf:datatype="x">\n 6 </tiff:Orientation></rdf:Description>',
        f'<rdf:Description xmlns:t="{uri}" t:Orientation="6"/>',
    ):
        yield f'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF>{description}</rdf:RDF></x:xmpmeta>'


def profile(name, data):
    """As ImageMagick keeps EXIF and XMP in a PNG's text."""
    text = PngImagePlugin.PngInfo()
    text.add_text(f"Raw profile type {name}", f"\n{name}\n{len(data):8}\n{data.hex()}\n", zip=True)
    return text


def test_xmp_of_every_spelling_and_profiles_of_imagemagick_tell_the_orientation():
    image = sideways(6)
    tags = exif(6).tobytes()
    texts = [profile("exif", tags), profile("APP1", tags), profile("APP1", tags[6:])]
    files = [saved(image, "PNG", pnginfo=text) for text in texts]
    without = exif(6)
    del without[0x0112]
    without[0x010E] = "a picture"
    for xmp in xmp_packets():
        packet = xmp.encode()
        for zipped in (False, True):
            text = PngImagePlugin.PngInfo()
            text.add_itxt("XML:com.adobe.xmp", xmp, zip=zipped)
            files.append(saved(image, "PNG", pnginfo=text))
        files += [
            saved(image, "PNG", pnginfo=profile(name, data))
            for name, data in (("xmp", packet), ("APP1", b"http://x/\0" + packet))
        ]
        files += [
            saved(image, "JPEG", xmp=packet, quality=95),
            saved(image, "JPEG", xmp=packet, exif=without, quality=95),
        ]
        files += [saved(image, "WEBP", xmp=packet, lossless=True), saved(image, "AVIF", xmp=packet, quality=95)]
        files += [saved(image, "TIFF", tiffinfo={700: packet})]
        for turn in (1, 6):  # EXIF overrules XMP
            for form in ("TIFF", "JPEG", "WEBP"):
                other = (
                    {"tiffinfo": {700: packet, 274: turn}} if form == "TIFF" else {"xmp": packet, "exif": exif(turn)}
                )
                shown = sideways(turn if turn == 6 else 1)
                files.append(saved(shown, form, **other, **(SAVING.get(form, {}))))
    for i, data in enumerate(files):
        seen = read(data)
        assert seen.shape == RGB.shape and np.abs(seen - RGB)[MIDDLES].max() <= LOSSY["JPEG"], (i, data[:4])


def test_pil_images_are_turned_only_as_opened_from_a_file():
    data = saved(sideways(6), "JPEG", exif=exif(6), quality=95)

    def opened():
        return Image.open(io.BytesIO(data))

    loaded = opened()
    loaded.load()
    upright = [
        opened(),
        loaded,
        opened().rotate(-90, expand=True),
        opened().transpose(TURNS[6]),
        ImageOps.exif_transpose(opened()),
    ]
    for handed in upright:
        assert np.abs(read(plain(handed)) - RGB)[MIDDLES].max() <= LOSSY["JPEG"]
    assert read(plain(opened().convert("RGB"))).shape == (WIDTH, HEIGHT, 3)  # as the program made it: sideways


def test_jpegs_at_reduced_scale_are_turned_too():
    large = sideways(6).resize((1600, 2400), Image.Resampling.NEAREST)
    data = saved(large, "JPEG", exif=exif(6), quality=90)
    image = read_image(data, 192)
    assert image.size == (300, 200)
    np.testing.assert_allclose(
        np.asarray(image.resize((WIDTH, HEIGHT)), float)[MIDDLES], RGB[MIDDLES], atol=LOSSY["JPEG"]
    )


@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP", "AVIF"])
def test_broken_exif_does_not_spoil_a_good_image(form):
    rng = np.random.default_rng(1)
    tags = exif(6)
    tags[0x010E], tags[0x011A], tags[0x8298] = "a long description of the picture", 72.0, "nobody"
    tags.get_ifd(0x8769)[0x9003] = "2020:01:01 00:00:00"
    if form == "AVIF":
        del tags[0x0112]  # it is written elsewhere
    good = tags.tobytes()
    avif = saved(sideways(1), "AVIF", exif=good) if form == "AVIF" else b""
    for i in range(40):
        broken = bytearray(good)
        for place in rng.integers(6, len(broken), 1 + i % 8):
            broken[place] = rng.integers(256)
        cut = bytes(broken[: rng.integers(6, len(broken))] if i % 3 == 0 else broken)
        assert form != "AVIF" or good[6:] in avif
        data = saved(sideways(1), form, exif=cut) if form != "AVIF" else avif.replace(good[6:], bytes(broken[6:]))
        assert read(data).size == RGB.size


def test_the_fixtures_of_wrong_images_are_right_now():
    inputs = (
        pathlib.Path(os.environ.get("UNIVAL_SHARED", pathlib.Path(__file__).resolve().parents[3] / "shared"))
        / "fixtures"
        / "inputs"
    )
    if not inputs.is_dir():
        pytest.skip("needs the inputs of the shared folder (set UNIVAL_SHARED)")
    turned, tiff = (read((inputs / name).read_bytes()) for name in ("orientation6.jpg", "orientation6.tif"))
    assert turned.shape == tiff.shape and np.abs(turned - tiff).mean() < 5
    assert len(np.unique(read((inputs / "gray16_ramp.png").read_bytes())[..., 0])) >= 32
    assert read((inputs / "black_square_on_transparent.png").read_bytes()).mean() > 128
    with pytest.raises(UserError, match=r"EPS.*supported formats: AVIF"):
        read((inputs / "image_that_is_a_program.jpg").read_bytes())


# Transparency ---------------------------------------------------------------------------------------------------------


def test_a_transparent_colour_is_white_at_every_depth():
    def key(*values):
        return chunk(b"tRNS", struct.pack(f">{len(values)}H", *values))

    files = {  # a pixel of the transparent colour, then one of another
        "1 bit": (png(2, 1, 1, 0, [b"\x40"], key(0)), [255, 255]),
        "2 bits": (png(2, 1, 2, 0, [b"\x60"], key(1)), [255, 170]),
        "4 bits": (png(2, 1, 4, 0, [b"\x37"], key(3)), [255, 119]),
        "8 bits": (png(2, 1, 8, 0, [b"\x30\x70"], key(0x30)), [255, 0x70]),
        "16 bits": (png(2, 1, 16, 0, [struct.pack(">HH", 12345, 257 * 40)], key(12345)), [255, 40]),
        "RGB": (png(2, 1, 8, 2, [b"\1\2\3\5\5\5"], key(1, 2, 3)), [255, 5]),
        "RGB 16": (png(2, 1, 16, 2, [struct.pack(">6H", 257, 514, 771, *[257 * 9] * 3)], key(257, 514, 771)), [255, 9]),
        "palette": (png(2, 1, 8, 3, [b"\0\1"], chunk(b"PLTE", b"\1\2\3\7\7\7"), chunk(b"tRNS", b"\0")), [255, 7]),
        "half": (png(2, 1, 8, 3, [b"\0\1"], chunk(b"PLTE", b"\1\1\1\7\7\7"), chunk(b"tRNS", b"\x80")), [127, 7]),
    }
    for name, (data, wanted) in files.items():
        assert np.abs(read(data)[0].mean(-1) - wanted).max() <= 1, name
        np.testing.assert_array_equal(read(plain(Image.open(io.BytesIO(data)))), read(data), err_msg=name)
        loaded = Image.open(io.BytesIO(data))
        loaded.load()
        if name == "RGB 16":  # Pillow dropped what tells the colour from those near it
            with pytest.raises(UserError, match="decoded from 16 bits to 8"):
                plain(loaded)
        else:
            np.testing.assert_array_equal(read(plain(loaded)), read(data), err_msg=name)


@pytest.mark.parametrize("interlace", [0, 1])
def test_colours_near_a_transparent_one_of_16_bits_stay(interlace):
    words = np.zeros((1, 5, 3), ">u2")
    words[0, 1:] = [[0, 0, 1], [200, 200, 200], [2570, 5140, 7711], [2570, 5140, 7710]]
    rows = [words[0, i::s].tobytes() for i, s in ((0, 8), (4, 8), (2, 4), (1, 2))] if interlace else [words.tobytes()]
    for key, hidden in (((0, 0, 0), 0), ((2570, 5140, 7710), 4), ((0, 0, 1), 1)):
        data = png(5, 1, 16, 2, rows, chunk(b"tRNS", struct.pack(">3H", *key)), interlace=interlace)
        expected = words.astype(int)[:, :, :] // 256
        expected[0, hidden] = 255
        for file in (data, plain(Image.open(io.BytesIO(data)))):
            np.testing.assert_array_equal(read(file), expected)


def tga(pixels, depth, descriptor, kind=2, attributes=None):
    head = struct.pack("<BBBHHBHHHHBB", 0, 0, kind, 0, 0, 0, 0, 0, 2, 1, depth, descriptor | 0x20)
    if attributes is None:
        return head + pixels
    extension = bytes(494) + bytes([attributes])
    return head + pixels + extension + struct.pack("<II", len(head + pixels), 0) + b"TRUEVISION-XFILE.\0"


def bitmap(pixels, masks, header=108, file=True, height=1):
    info = struct.pack("<IiiHHIIiiII", header, 2, height, 1, 32, 3 if masks else 0, len(pixels), 0, 0, 0, 0)
    info = (info + masks).ljust(header, b"\0") + pixels
    return (b"BM" + struct.pack("<IHHI", 14 + len(info), 0, 0, 14 + header) if file else b"") + info


def icon(dib):
    return struct.pack("<HHH", 0, 1, 1) + struct.pack("<BBBBHHII", 2, 1, 0, 0, 1, 32, len(dib), 22) + dib


def test_padding_is_not_taken_for_alpha():
    padded, clear = bytes([0, 0, 255, 0, 0, 255, 0, 0]), bytes([0, 0, 255, 255, 0, 255, 0, 0])  # red and green; BGRA
    colours, half, white = [[255, 0, 0], [0, 255, 0]], [[255, 0, 0], [255] * 3], [[255] * 3] * 2
    masks = struct.pack("<IIII", 0xFF0000, 0xFF00, 0xFF, 0xFF000000)
    files = {
        "TGA without alpha": (tga(padded, 32, 0), colours),
        "TGA without alpha, filled": (tga(clear, 32, 0), colours),
        "TGA runs": (tga(b"\1" + padded, 32, 0, kind=10), colours),
        "TGA 16 bits": (tga(struct.pack("<HH", 0xFC00, 0x83E0), 16, 0), colours),
        "TGA alpha": (tga(clear, 32, 8), half),
        "TGA all transparent": (tga(padded, 32, 8), white),
        **{f"TGA 2 without alpha, {kind}": (tga(clear, 32, 8, attributes=kind), colours) for kind in (0, 1, 2)},
        "TGA 2 alpha": (tga(clear, 32, 0, attributes=3), half),
        "BMP of 32 bits": (bitmap(padded, b"", 40), colours),
        **{f"BMP {header}": (bitmap(padded, masks, header), colours) for header in (56, 108, 124)},
        **{f"BMP {header} alpha": (bitmap(clear, masks, header), half) for header in (56, 108, 124)},
        "DIB": (bitmap(padded, masks, file=False), colours),
        "ICO": (icon(bitmap(padded, b"", 40, False, 2) + bytes(4)), colours),
        "ICO without mask": (icon(bitmap(padded, b"", 40, False, 2)), colours),
        "ICO masked": (icon(bitmap(padded, b"", 40, False, 2) + b"\x40\0\0\0"), half),
        "ICO alpha": (icon(bitmap(clear, b"", 40, False, 2) + bytes(4)), half),
        "PNG all transparent": (saved(Image.new("RGBA", (2, 1)), "PNG"), white),
        "ICO of PNG": (saved(Image.new("RGBA", (16, 16)), "ICO"), white),
    }
    for name, (data, wanted) in files.items():
        assert read(data)[0, :2].tolist() == wanted, name
        assert read(plain(Image.open(io.BytesIO(data))))[0, :2].tolist() == wanted, name
    red = Image.new("RGBA", (2, 1), (255, 0, 0, 0))
    said, unsaid = saved(red, "TIFF"), bytearray(saved(red, "TIFF"))
    unsaid[unsaid.index(struct.pack("<HH", 338, 3))] = (
        0x51  # another tag in the place of the one that says what the fourth is
    )
    assert (read(said) == 255).all() and read(bytes(unsaid)).tolist() == [[[255, 0, 0]] * 2]
    with pytest.raises(UserError, match="16 bits of grey without alpha"):
        read(tga(bytes(4), 16, 0, kind=3))


def test_inks_of_jpegs_are_inverted_with_and_without_the_marker_of_adobe():
    data = saved(Image.new("CMYK", (16, 16), (0, 255, 255, 0)), "JPEG", quality=100)
    place = data.index(b"Adobe") - 4
    plainly = data[:place] + data[place + 2 + int.from_bytes(data[place + 2 : place + 4], "big") :]
    assert b"Adobe" not in plainly
    for file in (data, plainly):
        assert np.abs(read(file) - [255, 0, 0]).max() <= 4


def test_frames_of_animations_are_on_white_and_so_is_a_canvas_around_its_frame():
    clear = np.dstack([RGB, np.where(np.arange(WIDTH) < 16, 0, 255)[None].repeat(HEIGHT, 0).astype(np.uint8)])
    frames = [Image.fromarray(clear), Image.fromarray(clear[::-1].copy())]
    for form, options in (
        ("GIF", {"disposal": 2}),
        ("WEBP", {"lossless": True, "exact": True}),
        ("PNG", {"disposal": 1, "blend": 0}),
    ):
        data = saved(frames[0], form, save_all=True, append_images=frames[1:], duration=100, **options)
        with open_frames(data) as (total, frame):
            pixels = [np.asarray(frame(i)).astype(int) for i in range(total)]
        assert total == 2
        for i, seen in enumerate((clear, clear[::-1])):
            assert np.abs(pixels[i] - on_white(seen[..., :3], seen[..., 3])).max() <= 3, form
        assert np.abs(read(data) - on_white(RGB, clear[..., 3])).max() <= 3, form
    small = bytearray(saved(Image.fromarray(GREY[:16, 16:32]), "GIF"))
    small[6:10] = struct.pack("<HH", 40, 20)  # a larger canvas
    around = read(bytes(small))
    assert (
        around.shape == (20, 40, 3)
        and around[18, 38].tolist() == [255] * 3
        and around[8, 8].tolist() == [int(GREY[8, 24])] * 3
    )
    still = saved(Image.new("RGB", (4, 4), "red"), "WEBP", lossless=True)[12:]
    frame = b"\2\0\0\2\0\0\3\0\0\3\0\0\x32\0\0\0" + still
    for frames in (1, 2):
        for flags in (0x02, 0x12):  # animated, without and with alpha
            body = b"WEBPVP8X" + struct.pack("<I", 10) + bytes([flags, 0, 0, 0]) + b"\x0f\0\0\x0f\0\0"
            body += (
                b"ANIM"
                + struct.pack("<IIH", 6, 0xFF0000FF, 0)
                + (b"ANMF" + struct.pack("<I", len(frame)) + frame) * frames
            )
            data = b"RIFF" + struct.pack("<I", len(body)) + body
            for seen in (read(data), read(plain(Image.open(io.BytesIO(data))))):
                assert seen[5, 5].tolist() == [255, 0, 0] and seen[0, 0].tolist() == [255] * 3, (frames, flags)
            dropped = np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))
            np.testing.assert_array_equal(read(data, published=True), dropped)
