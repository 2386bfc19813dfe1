"""An ensemble reads every row once: its models must have been trained to read it alike."""

import pytest
import torch

from tests.tasks.test_task import config
from unival.errors import UserError
from unival.modalities.composed import TRAINING_ONLY, MediaOptions
from unival.tasks import ensemble
from unival.tasks.resume import named_checkpoints, read_settings

OTHER = {  # another value of everything that evaluation reads rows by
    "max_src_length": 20,
    "max_tgt_length": 10,
    "patch_image_size": 96,
    "image_fit": "published",
    "image_backend": "pil",
    "imagenet_mean_and_std": True,
    "patch_frame_size": 64,
    "num_frames": 4,
    "frame_fit": "squash",
    "video_backend": "decord",
    "frame_resize": "pil",
    "audio_sample_rate": 16000,
    "max_audio_seconds": 3.0,
    "audio_filling": "pad",
    "max_image_size": 512,
    "code_image_size": 64,
    "instruction": "[TEXT:q] -> [TEXT:a]",
    "closed_set": ["yes"],
}


def checkpoint(path, task=None, state=None):
    """A checkpoint as far as an ensemble looks at it."""
    silent = dict.fromkeys(("image_fit", "image_backend", "frame_resize"))
    cfg = {"task": {"_name": "unival", **silent, **(task or {})}, "model": {"_name": "unival"}}
    torch.save({"cfg": cfg, "model": {"w": torch.ones(1)}, "optimizer_history": [], "extra_state": {}, "task_state": state or {}}, path)
    return path


def check_ensemble(cfg):
    paths = named_checkpoints(cfg.path, "")
    ensemble.check_ensemble(cfg, paths, [read_settings(path).settings.flat() for path in paths])


def test_everything_that_evaluation_reads_rows_by_is_compared():
    assert OTHER.keys() == {*vars(MediaOptions()), "instruction", "closed_set"} - set(TRAINING_ONLY)


@pytest.mark.parametrize(
    ("name", "kept_in"),
    [(name, place) for name in OTHER for place in (("options", "state") if name in vars(MediaOptions()) else ("either",))],
)
def test_models_that_were_trained_differently(tmp_path, name, kept_in):
    """Their options say so, or what training took over from the checkpoint that it started from."""
    state = {"closed_set": OTHER[name]} if name == "closed_set" else {"media": {**vars(MediaOptions()), name: OTHER[name]}}
    made = {"task": {name: OTHER[name]}} if kept_in == "options" or name == "instruction" else {"state": state}
    paths = [checkpoint(tmp_path / "a.pt"), checkpoint(tmp_path / "b.pt", **made)]
    option = f"--{name.replace('_', '-')}"
    for order in (paths, paths[::-1]):
        with pytest.raises(UserError, match=f"different {option}") as caught:
            check_ensemble(config(path=":".join(map(str, order))))
        assert len(str(caught.value).splitlines()) == 1
    check_ensemble(config(path=f"{paths[1]}:{paths[1]}"))
    check_ensemble(config(path=str(paths[1])))
    if name != "imagenet_mean_and_std":  # a switch: nothing says that it was not given
        given = "answers.txt" if name == "closed_set" else OTHER[name]
        check_ensemble(config(path=":".join(map(str, paths)), **{name: given}))


def test_what_only_training_uses_may_differ(tmp_path):
    paths = [checkpoint(tmp_path / f"{kind}.pt", {"sample_type": kind, "use_dataaug": kind == "rand"}) for kind in ("rand", "middle")]
    check_ensemble(config(path=":".join(map(str, paths))))
