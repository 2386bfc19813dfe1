"""The options of all modalities, composed into one dataclass.  Modalities have to be registered before this module is imported."""

import dataclasses
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from unival.modalities import MODALITIES
from unival.modalities.options import Checked, compose, declared, kept_field, owners

_DOC = """Options of loading media: part of the task's configuration, kept in checkpoints.

Raises:
    UserError: an option has a value that is not allowed.
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
    """The values of options that a checkpoint from before these options lacks.

    Args:
        saved: options that the checkpoint has.
    """
    later = {field.name: field.metadata["before"] for field in dataclasses.fields(MediaOptions) if "before" in field.metadata}
    return MediaOptions(**{name: value for name, value in later.items() if name not in saved})
