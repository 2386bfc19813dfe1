"""What ``convert --to published`` writes besides weights: every option that the original's files hold, in the form that it expects."""

import argparse
from dataclasses import asdict

import pytest
import torch
from omegaconf import OmegaConf

from tests import golden, tiny
from unival.checkpoints import files
from unival.checkpoints.published_container import CAPTION_TASK, published_cfg
from unival.checkpoints.published_options import (
    AUDIO_CAPTION,
    TASK_FIXED,
    VIDEO_CAPTION,
    model_options,
    published_model,
    published_task,
    task_options,
)
from unival.cli import main
from unival.commands.convert.source import task_defaults
from unival.commands.convert.target import own_cfg
from unival.modalities.composed import MediaOptions
from unival.models.config import UnivalConfig
from unival.models.unival import SIZES

PUBLISHED = golden.published_cfg()  # of the base model's checkpoint, captioning
COUNTS = ("sample_patch_num", "sample_video_patch_num", "sample_audio_patch_num")
TINY = {"image_backbone": "resnet50", "image_backbone_stages": 3, "video_backbone": "resnext3d50"}
CASES = {  # model options, task options
    "image": ({"modalities": "image"}, {}),
    "video": ({"modalities": "image,video", **SIZES["unival_large"]}, {"instruction": VIDEO_CAPTION, "num_frames": 16}),
    "audio": ({"modalities": "audio,image", "audio_hop_size": 200}, {"instruction": AUDIO_CAPTION, "max_audio_seconds": 5.0}),
    "all": ({"modalities": "audio,image,video", "sample_patch_num": 9, "sample_audio_patch_num": 7}, {"patch_image_size": 480}),
    "tiny": ({"modalities": "image,video,audio", **SIZES["unival_tiny"], **TINY}, {"max_tgt_length": 7, "patch_frame_size": 64}),
    "flags": (
        {
            **{"modalities": "image,video,audio", "modality_layernorm": True, "modality_layernorm_media": "video"},
            **{"attention_input_norm": True, "scale_resids": True, "add_mm_type_embedding": True, "interpolate_position": True},
            **{"entangle_target_positions": True, "entangle_position_embedding": True, "attn_scale_factor": 3.0, "dropout": 0.3},
            **{"activation_dropout": 0.2, "freeze_audio_backbone": True, "freeze_token_embeddings": True, "freeze_batchnorm": True},
            **{"sample_video_patch_num": 3, "code_image_size": 256, "image_bucket_size": 30, "audio_backbone": "clap_cnn10"},
            **{"image_backbone": "resnet152", "video_backbone": "resnext3d152", "checkpoint_activations": True, "audio_mel_bins": 128},
        },
        {"_name": "unival", "imagenet_mean_and_std": True, "sample_type": "middle", "use_dataaug": True},
    ),
}


def kind(value):
    """What the original can tell apart: None, booleans, numbers, text, lists."""
    return "number" if isinstance(value, int | float) and not isinstance(value, bool) else type(value).__name__


def written(case):
    """Model and task options of a case as a whole, and the ``cfg`` that is written for them."""
    model = {**asdict(UnivalConfig()), **CASES[case][0]}
    defaults = {**task_defaults(), "_name": "unival_caption", **vars(MediaOptions())}
    task = {**defaults, **CASES[case][1]}
    groups = own_cfg(model, task)
    return model, task, published_cfg(groups, published_model(model), published_task(task))


@pytest.mark.parametrize("case", CASES)
def test_every_published_option_is_there_in_its_form(case):
    _, task, cfg = written(case)
    assert cfg.keys() == PUBLISHED.keys()
    free = {*COUNTS, "video_encoder_name", "audio_encoder_name"}  # None or not by what the model is
    for group, given in PUBLISHED.items():
        found = cfg[group]
        if group == "model":
            assert isinstance(found, argparse.Namespace)
            given, found = vars(given), vars(found)
        if not isinstance(given, dict):
            assert found is None and given is None
            continue
        left_out = set(CAPTION_TASK) if task["_name"] != "unival_caption" and group in ("model", "task") else set()
        missing = given.keys() - found.keys() - left_out
        assert not missing, group
        wrong = {k: (v, found[k]) for k, v in given.items() if k not in free and k in found and kind(v) != kind(found[k])}
        allowed = {("dataset", "batch_size"): None, ("model", "batch_size"): None}  # not known: nothing was trained
        allowed.update({("dataset", "batch_size_valid"): None, ("model", "batch_size_valid"): None})
        assert {key for key in wrong if (group, key) not in allowed} == set(), wrong
        if group != "model":  # among the model's are flags that are only there when they are given
            assert found.keys() == given.keys() - left_out, group


