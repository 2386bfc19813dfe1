"""The folder of a data set's images, videos or audio files: which of the paths that a file may have is there."""

import os
from collections import OrderedDict
from collections.abc import Sequence

from unival.errors import UserError

MOST_NAMES = 1_000_000  # names that are remembered of folders: some 100 MB


class MediaRoot:
    """The folder of the media; folders are listed once, since there are hundreds of thousands of files.

    Args:
        folder: the folder; None: nobody looks whether files are there.
        most: names that are remembered; beyond these the folders that were used least recently are forgotten.

    Raises:
        UserError: there is no such folder.
    """

    def __init__(self, folder: str | None, most: int = MOST_NAMES):
        self.folder = folder
        self._most = most
        self._names: OrderedDict[str, set[str]] = OrderedDict()
        self._count = 0
        if folder is not None and not os.path.isdir(folder):
            raise UserError(f"--media-root {folder}: there is no such folder")

    def choose(self, paths: Sequence[str]) -> str | None:
        """The first path that exists; None if none does. Without a folder, the first one."""
        if self.folder is None:
            return paths[0]
        return next((path for path in paths if self._exists(path)), None)

    def _exists(self, path: str) -> bool:
        folder, name = os.path.split(path)
        return name in self._listed(folder)

    def _listed(self, folder: str) -> set[str]:
        if folder in self._names:
            self._names.move_to_end(folder)
            return self._names[folder]
        place = os.path.join(self.folder or "", folder)
        names = set(os.listdir(place)) if os.path.isdir(place) else set()
        self._names[folder] = names
        self._count += len(names) + 1
        while self._count > self._most and len(self._names) > 1:
            _, forgotten = self._names.popitem(last=False)
            self._count -= len(forgotten) + 1
        return names
