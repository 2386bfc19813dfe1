"""Pictures and hand-made files that the tests of images read."""

import io
import struct
import zlib

import numpy as np
from PIL import Image

from unival.modalities.pillow import read_image
from unival.modalities.pixels import TURNS

WIDTH, HEIGHT = 48, 32
LOSSY = {"JPEG": 8, "AVIF": 8, "ICNS": 8}  # levels, in flat areas
SAVING = {
    "JPEG": {"quality": 95},
    "AVIF": {"quality": 95},
    "WEBP": {"lossless": True},
    "ICO": {"sizes": [(WIDTH, HEIGHT)]},
}
RAMP = np.linspace(0, 1, 64)[None]  # black to white


def blocks():
    """Flat areas of colours, none like another turned or mirrored; h x w x 3."""
    colours = [(250, 20, 30), (20, 200, 40), (30, 40, 220), (128, 128, 128), (240, 240, 20), (10, 10, 10)]
    pixels = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
    for i, colour in enumerate(colours):
        top, left = i // 3 * 16, i % 3 * 16
        pixels[top : top + 16, left : left + 16] = colour
    return pixels


RGB = blocks()
GREY = np.asarray(Image.fromarray(RGB).convert("L"))
ALPHA = np.repeat(np.linspace(0, 255, WIDTH).astype(np.uint8)[None], HEIGHT, 0)
MIDDLES = (slice(8, None, 16), slice(8, None, 16))  # of the flat areas


def on_white(pixels, alpha=ALPHA):
    share = alpha[..., None] / 255
    return np.round(pixels * share + 255 * (1 - share))


def saved(image, form, **options):
    buffer = io.BytesIO()
    image.save(buffer, format=form, **options)
    return buffer.getvalue()


def read(data, **options):
    return np.asarray(read_image(data, 4096, **options).convert("RGB")).astype(int)


def three(grey):
    return np.repeat(np.asarray(grey, float)[..., None], 3, 2)


def exif(turn):
    tags = Image.Exif()
    tags[0x0112] = turn
    return tags


def sideways(turn):
    """The picture as a camera would store it that notes this orientation."""
    back = {6: 8, 8: 6}.get(turn, turn)
    image = Image.fromarray(RGB)
    return image.transpose(TURNS[back]) if back in TURNS else image


def tiff(values, bits, sample_format=1, photometric=1, order="<", compressed=False):
    """A grey TIFF file of these samples."""
    data = (
        np.ascontiguousarray(values).astype(values.dtype.newbyteorder(order)).tobytes()
        if bits != 12
        else values.tobytes()
    )
    height, width = values.shape if bits != 12 else (1, values.size * 2 // 3)
    data = zlib.compress(data) if compressed else data
    tags = [
        (256, width),
        (257, height),
        (258, bits),
        (259, 8 if compressed else 1),
        (262, photometric),
        (273, 134),
        (277, 1),
    ]
    tags += [(278, height), (279, len(data)), (339, sample_format)]
    head = struct.pack(order + "2sHI", b"II" if order == "<" else b"MM", 42, 8) + struct.pack(order + "H", len(tags))
    entries = b"".join(struct.pack(order + "HHII", tag, 4, 1, value) for tag, value in tags)
    return (head + entries + bytes(4)).ljust(134, b"\0") + data


def chunk(kind, data):
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(width, height, bits, colour, rows, *more, interlace=0):
    head = struct.pack(">IIBBBBB", width, height, bits, colour, 0, 0, interlace)
    pixels = zlib.compress(b"".join(b"\0" + row for row in rows), 9)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + b"".join(more) + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")
