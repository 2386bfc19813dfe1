"""unival: one sequence-to-sequence model for image, video, audio and text, as a fairseq plugin.

Importing this package (or ``--user-dir unival``) registers tasks, models and criterions and allows the one class that fairseq's
checkpoints pickle (``argparse.Namespace``), so that they load with ``weights_only=True``.
"""

import argparse
import logging

import torch

torch.serialization.add_safe_globals([argparse.Namespace])

_level, _handlers = logging.root.level, list(logging.root.handlers)

from unival import criterions as _criterions  # noqa: E402,F401
from unival import tasks as _tasks  # noqa: E402,F401
from unival.models import unival as _models  # noqa: E402,F401

# Importing fairseq sets the root logger to DEBUG with a handler of its own: the application decides that, not an import.
logging.root.setLevel(_level)
logging.root.handlers[:] = _handlers

__version__ = "0.1.0"
