"""Preview image of the first rows of each split with their captions."""

import pathlib
import textwrap
from collections.abc import Callable, Mapping, Sequence

import numpy as np
from PIL import Image, ImageDraw

COLUMNS = 6
_WIDTH, _TEXT = 200, 60  # pixels of a column, and of the room for text under a scene
_SCENE = 192
_STRIP = (588, 96)  # pixels of a film strip or a spectrogram
_STRIP_TEXT = 30
_STRIPS = 2  # side by side
_FILM = 6  # frames on a film strip


def save(folder: pathlib.Path, tables: Mapping[str, Sequence[dict]], path: pathlib.Path, rows: int = 1) -> None:
    """Write ``path`` (PNG): ``rows`` rows of COLUMNS scenes for each split in ``tables``, the split's name in front."""
    lines = [
        (split, records[start : start + COLUMNS])
        for split, records in tables.items()
        for start in range(0, min(len(records), rows * COLUMNS), COLUMNS)
    ]
    sheet = Image.new("RGB", (COLUMNS * _WIDTH, max(1, len(lines)) * (_SCENE + _TEXT)), "white")
    draw = ImageDraw.Draw(sheet)
    for line, (split, records) in enumerate(lines):
        for column, record in enumerate(records):
            left, top = column * _WIDTH + 4, line * (_SCENE + _TEXT) + 2
            with Image.open(folder / record["image"]) as image:
                sheet.paste(image.resize((_SCENE, _SCENE), Image.Resampling.BICUBIC), (left, top))
            text = textwrap.fill(f"{split}: {record['caption'][0]}", 32, max_lines=4)
            draw.multiline_text((left, top + _SCENE + 1), text, fill="black", spacing=1)
    sheet.save(path)


def save_strips(
    tables: Mapping[str, Sequence[dict]], path: pathlib.Path, strip: Callable[[dict], Image.Image], rows: int = 2
) -> None:
    """Write ``path`` (PNG): ``rows`` rows of two wide images, made by ``strip`` from a record, for each split."""
    lines = [
        (split, records[start : start + _STRIPS])
        for split, records in tables.items()
        for start in range(0, min(len(records), rows * _STRIPS), _STRIPS)
    ]
    width, height = _STRIP[0] + 12, _STRIP[1] + _STRIP_TEXT
    sheet = Image.new("RGB", (_STRIPS * width, max(1, len(lines)) * height), "white")
    draw = ImageDraw.Draw(sheet)
    for line, (split, records) in enumerate(lines):
        for column, record in enumerate(records):
            left, top = column * width + 6, line * height + 2
            sheet.paste(strip(record).resize(_STRIP, Image.Resampling.BICUBIC), (left, top))
            text = textwrap.fill(f"{split}: {record['caption'][0]}", 96, max_lines=2)
            draw.multiline_text((left, top + _STRIP[1] + 1), text, fill="black", spacing=1)
    sheet.save(path)


def film(frames: np.ndarray) -> Image.Image:
    """Six of ``frames`` (T x H x W x 3, uint8), from the first to the last, side by side."""
    chosen = frames[np.linspace(0, len(frames) - 1, _FILM).round().astype(int)]
    framed = np.pad(chosen, ((0, 0), (0, 0), (0, 2), (0, 0)), constant_values=255)
    return Image.fromarray(np.concatenate(list(framed), axis=1))


def spectrogram(path: pathlib.Path) -> Image.Image:
    """Spectrogram of an audio file: time to the right, frequency upwards (logarithmic, from 60 Hz), louder is brighter."""
    import soundfile

    samples, rate = soundfile.read(str(path), dtype="float64", always_2d=True)
    width, height = _STRIP
    window = rate // 20
    starts = np.linspace(0, max(0, len(samples) - window), width).astype(int)
    frames = np.pad(samples[:, 0], (0, window))[starts[:, None] + np.arange(window)] * np.hanning(window)
    power = np.abs(np.fft.rfft(frames, axis=1)) ** 2
    edges = np.geomspace(60, rate / 2, height + 1) * window / rate
    bins = np.minimum(edges.round().astype(int), power.shape[1] - 1)
    bands = np.stack([power[:, low : max(low + 1, high)].mean(1) for low, high in zip(bins, bins[1:], strict=False)])
    level = 10 * np.log10(bands[::-1] + 1e-12)
    shade = np.clip((level - level.max() + 60) / 60, 0, 1)
    return Image.fromarray((255 * shade).astype(np.uint8)).convert("RGB")
