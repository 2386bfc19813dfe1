"""Where Pillow reads a file otherwise than viewers show it: what says so in the file, and how the pixels are mended.

CMYK in JPEG needs no mend: Pillow takes its inks as inverted with and without Adobe's marker, and so do browsers (Skia, WebKit,
Gecko) and GNOME's viewers, since such files on the web are.
"""

import functools
import io
import struct
import sys
from collections.abc import Sequence
from typing import Any

from PIL import Image, ImageChops, TiffImagePlugin

from unival.errors import UserError

# Pixel layouts of Pillow for big-endian TIFF samples -> what libtiff makes of them, the machine's own order
NATIVE = {"F;32BF": "F;32NF", "I;32BS": "I;32NS", "I;16BS": "I;16NS"}
PHOTOMETRIC, EXTRA_SAMPLES, SAMPLE_FORMAT, ORIENTATION = 262, 338, 339, 274  # tags of TIFF
SAMPLE_FORMATS = {1: "unsigned integers", 2: "signed integers", 3: "floats", 5: "complex integers", 6: "complex floats"}
PHOTOMETRICS = {
    0: "grey (0 is white)",
    1: "grey",
    2: "RGB",
    3: "a palette",
    4: "a mask",
    5: "CMYK",
    6: "YCbCr",
    8: "Lab",
    9: "Lab",
}
TGA_FOOTER = b"TRUEVISION-XFILE.\0"
OPAQUE = {"BGRA": "BGRX", "BGRA;15Z": "BGR;15"}  # layouts of TGA without their alpha


class TiffFile(TiffImagePlugin.TiffImageFile):
    """A TIFF file, kinds of pixels included that Pillow knows in the other byte order, or with black and white exchanged.

    Raises:
        UserError: its pixels are of a kind that is not read; the message says of which.
    """

    is_mended = False  # Pillow alone does not open it

    def _setup(self) -> None:
        tags: Any = self.tag_v2
        kept: dict[int, Any] = {}
        prefix = tags._prefix
        try:
            super()._setup()
            return
        except SyntaxError as error:
            if "unknown" not in str(error):
                raise
        try:
            bits = tags.get(258, (1,))
            if tags.get(PHOTOMETRIC) == 0 and tags.get(277, 1) == 1:  # pixels.py turns the values round
                kept[PHOTOMETRIC] = 0
                tags[PHOTOMETRIC] = 1
            if (
                bits == (32,) and prefix == b"MM" and tags.get(SAMPLE_FORMAT, (1,)) == (1,)
            ):  # pixels.py knows that there is no sign
                kept[SAMPLE_FORMAT] = (1,)
                tags[SAMPLE_FORMAT] = (2,)
            if bits == (12,):  # packed, so that bytes have one order only
                tags._prefix = b"II"
            super()._setup()
            self.is_mended = True
        except SyntaxError as error:
            raise UserError(self._kind(kept)) from error
        finally:
            tags._prefix = prefix
            for tag, value in kept.items():
                tags[tag] = value

    def _kind(self, kept: dict[int, Any]) -> str:
        tags: Any = self.tag_v2
        samples = tags.get(277, 1)
        bits = tags.get(258, (1,))
        formats = kept.get(SAMPLE_FORMAT, tags.get(SAMPLE_FORMAT, (1,)))
        photometric = kept.get(PHOTOMETRIC, tags.get(PHOTOMETRIC))
        order = "big" if tags.prefix == b"MM" else "little"
        return (
            f"its TIFF pixels are {PHOTOMETRICS.get(photometric, f'of photometric {photometric}')} in {samples} sample"
            f"{'s' if samples != 1 else ''} of {'/'.join(map(str, dict.fromkeys(bits)))} bits,"
            f" {'/'.join(SAMPLE_FORMATS.get(x, f'sample format {x}') for x in dict.fromkeys(formats))}, {order}-endian, which are not"
            " read: convert it to grey or RGB of 8 or 16 bits"
        )


