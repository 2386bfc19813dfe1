"""What torch allocates on the CPU, and which tensors are pages of a file."""

import os
import pathlib
from collections.abc import Callable
from typing import Any

from torch import Tensor
from torch.profiler import ProfilerActivity, profile


def most_allocated(function: Callable[[], Any]) -> int:
    """The most bytes that a function has allocated at one time, those inside of operations included."""
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        function()
    events = [event for event in profiler.profiler.kineto_results.events() if event.name() == "[memory]"]
    held, most = 0, 0
    for event in sorted(events, key=lambda event: event.start_ns()):
        held += event.nbytes()
        most = max(most, held)
    return most


def is_mapped(value: Tensor, path: str | os.PathLike[str]) -> bool:
    """Whether a tensor's memory is that of a file (Linux)."""
    name = str(pathlib.Path(path).resolve())
    for line in pathlib.Path("/proc/self/maps").read_text(encoding="utf-8").splitlines():
        if line.endswith(name):
            start, stop = (int(part, 16) for part in line.split()[0].split("-"))
            if start <= value.data_ptr() < stop:
                return True
    return False
