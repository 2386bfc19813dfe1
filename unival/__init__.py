"""unival: one sequence-to-sequence model for image, video, audio and text, as a fairseq plugin.

Importing this package costs nothing and changes nothing.  ``import unival.tasks`` registers tasks, models and criterions with fairseq;
``fairseq-train --user-dir unival`` does that, and allows what fairseq's checkpoints hold besides tensors (``unival.tasks.user_dir``).
"""

import importlib
from typing import Any

__version__ = "0.1.0"

# Names of the Python API that this package offers itself -> the module that defines them, which is imported when they are asked for.
_LAZY = {"from_checkpoint": "unival.hub", "UserError": "unival.errors"}

__all__ = ["__version__", *_LAZY]


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_LAZY[name]), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *_LAZY])
