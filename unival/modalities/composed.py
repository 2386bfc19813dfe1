"""The options of all modalities, composed into one dataclass.  Modalities have to be registered before this module is imported."""

import dataclasses
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from unival.modalities import MODALITIES
from unival.modalities.options import Checked, compose, declared, kept_field, owners

_DOC = """Options of reading cells: part of the task's configuration, kept in checkpoints.

Raises:
    UserError: an option has a value that is not allowed.
"""

if TYPE_CHECKING:
    from unival.modalities.audio import AudioOptions
    from unival.modalities.box import BoxOptions
    from unival.modalities.code import CodeOptions
    from unival.modalities.image import ImageOptions
    from unival.modalities.text import TextOptions
    from unival.modalities.video import VideoOptions

    class MediaOptions(CodeOptions, BoxOptions, AudioOptions, VideoOptions, ImageOptions, TextOptions):
        """See ``_DOC``; modalities from outside add theirs."""
else:
    owners(MODALITIES)
    _fields = [kept_field(o) for m in MODALITIES.values() for o in declared(m.options)]
    MediaOptions = compose("MediaOptions", __name__, Checked, _fields, _DOC, frozen=True, kw_only=True)

TRAINING_ONLY = tuple(field.name for field in dataclasses.fields(MediaOptions) if field.metadata["training_only"])


def options_in(saved: Mapping[str, Any]) -> dict[str, Any]:
    """The values that saved options give, by name; options that are None or absent give none.

    Args:
        saved: options that a checkpoint has.  Those that came after the checkpoint have the value that stands for the time before.
    """
    before = {field.name: field.metadata["before"] for field in dataclasses.fields(MediaOptions) if "before" in field.metadata}
    said = {field.name: saved[field.name] for field in dataclasses.fields(MediaOptions) if field.name in saved}
    return {name: value for name, value in {**before, **said}.items() if value is not None}
