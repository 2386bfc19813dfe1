"""Keeps decoded media: in memory up to a limit, beyond it in a temporary file that is mapped."""

import math
import tempfile
from typing import Any

import numpy as np
import torch
from torch import Tensor

SEGMENT = 1 << 30  # bytes of a file; what is not written takes no room on most disks
ALIGNED = 64  # bytes


class MediaStore:
    """The media of batches.

    Args:
        most: bytes that are kept in memory.
    """

    def __init__(self, most: int):
        self.most = most
        self.in_memory = self.in_files = 0  # bytes
        self._segment: Tensor = torch.empty(0, dtype=torch.uint8)
        self._end = 0  # of what the segment holds

    def keep(self, batch: dict[str, Any]) -> dict[str, Any]:
        """A batch whose media are kept; the others of its values are small, and stay as they are."""
        for group in batch["net_input"]["groups"]:
            for item in group.get("media", ()):
                item["values"] = self._kept(item["values"])
        return batch

    def _kept(self, values: Tensor) -> Tensor:
        size = values.nbytes
        if self.in_memory + size <= self.most or not size:
            self.in_memory += size
            return values
        self.in_files += size
        room = math.ceil(size / ALIGNED) * ALIGNED
        if self._end + room > len(self._segment):
            with tempfile.TemporaryFile() as file:  # has no name, and goes with the last tensor in it
                mapped = np.memmap(file, dtype=np.uint8, mode="w+", shape=max(SEGMENT, room))
            self._segment, self._end = torch.from_numpy(mapped), 0
        part = self._segment[self._end : self._end + size]
        self._end += room
        return part.view(values.dtype).view(values.shape).copy_(values)
