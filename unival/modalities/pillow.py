"""Image files through Pillow: which formats are decoded, within how much memory, and every failure as one line.

Files come from anywhere, so a format is read only if it is in :data:`FORMATS` (Pillow would start Ghostscript for a PostScript file),
memory is bounded before pixels are decoded, and whatever a decoder raises becomes a UserError.  Nothing here changes Pillow's
process-wide settings: plugins are called themselves, since ``Image.open`` bounds pixels by ``Image.MAX_IMAGE_PIXELS`` alone.
"""

import contextlib
import io
import logging
import math
import struct
import threading
import warnings
from collections.abc import Iterator, Sequence
from typing import Any

from PIL import Image

from unival.errors import UserError
from unival.modalities import kinds, mends
from unival.modalities.pixels import ALPHA_MODES, BYTES, GREY, SIDEWAYS, is_transparent, orientation, to_rgb, upright

# What is decoded within this process by Pillow's own code.  Those that begin like others (DIB) or like nothing (TGA) come last.
FORMATS = (
    *("JPEG", "PNG", "GIF", "BMP", "PPM", "WEBP", "TIFF", "AVIF", "JPEG2000", "ICO", "ICNS", "PSD", "QOI", "SGI", "PCX"),
    *("DDS", "DIB", "TGA"),
)
MAX_MEMORY = 512 * 2**20  # bytes that decoding one image may take: 67 million pixels of RGB, more of grey ones and of JPEGs
# Bytes per pixel that decoders take beside the image that they fill
DECODER_BYTES = {"WEBP": 12, "AVIF": 10, "JPEG2000": 20}
PYTHON_DECODER_BYTES = 8  # those that are written in Python collect the pixels twice
WORDS = 200  # characters of a decoder's message
UNDERSTOOD = (OSError, ValueError, SyntaxError, EOFError)  # their messages are about the file


class FormatError(UserError):
    """The bytes are in no format that is read."""


def read_image(data: bytes, least: int, published: bool = False) -> Image.Image:
    """The first image of a file as a person sees it: upright, on white, in mode RGB or L.  See :func:`read_sized_image`."""
    return read_sized_image(data, least, published)[0]


def read_sized_image(data: bytes, least: int, published: bool = False) -> tuple[Image.Image, tuple[int, int]]:
    """The first image of a file as a person sees it, and its width and height there: that of JPEGs is decoded at a reduced scale.

    Args:
        least: JPEGs are decoded at a reduced scale whose sides are still at least this many pixels.
        published: as the original reads images instead, by ``convert("RGB")``: not turned, hidden colours shown, high values clipped.

    Raises:
        UserError: the bytes are no image that is read, a broken or truncated one, or one that takes too much memory.
    """
    with decoding("image", data):
        file = open_image(data)
        buffered = _coefficients(file, data) if file.format in ("JPEG", "MPO") else 0
        full = file.size
        file.draft("RGB", (least, least))  # only JPEG heeds this
        is_reduced = file.size != full
        check_memory(file, buffered + (4 * math.prod(file.size) if published else mends.extra_memory(file)))
        if published:
            if getattr(file, "is_mended", False):
                raise UserError("its TIFF pixels are of a kind that the published code does not read: use --image-fit seen, or convert it")
            file.load()
            return (file if file.mode == "RGB" else file.convert("RGB")), (full if is_reduced else file.size)
        covered = file.tile[0][1] if file.format == "GIF" and file.tile else None
        image = to_rgb(mends.seen(file, data))
        turn = orientation(file)
        image = upright(image, turn)
        size = image.size if not is_reduced else full[::-1] if turn in SIDEWAYS else full
        if covered is not None and covered != (0, 0, *file.size) and "transparency" not in file.info:
            white = Image.new(image.mode, image.size, "white")  # a frame smaller than its canvas, the rest of which is transparent
            white.paste(image.crop(covered), covered[:2])
            return white, size
        return image, size


def open_image(data: bytes, formats: Sequence[str] = FORMATS) -> Any:
    """Pillow's lazy image of a file in one of these formats; pixels are not decoded yet.  Call it within :func:`decoding`.

    Raises:
        FormatError: it is in another format, or in none that is known.
        Exception: whatever a plugin raises.
    """
    if not data:
        raise UserError("the file is empty")
    Image.preinit()
    reason: Exception | None = None
    for name in formats:
        if name not in Image.OPEN:
            Image.init()
        if name not in Image.OPEN:
            continue  # this Pillow was built without it
        factory, accept = Image.OPEN[name]
        if name == "TIFF":
            factory = mends.TiffFile
        accepted = accept is None or accept(data[:16])
        if isinstance(accepted, str):  # why it cannot be read here
            raise UserError(accepted)
        if not accepted:
            continue
        _check_embedded(name, data)
        try:
            file = _opened(factory, data)
        except (SyntaxError, IndexError, TypeError, struct.error) as error:  # how plugins say that it is not theirs
            reason = reason or (error if accept is not None else None)
            continue
        mends.opened(file, data)
        return file
    if reason is not None:
        raise reason
    known = kinds.unread_image(data)
    raise FormatError(
        f"it is {known}; formats read: {', '.join(sorted(formats))}"
        if known
        else f"its {len(data)} bytes are in no known format"
    )