def opened(file: Any, data: bytes) -> None:
    """Mend an image that is not decoded yet, where that leaves its colours as Pillow's ``convert("RGB")`` has them."""
    if file.format == "PNG":
        _key_in_pixels(file)
    elif file.format == "WEBP" and file.rawmode == "RGBX" and data[12:16] == b"VP8X" and data[20] & 2:  # animated
        # Decoders start from a transparent canvas whatever the flag of alpha says, and browsers show that around a smaller frame.
        file._mode = file.rawmode = "RGBA"
    elif file.format == "TGA":
        _tga_without_alpha(file, data)


def extra_memory(file: Any) -> int:
    """Bytes that :func:`seen` takes beside the image."""
    return file.width * file.height * (16 if file.info.get("exact key") else 0)


def seen(file: Any, data: bytes) -> Any:
    """The image with pixels as a person sees them, where Pillow's are others; it is not decoded yet."""
    if file.format == "TIFF":
        if ORIENTATION in file.tag_v2:
            file.info.pop("xmp", None)  # which it overrules
        if _is_native(file):
            file.tile = [
                tile._replace(args=(NATIVE.get(tile.args[0], tile.args[0]), *tile.args[1:])) for tile in file.tile
            ]
    key = file.info.get("exact key")
    if key:
        _hide_exactly(file, key, data)
    return _without_padding(file)


def loaded(image: Any) -> Any:
    """The same of an image that was opened and decoded elsewhere, as far as it is still known what its file said."""
    if image.format == "PNG" and "transparency" in image.info:
        return _with_key_in_pixels(image)
    if image.format == "TGA" and image.mode == "RGBA" and image.getchannel("A").getextrema() == (0, 0):
        return image.convert("RGB")  # the header, which says whether that is alpha, is gone
    if image.format == "TIFF" and image.mode in ("I", "F") and image.tag_v2.prefix == b"MM" and _is_native(image):
        raise UserError(
            "Pillow has decoded its big-endian pixels as little-endian ones: give the file, or the image before it is loaded"
        )
    return image if image.format is None else _without_padding(image)


def _is_native(file: Any) -> bool:
    """Has libtiff made little-endian pixels of it, whatever order the file is in?"""
    return sys.byteorder == "little" and getattr(file, "use_load_libtiff", False)


def _without_padding(file: Any) -> Any:
    """The image, opaque if its alpha may be mere padding and is 0 in every pixel, as viewers show it.

    So are BMP and icons by those (Chromium, Firefox, Windows), and TIFF files of four samples that do not say what the fourth is.
    """
    if file.format not in ("BMP", "DIB", "ICO", "TIFF") or (file.format == "TIFF" and EXTRA_SAMPLES in file.tag_v2):
        return file
    file.load()
    if (
        file.mode != "RGBA"
        or file.getchannel("A").getextrema() != (0, 0)
        or (file.format == "ICO" and not _is_bitmap(file))
    ):
        return file
    opaque = file.convert("RGB")
    mask = _icon_mask(file) if file.format == "ICO" else None
    if mask is not None:
        opaque.putalpha(mask)
    return opaque


# PNG ------------------------------------------------------------------------------------------------------------------


def _key_in_pixels(file: Any) -> None:
    """The transparent colour in the units of Pillow's pixels; Pillow leaves it in those of the file."""
    key = file.info.get("transparency")
    layout = file.tile[0][3] if file.tile else ""
    if isinstance(key, str):  # a text chunk of that name
        del file.info["transparency"]
    elif layout in ("L;2", "L;4") and isinstance(key, int):
        file.info["transparency"] = key * 255 // (2 ** int(layout[2:]) - 1)
    elif layout == "RGB;16B" and isinstance(key, tuple):  # of which Pillow keeps the high bytes
        file.info["transparency"] = tuple(value >> 8 for value in key)
        file.info["exact key"] = key


