"""Convert Pillow images of any mode to RGB or grey as a person sees them: upright, on white, values scaled to 0 to 255."""

import contextlib
import re
from collections.abc import Callable
from typing import Any

import numpy as np
from PIL import ExifTags, Image

from unival.errors import UserError

ALPHA_MODES = ("LA", "La", "PA", "RGBA", "RGBa")
INTEGERS = ("I;16", "I;16L", "I;16B", "I;16N")
GREY = ("1", "L", "I", "F", *INTEGERS)
BYTES = {"1": 1, "L": 1, "P": 1, "LA": 4, **dict.fromkeys(INTEGERS, 2)}  # per pixel; 4 for all other modes
STRIP = 2**20  # pixels that are converted at a time, to keep intermediate copies small
# Keys of ``Image.info`` that may have an orientation; Pillow itself applies that of TIFF tags.
METADATA = ("exif", "Raw profile type exif", "Raw profile type APP1", "xmp", "XML:com.adobe.xmp", "Raw profile type xmp")
XMP_PREFIX = rb"""xmlns:([\w.-]+)\s*=\s*["']http://ns\.adobe\.com/tiff/1\.0/["']"""
TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
SIDEWAYS = (5, 6, 7, 8)  # those that swap width and height
PHOTOMETRIC, BITS_PER_SAMPLE, SAMPLE_FORMAT = 262, 258, 339  # TIFF tags


def orientation(image: Image.Image, decode: bool = True) -> int:
    """Orientation of an image by its EXIF or XMP metadata.

    Args:
        image: Pillow's image.
        decode: whether to decode the pixels first, to read metadata that follows them in PNG files.

    Returns:
        1 to 8; 1 (upright) if there is no orientation, or if the metadata is broken.
    """
    if decode:
        image.load()
    if not any(key in image.info for key in METADATA):
        return 1
    if not decode and image.format == "PNG" and "exif" not in image.info:
        return 1  # Pillow would decode the pixels
    value: Any = None
    with contextlib.suppress(Exception):
        value = image.getexif().get(ExifTags.Base.Orientation)
    for key in METADATA if value is None else ():
        with contextlib.suppress(Exception):
            value = value or _noted(key, image.info.get(key))
    if isinstance(value, bytes | tuple):  # a tag of an unusual type or count
        value = value[0] if value else 1
    return value if isinstance(value, int) and value in TURNS else 1


def _noted(key: str, data: Any) -> int | None:
    """Orientation in EXIF or XMP data, also as ImageMagick stores them in a text chunk of PNG: name, length, hexadecimal digits."""
    if key.startswith("Raw profile"):
        data = bytes.fromhex("".join(data.split()[2:]))
    elif isinstance(data, str):
        data = data.encode()
    if not data or key == "exif":  # Pillow has parsed EXIF
        return None
    if data.startswith((b"Exif\0\0", b"II*\0", b"MM\0*")):
        tags = Image.Exif()
        tags.load(data)
        return tags.get(ExifTags.Base.Orientation)
    data = data.replace(b"\0", b"")  # if it is UTF-16
    prefixes = b"|".join({b"tiff", *(re.escape(prefix) for prefix in re.findall(XMP_PREFIX, data))})
    found = re.search(rb"\b(?:" + prefixes + rb"):Orientation(?:\s*=\s*[\"']|(?:\s[^<>]*)?>)\s*([1-8])\s*[\"'<]", data)
    return int(found[1]) if found else None


def upright(image: Image.Image, turn: int) -> Image.Image:
    """The image rotated and mirrored by an EXIF orientation."""
    return image.transpose(TURNS[turn]) if turn in TURNS else image


def is_transparent(image: Image.Image) -> bool:
    """Whether an image has an alpha channel, a palette with alpha, or a transparent colour."""
    if image.mode in ALPHA_MODES or "transparency" in image.info:
        return True
    return image.mode == "P" and image.palette is not None and image.palette.mode.endswith("A")


