"""What a reader of a data set gives, and what it is given."""

import pathlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from common.files import Source

from unival.errors import UserError

from .held_out import HeldOut


@dataclass
class Row:
    """A row of a table.

    Attributes:
        table: its table.
        id: its id in the data set.
        media: the paths below ``--media-root`` that its file may have; the first that exists is taken.
        values: the other columns; a text, an answer or a box that is empty makes the row left out.
        coco: COCO's id of the image, if it is one of COCO's.
        flickr: Flickr's id of the image, if it is one of Flickr's.
        content: the file, where it is to be unpacked to the first path of ``media``.
    """

    table: str
    id: int | str
    media: Sequence[str]
    values: dict[str, Any]
    coco: int | None = None
    flickr: int | None = None
    content: bytes | None = None


@dataclass
class Context:
    """What a reader may ask for.

    Attributes:
        name: name of the data set.
        source: the folder with its own files.
        sources: the folders of all data sets of the run, by their names.
        held_out: the images of benchmarks.
        media_root: the folder of the media; None: nobody looks whether files are there.
        note: says something about the data.
    """

    name: str
    source: Source
    sources: Mapping[str, Source]
    held_out: HeldOut
    media_root: pathlib.Path | None
    note: Callable[[str], None]

    def below_root(self, *names: str) -> list[str]:
        """Where files below the media root may be: in the folder of the data set, or not."""
        return [f"{folder}{name}" for name in names for folder in ("", f"{self.name}/")]

    def root_for(self, what: str) -> pathlib.Path:
        """The media root, for a reader that needs one."""
        if self.media_root is None:
            raise UserError(f"{self.source.where}: {what}; give --media-root")
        return self.media_root


@dataclass(frozen=True)
class Table:
    """A table: what a stream makes of its rows, and how many rows the complete files have (None: nobody says)."""

    stream: str
    rows: int | None = None


@dataclass(frozen=True)
class Reader:
    """A reader of a data set.

    Attributes:
        tables: its tables by name.
        column: the column with the media, named as their modality.
        rows: gives the rows.
        is_checked: whether its images may be those of benchmarks.
    """

    tables: Mapping[str, Table]
    column: str
    rows: Callable[[Context], Iterator[Row]]
    is_checked: bool = True


def corners(box: Sequence[float], width: float, height: float) -> list[float] | None:
    """The edges of a box of x, y, width and height, cut to the image; None: nothing of it is in the image."""
    x, y, right, bottom = box[0], box[1], box[0] + box[2], box[1] + box[3]
    edges = [max(x, 0), max(y, 0), min(right, width), min(bottom, height)]
    return edges if edges[0] < edges[2] and edges[1] < edges[3] else None