def _opened(factory: Any, data: bytes) -> Any:
    try:
        return factory(io.BytesIO(data), "")
    except ValueError as error:
        if "Exif" not in str(error):
            raise
        # libavif refuses AVIF files whose EXIF is broken, of which it uses nothing: hide that from it.
        return factory(io.BytesIO(data.replace(b"Exif", b"skip")), "")


@contextlib.contextmanager
def decoding(what: str, data: bytes | None = None) -> Iterator[None]:
    """Turn whatever Pillow raises into a UserError of one line, and keep its warnings to itself; ``data`` is what the file holds."""
    try:
        with quiet():
            yield
    except FormatError as error:
        raise UserError(f"cannot decode the {what}: {error}") from error
    except Exception as error:
        text = " ".join(str(error).split())[:WORDS]
        if not isinstance(error, UNDERSTOOD) and not isinstance(error, UserError):
            text = f"its contents are broken ({type(error).__name__}{text and ': '}{text})"
        size = "" if data is None else f" ({len(data)} bytes)"
        raise UserError(f"cannot decode the {what}{size}: {text or type(error).__name__}") from error


# Memory ---------------------------------------------------------------------------------------------------------------


def check_memory(file: Any, more: int = 0) -> None:
    """Refuse an image whose pixels, with the copies that :func:`read_image` makes of them, would take more than :data:`MAX_MEMORY`.

    Args:
        file: not decoded yet.
        more: bytes that are needed besides.

    Raises:
        UserError: with the size and the memory.
    """
    result = 1 if file.mode in GREY else 4
    is_result = file.mode in ("L", "RGB") and not is_transparent(file)
    copies = (0 if is_result else result) + (result if orientation(file, decode=False) != 1 else 0)
    extra = DECODER_BYTES.get(file.format or "", 0)
    if any(tile[0] in Image.DECODERS for tile in file.tile):
        extra = PYTHON_DECODER_BYTES
    if file.format == "TIFF":
        if file.info.get("compression") == "webp":  # Pillow's libtiff has no decoder, and says so on standard error
            raise UserError("its TIFF strips are compressed by WebP, which is not read")
        more += _tiff_chunk(file)
    _check_bytes(file.size, math.prod(file.size) * (BYTES.get(file.mode, 4) + copies + extra) + more)


def _check_bytes(size: tuple[int, int], memory: int) -> None:
    if memory > MAX_MEMORY:
        raise UserError(
            f"it has {size[0]} x {size[1]} pixels; decoding them would take {math.ceil(memory / 2**20):,} MB, and"
            f" {MAX_MEMORY // 2**20} MB is the limit: make it smaller"
        )


def _coefficients(file: Any, data: bytes) -> int:
    """Bytes that libjpeg takes for a JPEG in several scans: all coefficients at full size, two bytes each, whatever the scale."""
    if "progressive" not in file.info and _in_first_scan(data) == file.layers:
        return 0
    samples = [(vertical, horizontal) for _, vertical, horizontal, _ in file.layer]
    most = max(max(v for v, _ in samples), 1) * max(max(h for _, h in samples), 1)
    return 2 * math.prod(file.size) * sum(v * h for v, h in samples) // most


def _in_first_scan(data: bytes) -> int:
    """How many components the first scan of a JPEG holds."""
    place = 2
    while place + 4 < len(data):
        marker = data[place + 1] if data[place] == 0xFF else None
        if marker == 0xDA:
            return data[place + 4]
        if marker is None or marker == 0xFF or marker <= 1 or 0xD0 <= marker <= 0xD9:  # nothing follows these
            place += 1
        else:
            place += 2 + int.from_bytes(data[place + 2 : place + 4], "big")
    return 0


def _tiff_chunk(file: Any) -> int:
    """Bytes of a strip or tile, which is decompressed as a whole; tiles may be larger than the image."""
    tags = file.tag_v2
    bits = sum(tags.get(258, (8,))) if isinstance(tags.get(258, (8,)), tuple) else 8
    samples = max(int(tags.get(277, 1)), 1)
    bytes_per_pixel = max(bits, samples * 8) / 8
    width, height = file.size
    if 322 in tags and 323 in tags:
        return int(int(tags[322]) * int(tags[323]) * bytes_per_pixel)
    return int(width * min(int(tags.get(278, height)), height) * bytes_per_pixel) if file.use_load_libtiff else 0


