"""The options of all modalities together.  Whoever imports this module fixes which modalities there are: register others before."""

import dataclasses
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from unival.modalities import MODALITIES
from unival.modalities.options import Checked, compose, declared, kept_field, owners

_DOC = """How media become tensors: part of the task's configuration, kept in checkpoints.

Raises:
    UserError: an option has a value that it cannot have.
"""

if TYPE_CHECKING:
    from unival.modalities.audio import AudioOptions
    from unival.modalities.box import BoxOptions
    from unival.modalities.code import CodeOptions
    from unival.modalities.image import ImageOptions
    from unival.modalities.video import VideoOptions

    class MediaOptions(CodeOptions, BoxOptions, AudioOptions, VideoOptions, ImageOptions):
        """See ``_DOC``; modalities from outside add theirs."""
else:
    owners(MODALITIES)
    _fields = [kept_field(o) for m in MODALITIES.values() for o in declared(m.options) if o.field.metadata["kept"]]
    MediaOptions = compose("MediaOptions", __name__, Checked, _fields, _DOC, frozen=True)

TRAINING_ONLY = tuple(field.name for field in dataclasses.fields(MediaOptions) if field.metadata["training_only"])


def options_before(saved: Mapping[str, Any]) -> MediaOptions:
    """What a checkpoint's options stand for where they are silent; some options came later than some checkpoints."""
    later = {field.name: field.metadata["before"] for field in dataclasses.fields(MediaOptions) if "before" in field.metadata}
    return MediaOptions(**{name: value for name, value in later.items() if name not in saved})
