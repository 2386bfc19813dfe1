"""unival: one sequence-to-sequence model for image, video, audio and text, as a fairseq plugin.

Importing this package (or ``--user-dir unival``) registers tasks, models and criterions and allows what fairseq's checkpoints pickle
besides tensors (``argparse.Namespace``, and stand-ins for numbers as numpy keeps them), so that they load with ``weights_only=True``.
"""

import logging
import os

import torch

from unival.checkpoints.files import SAFE_GLOBALS

torch.serialization.add_safe_globals(SAFE_GLOBALS)
if os.environ.pop("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", None):  # would let the checkpoints that fairseq reads run code
    logging.getLogger(__name__).warning("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD is ignored: checkpoints are only read safely")

_level, _handlers = logging.root.level, list(logging.root.handlers)

from unival import criterions as _criterions  # noqa: E402,F401
from unival import tasks as _tasks  # noqa: E402,F401
from unival.models import unival as _models  # noqa: E402,F401

# Importing fairseq sets the root logger to DEBUG with a handler of its own: the application decides that, not an import.
logging.root.setLevel(_level)
logging.root.handlers[:] = _handlers

__version__ = "0.1.0"
