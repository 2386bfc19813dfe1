"""Corrections where Pillow decodes an image file differently from what viewers show.

CMYK in JPEG needs none: like browsers (Skia, WebKit, Gecko) and GNOME's viewers, Pillow inverts the inks with and without Adobe's
marker, which is right for the files found on the web.
"""

import functools
import io
import struct
import sys
from collections.abc import Sequence
from typing import Any

from PIL import Image, ImageChops, TiffImagePlugin

from unival.errors import UserError

# Pillow's raw modes for big-endian TIFF samples -> raw modes of what libtiff decodes them to, in native byte order
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
OPAQUE = {"BGRA": "BGRX", "BGRA;15Z": "BGR;15"}  # raw modes of TGA -> without alpha


class TiffFile(TiffImagePlugin.TiffImageFile):
    """A TIFF file, also with pixel formats that Pillow reads only in the other byte order or with black and white exchanged.

    Raises:
        UserError: the pixel format is not supported; the message describes it.
    """

    is_mended = False  # True if Pillow alone cannot open it

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
            if tags.get(PHOTOMETRIC) == 0 and tags.get(277, 1) == 1:  # pixels.py inverts the values
                kept[PHOTOMETRIC] = 0
                tags[PHOTOMETRIC] = 1
            if (
                bits == (32,) and prefix == b"MM" and tags.get(SAMPLE_FORMAT, (1,)) == (1,)
            ):  # pixels.py reads them as unsigned
                kept[SAMPLE_FORMAT] = (1,)
                tags[SAMPLE_FORMAT] = (2,)
            if bits == (12,):  # packed bits have no byte order
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
            f" {'/'.join(SAMPLE_FORMATS.get(x, f'sample format {x}') for x in dict.fromkeys(formats))}, {order}-endian, which is not"
            " supported: convert it to grey or RGB of 8 or 16 bits"
        )


def opened(file: Any, data: bytes) -> None:
    """Apply the corrections that do not change the colours of ``convert("RGB")``, before the image is decoded."""
    if file.format == "PNG":
        _key_in_pixels(file)
    elif file.format == "WEBP" and file.rawmode == "RGBX" and data[12:16] == b"VP8X" and data[20] & 2:  # animated
        # Whatever the alpha flag, decoders start with a transparent canvas, which browsers show around a smaller frame
        file._mode = file.rawmode = "RGBA"
    elif file.format == "TGA":
        _tga_without_alpha(file, data)


def extra_memory(file: Any) -> int:
    """Bytes that :func:`seen` needs in addition to the image."""
    return file.width * file.height * (16 if file.info.get("exact key") else 0)


def seen(file: Any, data: bytes) -> Any:
    """The image with pixels as viewers show them, from an image that is not decoded yet.

    Args:
        file: Pillow's image.
        data: bytes of the file.
    """
    if file.format == "TIFF":
        if ORIENTATION in file.tag_v2:
            file.info.pop("xmp", None)  # the tag has precedence
        if _is_native(file):
            file.tile = [
                tile._replace(args=(NATIVE.get(tile.args[0], tile.args[0]), *tile.args[1:])) for tile in file.tile
            ]
    key = file.info.get("exact key")
    if key:
        _hide_exactly(file, key, data)
    return _without_padding(file)


def loaded(image: Any) -> Any:
    """The image with pixels as viewers show them, from an image that a program opened and decoded, as far as it can still be corrected.

    Raises:
        UserError: its pixels were decoded wrongly and cannot be corrected.
    """
    if image.format == "PNG" and "transparency" in image.info:
        return _with_key_in_pixels(image)
    if image.format == "TGA" and image.mode == "RGBA" and image.getchannel("A").getextrema() == (0, 0):
        return image.convert("RGB")  # the header, which told whether this is alpha, is lost
    if image.format == "TIFF" and image.mode in ("I", "F") and image.tag_v2.prefix == b"MM" and _is_native(image):
        raise UserError(
            "Pillow decoded its big-endian pixels as little-endian: give the file, or the image before it is loaded"
        )
    return image if image.format is None else _without_padding(image)


def _is_native(file: Any) -> bool:
    """Whether libtiff decoded the pixels to little-endian, whatever the byte order of the file."""
    return sys.byteorder == "little" and getattr(file, "use_load_libtiff", False)


def _without_padding(file: Any) -> Any:
    """The image without its alpha channel, if that is 0 in every pixel and may be padding.

    So do viewers (Chromium, Firefox, Windows) with BMP files and icons. TIFF files with four samples may not tell what the fourth is.
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
    """Convert the transparent colour from the bit depth of the file, in which Pillow leaves it, to that of the pixels."""
    key = file.info.get("transparency")
    layout = file.tile[0][3] if file.tile else ""
    if isinstance(key, str):  # not a colour, but a text chunk with this name
        del file.info["transparency"]
    elif layout in ("L;2", "L;4") and isinstance(key, int):
        file.info["transparency"] = key * 255 // (2 ** int(layout[2:]) - 1)
    elif layout == "RGB;16B" and isinstance(key, tuple):  # Pillow keeps the high bytes of pixels
        file.info["transparency"] = tuple(value >> 8 for value in key)
        file.info["exact key"] = key


def _hide_exactly(file: Any, key: tuple[int, int, int], data: bytes) -> None:
    """Replace a 16-bit transparent colour by an alpha channel; the file is decoded twice, for the high and the low bytes."""
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
    """A decoded PNG with its transparent colour in the bit depth of its pixels.

    The bit depth of the file is not known any more; it is taken as the smallest one that has all grey levels of the image.

    Raises:
        UserError: the image was decoded from 16 bits to 8, so that its transparent pixels are not known.
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
                "it was decoded from 16 bits to 8, in which its transparent colour equals colours close to it: give the file, its"
                " bytes, or the image before it is loaded"
            )
        image = image.copy()
        del image.info["transparency"]
    return image


def _where(image: Image.Image, colour: Sequence[int]) -> Image.Image:
    """Mask of an RGB image: 255 where it has the colour, else 0."""
    bands = [
        band.point([255 * (level == value) for level in range(256)])
        for band, value in zip(image.split(), colour, strict=True)
    ]
    return functools.reduce(ImageChops.darker, bands)


# TGA, ICO -------------------------------------------------------------------------------------------------------------


def _tga_without_alpha(file: Any, data: bytes) -> None:
    """Ignore the alpha channel of a TGA file if its extension area says that it is none, or its header has no attribute bits.

    The type of alpha in the extension area has precedence over the number of attribute bits in the header.
    """
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
            "its TGA pixels are 16 bits of grey without alpha, which is not supported: convert it to 8 bits"
        )
    if file.mode == "RGBA":
        file._mode = "RGB"
        file.tile = [tile._replace(args=(OPAQUE[tile.args[0]], *tile.args[1:])) for tile in file.tile]
    palette = file.palette if file.mode == "P" else None
    if (
        palette is not None and palette.rawmode == "BGRA" and not any(palette.palette[3::4])
    ):  # the attribute bits are those of pixels, not of the palette
        palette.rawmode, palette.mode = "BGRX", "RGB"


def _is_bitmap(file: Any) -> bool:
    """Whether the image of an icon is a bitmap (else it is a PNG)."""
    header = file.ico.entry[file.ico.getentryindex(file.size)]
    file.ico.buf.seek(header.offset)
    return bool(file.ico.buf.read(4) != b"\x89PNG")


def _icon_mask(file: Any) -> Image.Image | None:
    """The 1-bit mask after the pixels of an icon, as an alpha channel; None if there is none."""
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
