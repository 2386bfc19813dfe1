"""What ``--user-dir unival`` does beyond registering: this process's ``torch.load`` takes what fairseq's checkpoints and processes hold.

fairseq imports every module of a plugin's ``tasks`` folder, and our tasks import this one when fairseq's commands set them up (also in
the processes that training on several GPUs starts).  Nothing else does: the Python API and our own commands read files with
``unival.checkpoints.files``, which allows nothing beyond a call.
"""

import logging
import os
from typing import Any

import torch
from fairseq.distributed.utils import _TensorPlaceholder

from unival.checkpoints.files import SAFE_GLOBALS
from unival.checkpoints.inert import Forgotten

# When several processes start from a checkpoint, the one that read it sends it to the others by ``torch.save`` and ``torch.load``.
# By then its options are an OmegaConf: the others have no use for them, and none is built from a file.
OMEGACONF = (
    *("omegaconf.dictconfig.DictConfig", "omegaconf.listconfig.ListConfig", "omegaconf.nodes.AnyNode"),
    *("omegaconf.base.Metadata", "omegaconf.base.ContainerMetadata", "typing.Any", "collections.defaultdict"),
)
SENT: list[Any] = [_TensorPlaceholder, Forgotten, *((Forgotten, name) for name in OMEGACONF), list, dict, int]

torch.serialization.add_safe_globals([*SAFE_GLOBALS, *SENT])
if os.environ.pop("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", None):  # would let the checkpoints that fairseq reads run code
    logging.getLogger(__name__).warning("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD is ignored: checkpoints are only read safely")