@pytest.mark.parametrize("case", CASES)
def test_what_is_written_comes_back(case):
    model, task, cfg = written(case)
    absent = tuple(name for name in ("image", "video", "audio") if name not in model["modalities"])
    known = {**asdict(UnivalConfig()), **model_options(cfg["model"])}
    known["modalities"] = ",".join(sorted(known["modalities"].split(",")))
    model["modalities"] = ",".join(sorted(model["modalities"].split(",")))
    known["audio_sample_rate"] = model["audio_sample_rate"]  # 48000 is the default
    unknown = ("init_std", *(f"{name}_backbone" for name in absent))
    assert {k: (v, known[k]) for k, v in model.items() if known[k] != v and k not in unknown} == {}
    back = task_options(cfg["task"])
    assert {k: (v, task[k]) for k, v in back.items() if k not in ("instruction", *TASK_FIXED) and task[k] != v} == {}
    assert back.get("instruction") == task["instruction"]


@pytest.mark.parametrize("case", CASES)
def test_what_ours_decides_is_ours(case):
    model, task, cfg = written(case)
    options = vars(cfg["model"])
    for name in COUNTS:  # to the original 0 is a number of patches: none at all
        assert options[name] == (model[name] or None)
    assert cfg["criterion"]["sample_patch_num"] == options["sample_patch_num"]
    for name in ("patch_image_size", "patch_frame_size", "num_frames", "max_tgt_length", "sample_type", "use_dataaug"):
        assert options[name] == cfg["task"][name] == task[name]
    assert options["max_audio_len"] == cfg["task"]["max_audio_len"] == round(task["max_audio_seconds"] * task["audio_sample_rate"])
    assert options["mel_bins"] == cfg["task"]["mel_bins"] == model["audio_mel_bins"]
    assert (options["hop_size"], options["resnet_type"]) == (model["audio_hop_size"], model["image_backbone"])
    assert options["task"] == cfg["task"]["_name"]
    assert options["arch"] == options["_name"] == ("unival_large" if case == "video" else "unival_base")
    for name in ("video", "audio"):
        assert bool(options[f"{name}_encoder_name"]) == (name in model["modalities"])


def test_a_file_of_ours_there_and_back(tmp_path, capsys):
    """Weights bit for bit, options and the form of the container; what has no place there is named."""
    vocab = tiny.vocabulary(tmp_path / "vocab", 0, 0)
    changes = {"modality_layernorm": True, "attention_input_norm": True, "sample_patch_num": 5, "spec_augment": False}
    model = tiny.model(vocab, modalities="image", image_backbone="resnet50", image_backbone_stages=3, **changes)
    task = {**task_defaults(), "num_codes": 0, "num_bins": 0, "patch_image_size": 64, "_name": "unival_caption"}
    task["instruction"] = "[IMAGE:image] describe! -> [TEXT:caption]"
    cfg = own_cfg({**OmegaConf.to_container(model.cfg), "_name": "unival"}, task)
    files.write(tmp_path / "a.pt", {"cfg": cfg, "model": model.state_dict()})
    assert main(["convert", "--to", "published", str(tmp_path / "a.pt"), str(tmp_path / "b.pt")]) == 0
    said = capsys.readouterr().out
    assert "the published format has no place for" in said and "--spec-augment False" in said and "describe!" in said
    assert main(["convert", str(tmp_path / "b.pt"), str(tmp_path / "c.pt")]) == 0
    there, back = files.read(tmp_path / "b.pt"), files.read(tmp_path / "c.pt")
    names = {"args", "cfg", "model", "criterion", "optimizer_history", "task_state", "extra_state", "last_optimizer_state"}
    assert there.keys() == names
    assert there["extra_state"].keys() >= {"metrics", "previous_training_time", "train_iterator", "val_loss"}
    assert there["optimizer_history"][0].keys() == {"criterion_name", "optimizer_name", "lr_scheduler_state", "num_updates"}
    assert there["args"] is there["criterion"] is there["last_optimizer_state"] is None and there["task_state"] == {}
    assert there["cfg"]["model"].patch_image_size == 64 and there["cfg"]["model"].sample_video_patch_num is None
    assert back["model"].keys() == model.state_dict().keys()
    assert all(torch.equal(back["model"][key], value) for key, value in model.state_dict().items())
    different = {k for k, v in cfg["model"].items() if back["cfg"]["model"][k] != v}
    lost = {"init_std", "spec_augment", "video_backbone", "audio_backbone"}
    assert different <= {"audio_sample_rate", "imagenet_mean_and_std", *lost}  # of the first two the task's count
    assert back["cfg"]["task"]["patch_image_size"] == 64
