"""Detect the kind of a file by its first bytes, to name a file that was given to a slot of another modality."""

IMAGE, VIDEO, AUDIO, TEXT = "an image", "a video", "an audio file", "a text file"

# First bytes -> kind of file. Longer ones must come before their own prefixes.
STARTS: tuple[tuple[bytes, str], ...] = (
    *((start, IMAGE) for start in (b"\xff\xd8\xff", b"\x89PNG\r\n", b"GIF8", b"BM", b"II*\0", b"MM\0*", b"8BPS")),
    *((start, IMAGE) for start in (b"\0\0\x01\0", b"\0\0\0\x0cjP  ", b"\xffO\xffQ", b"P4\n", b"P5\n", b"P6\n")),
    *((start, IMAGE) for start in (b"MM\0+", b"II+\0", b"qoif", b"icns", b"DDS ")),
    *((start, VIDEO) for start in (b"\x1a\x45\xdf\xa3", b"FLV\x01", b"\0\0\x01\xba", b"\0\0\x01\xb3")),
    (b"\x30\x26\xb2\x75\x8e\x66\xcf\x11", VIDEO),  # ASF: WMV
    *((start, AUDIO) for start in (b"fLaC", b"ID3", b"FORM", b".snd", b"#!AMR", b"caff", b"wvpk")),
    *((bytes([0xFF, second]), AUDIO) for second in (0xFB, 0xFA, 0xF3, 0xF2, 0xE3, 0xF1, 0xF9)),  # MP3 and AAC frames
    (b"%PDF", "a PDF document"),
    (b"PK\x03\x04", "a ZIP archive"),
    (b"\x1f\x8b", "a gzip archive"),
)
IMAGE_BRANDS = (b"heic", b"heix", b"mif1", b"msf1", b"avif", b"avis")  # of files with MP4's box structure
AUDIO_BRANDS = (b"M4A ", b"M4B ", b"M4P ")
RIFF = {b"WAVE": AUDIO, b"AVI ": VIDEO, b"WEBP": IMAGE}
BOXES = (b"ftyp", b"moov", b"mdat", b"wide", b"free", b"skip")  # types of the first box of MP4 and QuickTime files
LOOKED_AT = 4096  # bytes that are checked for being text


# Image formats that are not supported: position and bytes of their mark, name of the format.
UNREAD_IMAGES: tuple[tuple[int, bytes, str], ...] = (
    (0, b"%!PS", "an EPS or PostScript file"),
    (0, b"\xc5\xd0\xd3\xc6", "an EPS file"),
    (0, b"\xd7\xcd\xc6\x9a", "a WMF file"),
    (40, b" EMF", "an EMF file"),
    *((8, brand, "a HEIF file") for brand in (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx")),
    (0, b"\xff\x0a", "a JPEG XL file"),
    (0, b"\0\0\0\x0cJXL ", "a JPEG XL file"),
    (0, b"II\xbc\x01", "a JPEG XR file"),
    (0, b"v/1\x01", "an OpenEXR file"),
    (0, b"#?RADIANCE", "a Radiance HDR file"),
    (0, b"SIMPLE  =", "a FITS file"),
    *((0, start, "a BLP file") for start in (b"BLP1", b"BLP2")),
    (0, b"gimp xcf", "a GIMP file"),
    (0, b"/* XPM */", "an XPM file"),
    (0, b"Y\xa6j\x95", "a Sun raster file"),
    (0, b"AT&TFORM", "a DjVu file"),
    *((4, mark + b"\0\0", "an FLI animation") for mark in (b"\x11\xaf", b"\x12\xaf")),
    (0, b"\xb1h\xde:", "a DCX file"),
    *((0, start, "an MSP file") for start in (b"DanM", b"LinS")),
    (0, b"FTEX", "an FTEX texture"),
    (0, b"<svg", "an SVG file"),
)


def unread_image(data: bytes) -> str | None:
    """Name of an image format that is not supported, because it is a program, a vector drawing, or needs another decoder; else None."""
    for place, mark, name in UNREAD_IMAGES:
        if data.startswith(mark, place):
            return name
    return "an SVG file" if data.lstrip()[:5] == b"<?xml" and b"<svg" in data[:LOOKED_AT] else None


def kind_of(data: bytes) -> str | None:
    """Kind of a file: ``an image``, ``a video``, ``an audio file``, ``a text file``, …; None if it is unknown.

    Containers count as what they are made for: an MP4 file without a video stream is a video.
    """
    if unread_image(data):
        return IMAGE
    if data[:4] in (b"RIFF", b"RF64"):
        return RIFF.get(data[8:12])
    if data[4:8] in BOXES:
        brand = data[8:12] if data[4:8] == b"ftyp" else b""
        return IMAGE if brand in IMAGE_BRANDS else AUDIO if brand in AUDIO_BRANDS else VIDEO
    if data[:4] == b"OggS":
        return VIDEO if b"\x80theora" in data[:256] else AUDIO
    for start, kind in STARTS:
        if data.startswith(start):
            return kind
    if data[:1] == b"\x47" and data[188:189] == b"\x47":  # packets of an MPEG transport stream
        return VIDEO
    return TEXT if _is_text(data[:LOOKED_AT]) else None


def _is_text(head: bytes) -> bool:
    try:
        text = head.decode("utf-8")
    except UnicodeDecodeError as error:
        if error.start < len(head) - 3:  # else the last character is incomplete
            return head[:2] in (b"\xff\xfe", b"\xfe\xff")  # UTF-16
        text = head[: error.start].decode("utf-8")
    return bool(text) and all(character.isprintable() or character in "\t\n\r\f\ufeff" for character in text)


def other_kind(data: bytes, takes: tuple[str, ...]) -> str | None:
    """Kind of a file if it is known and not among the kinds that a slot takes; else None."""
    kind = kind_of(data)
    return kind if takes and kind not in takes else None