def _check_embedded(name: str, data: bytes) -> None:
    """Sizes that a plugin acts on before it says them, or does not say: those of WebP, of images in icons, of JPEG 2000 streams."""
    sizes: list[tuple[int, int]] = []
    if name == "WEBP":
        sizes.extend(_webp_size(data))
    elif name == "ICO":
        for i in range(struct.unpack_from("<H", data, 4)[0]):
            start = struct.unpack_from("<I", data, 6 + 16 * i + 12)[0]
            is_png = data[start : start + 4] == b"\x89PNG"
            sizes.append(struct.unpack_from(">II", data, start + 16) if is_png else struct.unpack_from("<ii", data, start + 4))
    elif name == "ICNS":
        sizes += [struct.unpack_from(">II", data, i + 16) for i in _places(data, b"\x89PNG\r\n\x1a\n")]
    if name in ("ICNS", "JPEG2000"):
        for i in _places(data, b"\xffO\xffQ"):
            right, bottom, left, top = struct.unpack_from(">IIII", data, i + 8)
            sizes.append((right - left, bottom - top))
    bytes_per_pixel = 8 if name == "ICO" else 4 + DECODER_BYTES["WEBP" if name == "WEBP" else "JPEG2000"]
    for width, height in sizes:
        _check_bytes((width, height), abs(width * height) * bytes_per_pixel)


def _webp_size(data: bytes) -> Iterator[tuple[int, int]]:
    if data[12:16] == b"VP8X":
        yield int.from_bytes(data[24:27], "little") + 1, int.from_bytes(data[27:30], "little") + 1
    elif data[12:16] == b"VP8L":
        bits = int.from_bytes(data[21:25], "little")
        yield (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
    elif data[12:16] == b"VP8 ":
        width, height = struct.unpack_from("<HH", data, 26)
        yield width & 0x3FFF, height & 0x3FFF


def _places(data: bytes, mark: bytes) -> Iterator[int]:
    place = data.find(mark)
    while place >= 0:
        yield place
        place = data.find(mark, place + 1)


# Images that programs hand over ---------------------------------------------------------------------------------------


def as_file(image: Image.Image) -> bytes:
    """The bytes of a file that :func:`read_image` reads as it would read the file that a PIL image came from.

    An image that is not loaded yet is its file.  Of the others, those as opened from a file (they have a ``format``) are turned
    upright by their EXIF; what a program made of such an image (``rotate``, ``convert``, ``exif_transpose``; Pillow keeps the EXIF of
    those) is as it is.  Modes that PNG lacks are made RGB here, on white and scaled, whatever the image's options.

    Raises:
        UserError: it cannot be decoded, or its values have no known range.
    """
    with decoding("image"):
        if not image.width or not image.height:
            raise UserError(f"it has {image.width} x {image.height} pixels")
        data = _not_loaded(image)
        if data is not None:
            return data
        if getattr(image, "tile", None):
            check_memory(image)
        image.load()
        turn = 1 if image.format is None else orientation(image)
        image = mends.loaded(image)
        if image.mode in ALPHA_MODES:
            image = image.convert("LA").convert("RGBA") if image.mode == "La" else image.convert("RGBA")
        elif image.mode not in ("1", "L", "P", "RGB", "I;16") or image.format == "TIFF":
            image = to_rgb(image)
        exif = Image.Exif()
        if turn != 1:
            exif[0x0112] = turn
        buffer = io.BytesIO()
        image.save(buffer, format="PNG", exif=exif.tobytes() if turn != 1 else None, icc_profile=None)
        return buffer.getvalue()


def _not_loaded(image: Any) -> bytes | None:
    """The file of an image that is as opened: its pixels are not decoded, nor another frame or scale chosen."""
    is_loaded = "timestamp" in image.info if image.format == "WEBP" else not getattr(image, "tile", None)
    if is_loaded or image.format not in FORMATS or image.tell() or (image.format == "JPEG" and image.decoderconfig):
        return None
    stream = getattr(image, "fp", None)
    if stream is None or getattr(stream, "closed", False):
        return None
    place = stream.tell()
    stream.seek(0)
    data = stream.read()
    stream.seek(place)
    return bytes(data)


# Warnings -------------------------------------------------------------------------------------------------------------

_state = threading.local()  # whether this thread is within quiet()


class _FromPillow:
    """What the filters of warnings and logs ask: is this of Pillow, in a thread that is within :func:`quiet`?"""

    def match(self, module: str) -> bool:
        return getattr(_state, "is_quiet", False) and module.split(".")[0] == "PIL"

    def filter(self, record: logging.LogRecord) -> bool:
        return not getattr(_state, "is_quiet", False)


_FROM_PILLOW = _FromPillow()
_IGNORED = ("ignore", None, Warning, _FROM_PILLOW, 0)


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Pillow's warnings of this thread are not shown, nor made errors by ``-W error``.

    ``warnings.catch_warnings`` changes all threads, and two that overlap leave the filters of one behind; this filter stays, and
    says nothing outside of here.
    """
    if list(warnings.filters[:1]) != [_IGNORED]:
        warnings.filters.insert(0, _IGNORED)  # type: ignore[attr-defined]
    logging.getLogger("PIL.TiffImagePlugin").addFilter(_FROM_PILLOW)
    before = getattr(_state, "is_quiet", False)
    _state.is_quiet = True
    try:
        yield
    finally:
        _state.is_quiet = before
