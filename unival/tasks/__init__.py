"""Tasks: an instruction, a metric and the options of generation; importing this package registers them."""

from unival.tasks.base import UnivalTask
from unival.tasks.caption import CaptionTask

__all__ = ["CaptionTask", "UnivalTask"]
