"""Options of modalities: one field is a rule, a default and an option of the command line; two of one name are refused."""

import dataclasses
import pickle

import pytest
from omegaconf import OmegaConf

from unival.errors import UserError
from unival.modalities import MODALITIES
from unival.modalities.base import Modality
from unival.modalities.composed import TRAINING_ONLY, MediaOptions, options_in
from unival.modalities.options import at_least, compose, declared, kept_field, option, owners, task_field
from unival.models.config import UnivalConfig, saved_config, silent_options
from unival.tasks.config import UnivalTaskConfig


@dataclasses.dataclass(frozen=True)
class DepthOptions:
    depth_size: int = option(48, "pixels per side", at_least(8))
    depth_scale: float = option(2.0, "metres per unit")
    depth_noise: bool = option(False, "add noise", training_only=True)


@dataclasses.dataclass(frozen=True)
class OtherOptions:
    num_frames: int = option(8, "frames of another kind")


def test_one_declaration_makes_the_readers_option_and_the_tasks():
    found = {o.name: (kept_field(o), task_field(o)) for o in declared(DepthOptions)}
    (name, kind, kept), (_, asked, open_) = found["depth_size"]
    assert (name, kind, kept.default) == ("depth_size", int, 48)
    assert (asked, open_.default) == (int | None, None)
    assert open_.metadata["help"] == "pixels per side (default: the checkpoint's, else 48)" and open_.metadata["group"] == "media"
    assert found["depth_scale"][1][2].metadata["help"].endswith("else 2)")
    assert found["depth_noise"][1][1] is bool  # a flag says nothing where it is not given


def test_two_options_of_one_name_name_both_modalities():
    others = {**MODALITIES, "DEPTH": Modality("DEPTH", options=OtherOptions)}
    with pytest.raises(UserError, match="modality VIDEO and modality DEPTH both have an option --num-frames"):
        owners(others)
    with pytest.raises(UserError, match="the task and modality TEXT both have an option --max-src-length"):
        owners(MODALITIES, {"max_src_length": "the task"})
    assert owners(MODALITIES)["audio_sample_rate"] == "modality AUDIO"  # of reading and of the model: one modality's


def test_values_against_their_rules():
    for values, message in (
        ({"patch_image_size": 0}, "--patch-image-size is 0; it must be 1 or more"),
        ({"audio_sample_rate": 44}, "--audio-sample-rate is 44; it is in Hz, at least 1000"),
        ({"max_audio_seconds": float("inf")}, "--max-audio-seconds is inf; it must be a positive number of seconds"),
        ({"frame_fit": "square"}, "unknown --frame-fit 'square', did you mean 'squash'\\? There are crop, squash, published"),
    ):
        with pytest.raises(UserError, match=message):
            MediaOptions(**values)


def test_composed_options_are_classes_like_others():
    """They can be pickled and read by OmegaConf, and keep their names and order."""
    media = MediaOptions(num_frames=3)
    assert pickle.loads(pickle.dumps(media)) == media and dataclasses.replace(media, num_frames=8) == MediaOptions()
    cfg = pickle.loads(pickle.dumps(UnivalTaskConfig(data="x")))
    assert cfg.patch_image_size is None and cfg.max_src_length is None
    assert OmegaConf.structured(UnivalConfig(audio_hop_size=200)).audio_hop_size == 200
    assert saved_config({"audio_hop_size": 200, "gone": 1}).audio_hop_size == 200
    names = [field.name for field in dataclasses.fields(MediaOptions)]
    assert names[:5] == ["max_src_length", "max_tgt_length", "patch_image_size", "image_fit", "image_backend"]
    with pytest.raises(TypeError):
        MediaOptions(32)  # by name only, as modalities may come between
    assert TRAINING_ONLY == ("sample_type", "use_dataaug")
    assert silent_options(["audio"]) - silent_options(["image"]) == {"audio_hop_size"}
    assert compose("Made", __name__, DepthOptions, [], "Text.", frozen=True).__doc__ == "Text."


def test_checkpoints_from_before_an_option():
    """They stand for what was done before it; where they know it and are silent, another source may say."""
    before = {"image_fit": "published", "image_backend": "pil", "frame_resize": "pil"}
    assert options_in({"num_frames": 3, "other": 1}) == {**before, "num_frames": 3}
    said = {"image_fit": "seen", "image_backend": "torchvision", "frame_resize": "torch"}
    assert options_in(said) == said and options_in(dict.fromkeys(said)) == {}
