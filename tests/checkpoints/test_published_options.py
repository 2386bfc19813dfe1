"""What a published checkpoint's options mean here, and the way back."""

import argparse
from dataclasses import asdict, fields

import pytest

from tests import golden
from unival.checkpoints.names.published import model_options, task_options
from unival.checkpoints.published_options import FIXED, TASK_FIXED, published_model, published_task
from unival.errors import UserError
from unival.instructions import parse
from unival.modalities import MODALITIES
from unival.models.config import UnivalConfig
from unival.tasks.config import UnivalTaskConfig

BASE = {
    "encoder_embed_dim": 768,
    "encoder_ffn_embed_dim": 3072,
    "encoder_layers": 6,
    "encoder_attention_heads": 12,
    "decoder_embed_dim": 768,
    "image_encoder_name": "timm_resnet",
    "resnet_type": "resnet101",
    "disable_entangle": True,
}


@pytest.fixture
def cfg():
    return golden.published_cfg()


def test_the_published_base_model(cfg):
    options = model_options(cfg["model"])
    built = asdict(UnivalConfig(**options))
    different = {key: value for key, value in built.items() if value != asdict(UnivalConfig())[key]}
    assert different == {
        "modalities": "image,video,audio",
        "audio_sample_rate": 48000,
        "audio_hop_size": 200,
        "sample_patch_num": 784,
    }


def test_the_published_task(cfg):
    options = task_options(cfg["task"])
    assert options.keys() <= {field.name for field in fields(UnivalTaskConfig)}
    assert options == {
        "_name": "unival_caption",
        "num_codes": 8192,
        "num_bins": 1000,
        "patch_image_size": 480,
        "patch_frame_size": 224,
        "num_frames": 4,
        "max_src_length": 128,
        "max_tgt_length": 30,
        "imagenet_mean_and_std": False,
        "sample_type": "rand",
        "frame_fit": "published",
        "image_fit": "published",
        "image_backend": "pil",
        "frame_resize": "pil",
        "use_dataaug": False,
        "audio_sample_rate": 48000,
        "max_audio_seconds": 10.0,
    }


def test_options_come_back(cfg):
    options = model_options(cfg["model"])
    back = published_model(asdict(UnivalConfig(**options)))
    same = {key: value for key, value in vars(back).items() if getattr(cfg["model"], key, value) not in (value, None)}
    assert same == {} or all(getattr(cfg["model"], key) == value for key, value in same.items())
    assert UnivalConfig(**model_options(back)) == UnivalConfig(**options)
    task = asdict(UnivalTaskConfig(**task_options(cfg["task"])))
    assert published_task(task).items() <= cfg["task"].items()


@pytest.mark.parametrize("name, value", [("encoder_normalize_before", False), ("activation_fn", "relu"), ("sync_bn", True)])
def test_other_models_are_refused(name, value):
    with pytest.raises(UserError) as error:
        model_options({**BASE, name: value})
    assert f"option {name} is {value!r}; this model has only {FIXED[name]!r}" in str(error.value)


@pytest.mark.parametrize(
    "change, message",
    [
        ({"decoder_embed_dim": 512}, "decoder_embed_dim is 512; this model has only the encoder's, 768"),
        ({"image_encoder_name": "vit"}, "image_encoder_name is 'vit'; there are timm_resnet, resnet"),
        ({"audio_encoder_name": "ast"}, "audio_encoder_name is 'ast'; there are pann_cnn6"),
    ],
)
def test_unknown_values_are_named(change, message):
    with pytest.raises(UserError, match=message):
        model_options({**BASE, **change})


def test_older_checkpoints_lack_options():
    """The published code's defaults hold: OFA's CNN, no dropout, no stochastic depth, positions in the decoder's tokens."""
    given = {key: value for key, value in BASE.items() if key not in ("image_encoder_name", "disable_entangle")}
    options = UnivalConfig(**model_options(argparse.Namespace(**given)))
    assert options.image_backbone_stages == 3 and options.modalities == "image" and options.entangle_target_positions
    assert options.dropout == options.encoder_drop_path_rate == options.decoder_drop_path_rate == 0.0
    assert options.attn_scale_factor == 2.0 and options.image_bucket_size == 42


@pytest.mark.parametrize(
    "change, expected",
    [
        ({"video_encoder_name": "all_resnext152"}, {"modalities": "image,video", "video_backbone": "resnext3d152"}),
        ({"image_encoder_name": "resnet", "resnet_type": "resnet50"}, {"image_backbone": "resnet50", "image_backbone_stages": 3}),
        ({"sample_patch_num": None, "sample_video_patch_num": 49}, {"sample_patch_num": 0, "sample_video_patch_num": 49}),
        ({"relu_dropout": 0.3}, {"activation_dropout": 0.3}),
        ({"freeze_encoder_embedding": True}, {"freeze_token_embeddings": True}),
    ],
)
def test_values_are_translated(change, expected):
    assert expected.items() <= model_options({**BASE, **change}).items()


def test_tasks_and_their_prompts():
    for name, modality in (("video_caption", "VIDEO"), ("audio_caption", "AUDIO")):
        options = task_options({"_name": name})
        assert options["_name"] == "unival_caption"
        assert parse(options["instruction"], MODALITIES)[0].source[0].modality == modality
        assert "what does the video describe?" in options["instruction"] and options["frame_fit"] == "published"
        assert published_task({**asdict(UnivalTaskConfig()), **options})["_name"] == name
    assert task_options({"_name": "refcoco_of_later"}) == {"_name": "unival", **TASK_FIXED}


@pytest.mark.parametrize(
    "change, message",
    [
        ({"qk_norm": True}, "--qk-norm: the published option of that name is another computation"),
        ({"modalities": "image,audio", "audio_backbone": "cnn10"}, "cnn10: the published format has only cnn6, clap_cnn10, cnn14"),
        ({"modalities": "image,audio", "audio_window_size": 512}, "--audio-window-size 512: the published code has only 1024"),
        ({"modalities": "image,audio", "audio_fmin": 0.0}, "--audio-fmin 0: the published code has only 50"),
        ({"modalities": "image,audio", "audio_fmax": 8000.0}, "--audio-fmax 8000: the published code has only 14000"),
        ({"modalities": "image,audio", "audio_backbone": "cnn6", "audio_mel_bins": 128}, "CNN6 has only 64"),
        ({"image_backbone": "resnet10"}, "resnet10: the published format has only resnet50"),
        ({"modalities": "image,video", "video_backbone": "resnext3d14"}, "only resnext3d50"),
        ({"modalities": "audio"}, "none without images"),
    ],
)
def test_what_the_published_format_lacks(change, message):
    with pytest.raises(UserError, match=message):
        published_model({**asdict(UnivalConfig(modalities="image")), **change})
