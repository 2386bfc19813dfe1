"""A row for each image, video or recording, with lists of what is said of it, as ``--builder grouped`` reads them."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any


class RowsPerFile:
    """Rows by file; rows of one file that have other columns than its others become a row of their own."""

    def __init__(self) -> None:
        self._rows: dict[tuple[str, ...], list[Mapping[str, Any]]] = {}  # file and columns -> cells

    def add(self, file: str, cells: Mapping[str, Any]) -> None:
        """Add a row: its file, and the cells that become part of lists."""
        self._rows.setdefault((file, *cells), []).append(cells)

    def __iter__(self) -> Iterator[tuple[str, dict[str, list[Any]]]]:
        """The files, in the order in which they came, and the lists of each."""
        for (file, *columns), rows in self._rows.items():
            yield file, {column: [row[column] for row in rows] for column in columns}


def by_file(rows: Iterable[Mapping[str, Any]], medium: str, nested: Sequence[str] = ()) -> list[dict[str, Any]]:
    """Join rows to one for each file; ``id`` is the file.

    Args:
        rows: have columns ``id`` and ``medium``, whose cells are files.
        medium: the column of files.
        nested: columns whose cells are lists of one in the lists.
    """
    files = RowsPerFile()
    for row in rows:
        cells = {column: cell for column, cell in row.items() if column not in ("id", medium)}
        files.add(row[medium], {column: [cell] if column in nested else cell for column, cell in cells.items()})
    return [{"id": file, medium: file, **lists} for file, lists in files]
