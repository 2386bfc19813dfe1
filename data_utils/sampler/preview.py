"""A picture of the first scenes of each split with their captions, for a person to look at."""

import pathlib
import textwrap
from collections.abc import Mapping, Sequence

from PIL import Image, ImageDraw

COLUMNS = 6
_WIDTH, _TEXT = 200, 60  # pixels of a column, and of the room for text under a scene
_SCENE = 192


def save(folder: pathlib.Path, tables: Mapping[str, Sequence[dict]], path: pathlib.Path, rows: int = 1) -> None:
    """Writes `path` (PNG): `rows` rows of COLUMNS scenes for each split in `tables`, the split's name in front."""
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
            with Image.open(folder / record["image"]) as picture:
                sheet.paste(picture.resize((_SCENE, _SCENE), Image.Resampling.BICUBIC), (left, top))
            text = textwrap.fill(f"{split}: {record['caption'][0]}", 32, max_lines=4)
            draw.multiline_text((left, top + _SCENE + 1), text, fill="black", spacing=1)
    sheet.save(path)
