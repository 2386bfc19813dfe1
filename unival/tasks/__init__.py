"""Tasks: an instruction, metrics and the options of generation; importing this package registers them, the models, the criterions
and the learning-rate schedules."""

from unival.quiet_import import quiet_import

with quiet_import():
    import fairseq  # noqa: F401

import unival.criterions  # noqa: E402
import unival.models.unival  # noqa: E402,F401
import unival.optim  # noqa: E402,F401
from unival.tasks.base import UnivalTask  # noqa: E402
from unival.tasks.presets import PRESETS, Preset  # noqa: E402
from unival.tasks.pretraining.task import PretrainTask  # noqa: E402
from unival.tasks.registration import register_preset  # noqa: E402

for _preset in list(PRESETS.values()):
    register_preset(_preset)

__all__ = ["Preset", "PretrainTask", "UnivalTask", "register_preset"]
