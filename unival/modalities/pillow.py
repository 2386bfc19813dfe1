"""Read image files from untrusted sources with Pillow.

A format is decoded only if it is in :data:`FORMATS` (Pillow would start Ghostscript for a PostScript file), memory is checked before
pixels are decoded, and every error of a decoder becomes a UserError of one line. Pillow's plugins are called directly, because
``Image.open`` limits pixels only by ``Image.MAX_IMAGE_PIXELS``, and Pillow's process-wide settings must not change.
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

from unival.errors import UserError, counted
from unival.modalities import kinds, mends
from unival.modalities.pixels import ALPHA_MODES, BYTES, GREY, SIDEWAYS, is_transparent, orientation, to_rgb, upright

# Formats that Pillow decodes within this process. Formats without a distinctive header (DIB, TGA) come last.
FORMATS = (
    *("JPEG", "PNG", "GIF", "BMP", "PPM", "WEBP", "TIFF", "AVIF", "JPEG2000", "ICO", "ICNS", "PSD", "QOI", "SGI", "PCX"),
    *("DDS", "DIB", "TGA"),
)
MAX_MEMORY = 512 * 2**20  # bytes for decoding one image: 67 million pixels in RGB, more in grey and for JPEGs
# Bytes per pixel that decoders need in addition to the image
DECODER_BYTES = {"WEBP": 12, "AVIF": 10, "JPEG2000": 20}
PYTHON_DECODER_BYTES = 8  # decoders written in Python hold the pixels twice
WORDS = 200  # characters of a decoder's message that are shown
UNDERSTOOD = (OSError, ValueError, SyntaxError, EOFError)  # errors whose messages are about the file


class FormatError(UserError):
    """The bytes are not in a supported format."""


def read_image(data: bytes, least: int, published: bool = False) -> Image.Image:
    """Read the first image of a file as a person sees it: upright, on white, in mode RGB or L. See :func:`read_sized_image`."""
    return read_sized_image(data, least, published)[0]


def read_sized_image(data: bytes, least: int, published: bool = False) -> tuple[Image.Image, tuple[int, int]]:
    """Read the first image of a file as a person sees it: upright, on white, in mode RGB or L.

    Args:
        data: bytes of the file.
        least: a JPEG may be decoded at a reduced scale, with sides of at least this many pixels.
        published: read the image as the published code does, by ``convert("RGB")``: not rotated, colours of transparent pixels shown,
            values above 255 clipped.

    Returns:
        The image, and the width and height that it has without a reduced scale.

    Raises:
        UserError: the bytes are not an image of a supported format, or are broken, truncated, or need too much memory.
    """
    with decoding("image", data):
        file, full = open_scaled(data, least, published)
        return decoded(file, data, full, published)


def open_scaled(data: bytes, least: int, published: bool) -> tuple[Any, tuple[int, int]]:
    """Open an image file for :func:`decoded`, at a reduced scale if it is a large JPEG, and check that its pixels fit into memory.

    Arguments as in :func:`read_sized_image`; call this within :func:`decoding`.

    Returns:
        Pillow's image, not decoded yet, and the width and height that it has without a reduced scale.
    """
    file = open_image(data)
    buffered = _coefficients(file, data) if file.format in ("JPEG", "MPO") else 0
    full = file.size
    file.draft("RGB", (least, least))  # has an effect on JPEGs only
    check_memory(file, buffered + (4 * math.prod(file.size) if published else mends.extra_memory(file)))
    if published and getattr(file, "is_mended", False):
        raise UserError("the published code cannot read its TIFF pixels: use --image-fit seen, or convert it")
    return file, full


def decoded(file: Any, data: bytes, full: tuple[int, int], published: bool) -> tuple[Image.Image, tuple[int, int]]:
    """The pixels of a file that :func:`open_scaled` opened; results as those of :func:`read_sized_image`."""
    is_reduced = file.size != full
    if published:
        file.load()
        return (file if file.mode == "RGB" else file.convert("RGB")), (full if is_reduced else file.size)
    covered = file.tile[0][1] if file.format == "GIF" and file.tile else None
    image = to_rgb(mends.seen(file, data))
    turn = orientation(file)
    image = upright(image, turn)
    size = image.size if not is_reduced else full[::-1] if turn in SIDEWAYS else full
    if covered is not None and covered != (0, 0, *file.size) and "transparency" not in file.info:
        white = Image.new(image.mode, image.size, "white")  # around a frame that is smaller than its transparent canvas
        white.paste(image.crop(covered), covered[:2])
        return white, size
    return image, size


def size_of(data: bytes, published: bool = False) -> tuple[int, int]:
    """The width and height that :func:`read_sized_image` gives, from the header of a file alone: its pixels are not decoded.

    Raises:
        UserError: the bytes are not an image of a supported format.
    """
    with decoding("image", data):
        file = open_image(data)
        is_sideways = not published and orientation(file, decode=False) in SIDEWAYS
        return (file.height, file.width) if is_sideways else file.size


def open_image(data: bytes, formats: Sequence[str] = FORMATS) -> Any:
    """Open a file without decoding its pixels. Call this within :func:`decoding`.

    Args:
        data: bytes of the file.
        formats: formats to try, by Pillow's names.

    Returns:
        Pillow's image.

    Raises:
        FormatError: the file is in another format, or in an unknown one.
        Exception: anything that a plugin raises.
    """
    if not data:
        raise UserError("the file is empty")
    Image.preinit()
    reason: Exception | None = None
    for name in formats:
        if name not in Image.OPEN:
            Image.init()
        if name not in Image.OPEN:
            continue  # Pillow was built without it
        factory, accept = Image.OPEN[name]
        if name == "TIFF":
            factory = mends.TiffFile
        accepted = accept is None or accept(data[:16])
        if isinstance(accepted, str):  # the reason why Pillow cannot read it
            raise UserError(accepted)
        if not accepted:
            continue
        _check_embedded(name, data)
        try:
            file = _opened(factory, data)
        except (SyntaxError, IndexError, TypeError, struct.error) as error:  # a file of another format
            reason = reason or (error if accept is not None else None)
            continue
        mends.opened(file, data)
        return file
    if reason is not None:
        raise reason
    known = kinds.unread_image(data)
    raise FormatError(
        f"it is {known}; supported formats: {', '.join(sorted(formats))}"
        if known
        else f"unknown format ({counted(len(data), 'byte')})"
    )


def _opened(factory: Any, data: bytes) -> Any:
    try:
        return factory(io.BytesIO(data), "")
    except ValueError as error:
        if "Exif" not in str(error):
            raise
        # libavif refuses AVIF files with broken EXIF, although it does not use it: hide it
        return factory(io.BytesIO(data.replace(b"Exif", b"skip")), "")


@contextlib.contextmanager
def decoding(what: str, data: bytes | None = None) -> Iterator[None]:
    """Turn everything that Pillow raises into a UserError of one line, and silence its warnings.

    Args:
        what: what is decoded, for the message ("image").
        data: bytes of the file, whose size the message gives.
    """
    try:
        with quiet():
            yield
    except FormatError as error:
        raise UserError(f"cannot decode the {what}: {error}") from error
    except Exception as error:
        text = " ".join(str(error).split())[:WORDS]
        if not isinstance(error, UNDERSTOOD) and not isinstance(error, UserError):
            text = f"its content is broken ({type(error).__name__}{text and ': '}{text})"
        size = "" if data is None else f" ({counted(len(data), 'byte')})"
        raise UserError(f"cannot decode the {what}{size}: {text or type(error).__name__}") from error


# Memory ---------------------------------------------------------------------------------------------------------------


def check_memory(file: Any, more: int = 0) -> None:
    """Raise an error if the pixels, with the copies that :func:`read_image` makes of them, need more than :data:`MAX_MEMORY`.

    Args:
        file: Pillow's image, not decoded yet.
        more: additional bytes that are needed.

    Raises:
        UserError: names the size and the memory.
    """
    result = 1 if file.mode in GREY else 4
    is_result = file.mode in ("L", "RGB") and not is_transparent(file)
    copies = (0 if is_result else result) + (result if orientation(file, decode=False) != 1 else 0)
    extra = DECODER_BYTES.get(file.format or "", 0)
    if any(tile[0] in Image.DECODERS for tile in file.tile):
        extra = PYTHON_DECODER_BYTES
    if file.format == "TIFF":
        if file.info.get("compression") == "webp":  # Pillow's libtiff has no decoder, and says so on standard error
            raise UserError("its TIFF strips are compressed with WebP, which is not supported")
        more += _tiff_chunk(file)
    _check_bytes(file.size, math.prod(file.size) * (BYTES.get(file.mode, 4) + copies + extra) + more)


def _check_bytes(size: tuple[int, int], memory: int) -> None:
    if memory > MAX_MEMORY:
        raise UserError(
            f"it has {size[0]} x {size[1]} pixels; decoding them would need {math.ceil(memory / 2**20):,} MB, but the limit is"
            f" {MAX_MEMORY // 2**20} MB: make it smaller"
        )


def _coefficients(file: Any, data: bytes) -> int:
    """Bytes that libjpeg needs for a JPEG with several scans: all coefficients at full size, two bytes each, whatever the scale."""
    if "progressive" not in file.info and _in_first_scan(data) == file.layers:
        return 0
    samples = [(vertical, horizontal) for _, vertical, horizontal, _ in file.layer]
    most = max(max(v for v, _ in samples), 1) * max(max(h for _, h in samples), 1)
    return 2 * math.prod(file.size) * sum(v * h for v, h in samples) // most


def _in_first_scan(data: bytes) -> int:
    """Number of components in the first scan of a JPEG."""
    place = 2
    while place + 4 < len(data):
        marker = data[place + 1] if data[place] == 0xFF else None
        if marker == 0xDA:
            return data[place + 4]
        if marker is None or marker == 0xFF or marker <= 1 or 0xD0 <= marker <= 0xD9:  # no segment follows
            place += 1
        else:
            place += 2 + int.from_bytes(data[place + 2 : place + 4], "big")
    return 0


def _tiff_chunk(file: Any) -> int:
    """Bytes of a decompressed strip or tile of a TIFF file; tiles may be larger than the image."""
    tags = file.tag_v2
    bits = sum(tags.get(258, (8,))) if isinstance(tags.get(258, (8,)), tuple) else 8
    samples = max(int(tags.get(277, 1)), 1)
    bytes_per_pixel = max(bits, samples * 8) / 8
    width, height = file.size
    if 322 in tags and 323 in tags:
        return int(int(tags[322]) * int(tags[323]) * bytes_per_pixel)
    return int(width * min(int(tags.get(278, height)), height) * bytes_per_pixel) if file.use_load_libtiff else 0


def _check_embedded(name: str, data: bytes) -> None:
    """Check sizes that a plugin allocates before it reports them: of WebP, of images in icons, of JPEG 2000 streams."""
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


# PIL images instead of files ------------------------------------------------------------------------------------------


def as_file(image: Image.Image) -> bytes:
    """Convert a PIL image to the bytes of a file, for which :func:`read_image` gives the same result as for the original file.

    For an image that is not loaded yet, these are the bytes of its file. An image that was opened from a file and loaded (it has a
    ``format``) keeps its EXIF orientation. A new image made by ``rotate``, ``convert`` or ``exif_transpose`` is taken as upright,
    although Pillow keeps its EXIF. Modes that PNG does not have are converted to RGB, on white and scaled.

    Raises:
        UserError: it cannot be decoded, or the range of its values is unknown.
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
    """Bytes of the file of an image that is unchanged since it was opened (not decoded, no other frame or scale); else None."""
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

_state = threading.local()  # is_quiet: whether this thread is inside quiet()


class _FromPillow:
    """Filter for warnings and log records: matches those of Pillow in a thread that is inside :func:`quiet`."""

    def match(self, module: str) -> bool:
        return getattr(_state, "is_quiet", False) and module.split(".")[0] == "PIL"

    def filter(self, record: logging.LogRecord) -> bool:
        return not getattr(_state, "is_quiet", False)


_FROM_PILLOW = _FromPillow()
_IGNORED = ("ignore", None, Warning, _FROM_PILLOW, 0)


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Silence Pillow's warnings in this thread, also under ``-W error``.

    ``warnings.catch_warnings`` affects all threads, and overlapping uses restore wrong filters. The filter that is installed here stays
    installed, and has no effect outside this context.
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