def to_rgb(image: Image.Image) -> Image.Image:
    """Convert an image of any mode to RGB or L, transparent parts on white.

    Integers are scaled from the range of the file's format, whose largest value becomes white; floats are scaled from 0 to 1.

    Raises:
        UserError: floats outside 0 to 1, or integers of unknown range: 32 bits in formats other than TIFF, or signed 8 bits.
    """
    image.load()
    convert = _converter(image)
    if convert is None:
        return image
    width, height = image.size
    rows = max(1, STRIP // max(width, 1))
    if rows >= height:
        return convert(image)
    result = Image.new("L" if image.mode in GREY and not _has_colour_key(image) else "RGB", image.size)
    for top in range(0, height, rows):
        result.paste(convert(image.crop((0, top, width, min(top + rows, height)))), (0, top))
    return result


def _has_colour_key(image: Image.Image) -> bool:
    return "transparency" in image.info and image.mode not in INTEGERS


def _converter(image: Image.Image) -> Callable[[Image.Image], Image.Image] | None:
    """Function that converts the image, or a strip of it, to RGB or L; None if no conversion is needed."""
    if image.mode in (*INTEGERS, "I", "F"):
        return _scaling(image)
    if image.mode == "L" and _tag(image, SAMPLE_FORMAT) == 2:
        raise UserError(
            "its TIFF pixels are signed 8-bit integers, by which some programs mean -128 to 127 and others 0 to 255: convert it to unsigned"
        )
    if is_transparent(image):
        return _on_white
    if image.mode == "1":
        return lambda strip: strip.convert("L")
    return None if image.mode in ("L", "RGB") else lambda strip: strip.convert("RGB")


def _on_white(strip: Image.Image) -> Image.Image:
    if strip.mode == "La":
        strip = strip.convert("LA")
    strip = strip.convert("RGBA")
    white = Image.new("RGB", strip.size, "white")
    white.paste(strip, mask=strip.getchannel("A"))
    return white


def _scaling(image: Image.Image) -> Callable[[Image.Image], Image.Image]:
    low, high = _range(image)
    key = image.info.get("transparency")
    is_inverted = image.format == "TIFF" and _tag(image, PHOTOMETRIC) == 0  # 0 is white; Pillow inverts 8-bit images only

    def scale(strip: Image.Image) -> Image.Image:
        values = np.asarray(strip)
        if strip.mode == "I" and low == 0 and high > 2**31:
            values = values.view(np.uint32)
        if strip.mode == "F" and not (values.min() >= 0 and values.max() <= 1):
            raise UserError(
                f"its float pixels must be 0 to 1, got values from {values.min():g} to {values.max():g}: scale them, or save 8 or 16 bits"
            )
        if strip.mode in INTEGERS:
            grey = _table(high)[values]
        else:
            grey = np.round((values.astype(np.float64) - low) * (255 / (high - low))).clip(0, 255).astype(np.uint8)
        if is_inverted:
            grey = 255 - grey
        if isinstance(key, int):
            grey = np.where(values == key, np.uint8(255), grey)
        return Image.fromarray(grey)

    return scale


def _table(high: int) -> np.ndarray:
    """Grey levels 0 to 255 of all 16-bit values, where ``high`` is white."""
    return np.round(np.arange(2**16).clip(0, high) * (255 / high)).astype(np.uint8)


def _range(image: Image.Image) -> tuple[int, int]:
    """The values of black and of white in the pixels of an image."""
    if image.mode == "F":
        return 0, 1
    bits = 16 if image.mode in INTEGERS or image.format in ("PNG", "PPM") else None
    if image.format == "TIFF":
        bits = _tag(image, BITS_PER_SAMPLE)
        if _tag(image, SAMPLE_FORMAT) == 2:
            return -(2 ** (bits - 1)), 2 ** (bits - 1) - 1
    if bits is None:
        raise UserError(
            "its pixels are 32-bit integers (mode I), whose value of white is not known: give 8 bits (mode L) or 16 (mode I;16)"
        )
    return 0, 2**bits - 1


def _tag(image: Image.Image, tag: int) -> Any:
    """The (first) value of a TIFF tag; None if there is no such tag, or if the format is not TIFF."""
    value = image.tag_v2.get(tag) if image.format == "TIFF" and hasattr(image, "tag_v2") else None
    return value[0] if isinstance(value, tuple) and value else value