def _hide_exactly(file: Any, key: tuple[int, int, int], data: bytes) -> None:
    """Alpha instead of a transparent colour of 16 bits, of which two decodings give the high and the low bytes."""
    low = type(file)(io.BytesIO(data))
    low.tile = [
        tile._replace(args=("RGB;16L", *tile.args[1:]) if isinstance(tile.args, tuple) else "RGB;16L")
        for tile in low.tile
    ]
    low.load()
    file.load()
    high, rest = ([value >> 8 for value in key], [value & 255 for value in key])
    hidden = ImageChops.darker(_where(file, high), _where(low, rest))
    del file.info["transparency"], file.info["exact key"]
    file.putalpha(ImageChops.invert(hidden))


def _with_key_in_pixels(image: Image.Image) -> Image.Image:
    """A PNG that was decoded elsewhere, its transparent colour in the units of its pixels.

    Its bits are not known any more; they are the fewest in which all its levels can be written.

    Raises:
        UserError: which of its pixels are transparent cannot be told.
    """
    key = image.info["transparency"]
    if image.mode == "L" and isinstance(key, int):
        levels = [level for level, count in enumerate(image.histogram()) if count]
        steps = [
            255 // white for white in (3, 15) if key <= white and all(level % (255 // white) == 0 for level in levels)
        ]
        if steps and key:
            image = image.copy()
            image.info["transparency"] = key * steps[0]
    elif image.mode == "RGB" and isinstance(key, tuple) and max(key) > 255:
        if _where(image, [value >> 8 for value in key]).getextrema() != (0, 0):
            raise UserError(
                "it was decoded from 16 bits to 8, so that its transparent colour cannot be told from those near it: give the file, its"
                " bytes, or the image before it is loaded"
            )
        image = image.copy()
        del image.info["transparency"]
    return image


def _where(image: Image.Image, colour: Sequence[int]) -> Image.Image:
    """255 where an RGB image has this colour, else 0."""
    bands = [
        band.point([255 * (level == value) for level in range(256)])
        for band, value in zip(image.split(), colour, strict=True)
    ]
    return functools.reduce(ImageChops.darker, bands)


# TGA, ICO -------------------------------------------------------------------------------------------------------------


def _tga_without_alpha(file: Any, data: bytes) -> None:
    """Heed what the file says: no alpha by the header's bits of attributes, unless by its extension area, or by that area alone."""
    kind = None
    if data[-18:] == TGA_FOOTER:
        extension = struct.unpack_from("<I", data, len(data) - 26)[0]
        if extension and extension + 495 <= len(data):
            kind = data[extension + 494]
    has_bits = bool(data[17] & 15)
    if kind in (3, 4) or (has_bits and kind not in (0, 1, 2)):
        return
    if file.mode == "LA":
        raise UserError(
            "its TGA pixels have 16 bits of grey and no alpha by its header, which are not read: convert it to 8 bits"
        )
    if file.mode == "RGBA":
        file._mode = "RGB"
        file.tile = [tile._replace(args=(OPAQUE[tile.args[0]], *tile.args[1:])) for tile in file.tile]
    palette = file.palette if file.mode == "P" else None
    if (
        palette is not None and palette.rawmode == "BGRA" and not any(palette.palette[3::4])
    ):  # bits of attributes are the pixels'
        palette.rawmode, palette.mode = "BGRX", "RGB"


def _is_bitmap(file: Any) -> bool:
    """Is the image that an icon shows no PNG?"""
    header = file.ico.entry[file.ico.getentryindex(file.size)]
    file.ico.buf.seek(header.offset)
    return bool(file.ico.buf.read(4) != b"\x89PNG")


def _icon_mask(file: Any) -> Image.Image | None:
    """The mask of one bit that follows an icon's pixels, as alpha; None without one."""
    width, height = file.size
    header = file.ico.entry[file.ico.getentryindex(file.size)]
    stride = (width + 31) // 32 * 4
    if header.size < 40 + 4 * width * height + stride * height:
        return None
    file.ico.buf.seek(header.offset + header.size - stride * height)
    bits = file.ico.buf.read(stride * height)
    return (
        Image.frombytes("1", file.size, bits, "raw", "1;I", stride, -1).convert("L")
        if len(bits) == stride * height
        else None
    )
