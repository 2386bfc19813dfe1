"""Translate the options of published UnIVAL (and OFA) checkpoints to ours, and back.

A published checkpoint keeps its model's options in an ``argparse.Namespace`` of some 250 entries (all of fairseq's options are among
them) and its task's in a dict.  Options on which the meaning of the weights depends are mapped; those of the training run are not.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from unival.checkpoints.namespace import Namespace, unwrapped
from unival.checkpoints.shapes import norm_options
from unival.errors import UserError, flag
from unival.modalities import with_media
from unival.modalities.base import Published
from unival.text import split_names

ABSENT = object()

# Options of the same name and meaning, with the published default where ours differs: older checkpoints lack some options.
SAME: dict[str, Any] = {
    "encoder_embed_dim": ABSENT,
    "encoder_ffn_embed_dim": ABSENT,
    "encoder_layers": ABSENT,
    "encoder_attention_heads": ABSENT,
    "decoder_ffn_embed_dim": ABSENT,
    "decoder_layers": ABSENT,
    "decoder_attention_heads": ABSENT,
    "dropout": 0.0,
    "attention_dropout": ABSENT,
    "encoder_drop_path_rate": 0.0,
    "decoder_drop_path_rate": 0.0,
    "max_source_positions": ABSENT,
    "max_target_positions": ABSENT,
    "attn_scale_factor": ABSENT,
    "token_bucket_size": ABSENT,
    "image_bucket_size": ABSENT,
    "add_mm_type_embedding": ABSENT,
    "entangle_position_embedding": ABSENT,
    "interpolate_position": ABSENT,
    "orig_patch_image_size": ABSENT,
    "code_image_size": ABSENT,
    "scale_resids": ABSENT,
    "sample_patch_num": ABSENT,
    "sample_video_patch_num": ABSENT,
    "sample_audio_patch_num": ABSENT,
}
FLOATS = (
    "dropout",
    "attention_dropout",
    "encoder_drop_path_rate",
    "decoder_drop_path_rate",
    "attn_scale_factor",
)
COUNTS = ("sample_patch_num", "sample_video_patch_num", "sample_audio_patch_num")  # None or negative: all; ours has 0 for that
# published -> ours
RENAMED = {"hop_size": "audio_hop_size", "mel_bins": "audio_mel_bins", "sample_rate": "audio_sample_rate"}
# published task option -> ours
TASK_RENAMED = {
    "code_dict_size": "num_codes",
    "num_bins": "num_bins",
    "patch_image_size": "patch_image_size",
    "patch_frame_size": "patch_frame_size",
    "num_frames": "num_frames",
    "max_src_length": "max_src_length",
    "max_tgt_length": "max_tgt_length",
    "imagenet_default_mean_and_std": "imagenet_mean_and_std",
    "sample_type": "sample_type",
    "use_dataaug": "use_dataaug",
    "sample_rate": "audio_sample_rate",
}

# Constants of the published code, for which it has no options.
TASK_FIXED: dict[str, Any] = {"frame_fit": "published", "image_fit": "published", "image_backend": "pil", "frame_resize": "pil"}

# Constants of our model; checkpoints with other values are refused.
FIXED: dict[str, Any] = {
    "encoder_normalize_before": True,
    "decoder_normalize_before": True,
    "share_decoder_input_output_embed": True,
    "share_all_embeddings": True,
    "layernorm_embedding": True,
    "patch_layernorm_embedding": True,
    "code_layernorm_embedding": True,
    "add_type_embedding": True,
    "scale_attn": True,
    "scale_fc": True,
    "scale_heads": True,
    "no_scale_embedding": True,
    "activation_fn": "gelu",
    "no_token_positional_embeddings": False,
    "no_cross_attention": False,
    "cross_self_attention": False,
    "encoder_layerdrop": 0,
    "decoder_layerdrop": 0,
    "adaptive_softmax_cutoff": None,
    "quant_noise_pq": 0,
    "sync_bn": False,  # those batch norms have another epsilon
    "fusion_type": None,
    "enable_fusion": False,
    "encoder_layers_to_keep": None,
    "decoder_layers_to_keep": None,
    "quant_noise_scalar": 0,
    "adapter": False,
    "encoder_prompt": False,
    "decoder_prompt": False,
}
VIDEO_CAPTION = "[VIDEO:video] what does the video describe? -> [TEXT:caption,no_punctuation,max_length=20]"
# The published models were fine-tuned on audio with the prompt for videos.
AUDIO_CAPTION = "[AUDIO:audio] what does the video describe? -> [TEXT:caption,no_punctuation,max_length=20]"
# published task -> task here
TASKS: dict[str, dict[str, str]] = {
    "caption": {"_name": "unival_caption"},
    "video_caption": {"_name": "unival_caption", "instruction": VIDEO_CAPTION},
    "audio_caption": {"_name": "unival_caption", "instruction": AUDIO_CAPTION},
}


def published_media() -> dict[str, Published]:
    """Modality (in lower case) -> names of its network in published checkpoints."""
    return {name: media.published for name, media in with_media().items() if media.published is not None}


def is_published_cfg(cfg: Any) -> bool:
    """Whether a checkpoint's model or task options are those of the published UnIVAL or OFA."""
    return any(name in cfg for name in ("code_dict_size", "resnet_type", "image_encoder_name"))


def model_options(published: Namespace | Mapping[str, Any]) -> dict[str, Any]:
    """Translate the model options of a published checkpoint to fields of our ``UnivalConfig`` (``cfg["model"]``, or ``args``).

    Options that the checkpoint lacks, as older ones do, are left out where the published default is ours.

    Raises:
        UserError: an option has a value that our model does not support.
    """
    given = dict(unwrapped(published))
    _check_fixed(given)
    options: dict[str, Any] = {}
    for name, default in SAME.items():
        value = given.get(name, default)
        if value is not ABSENT and (value is not None or name in COUNTS):
            options[name] = float(value) if name in FLOATS else value
    for name in COUNTS:
        if name in options:
            options[name] = max(int(options[name] or 0), 0)
    for old, new in RENAMED.items():
        if given.get(old) is not None:
            options[new] = int(given[old])
    activation = given.get("activation_dropout") or given.get("relu_dropout")
    if activation is not None:
        options["activation_dropout"] = float(activation)
    options["attention_input_norm"] = bool(given.get("qk_norm"))  # another computation than our option of that name
    options["freeze_batchnorm"] = bool(given.get("freeze_batchnorm"))
    options["checkpoint_activations"] = bool(given.get("checkpoint_activations"))
    options["entangle_target_positions"] = not given.get("disable_entangle", False)
    if given.get("freeze_encoder_embedding") or given.get("freeze_decoder_embedding"):
        options["freeze_token_embeddings"] = True
    options.update(_backbones(given))
    media = options["modalities"].split(",")
    for name in media:
        options[f"freeze_{name}_backbone"] = bool(given.get(f"freeze_{name}_encoder"))
    return {**options, **norm_options(media, [name for name in published_media() if given.get(f"layernorm_{name}_embedding")])}


def task_options(published: Namespace | Mapping[str, Any]) -> dict[str, Any]:
    """Translate the task options of a published checkpoint to fields of our ``UnivalTaskConfig`` (``cfg["task"]``, or ``args``).

    ``_name`` and ``instruction`` give the task; a published task without a counterpart here becomes ``unival`` without an
    instruction.  Paths of the machine that it was trained on are left out.
    """
    given = dict(unwrapped(published))
    options: dict[str, Any] = {
        new: given[old] for old, new in TASK_RENAMED.items() if old in given and given[old] is not None
    }
    if given.get("max_audio_len") is not None and given.get("sample_rate"):
        options["max_audio_seconds"] = given["max_audio_len"] / given["sample_rate"]
    return {**TASK_FIXED, **options, **TASKS.get(given.get("_name") or given.get("task") or "", {"_name": "unival"})}


def published_model(options: Mapping[str, Any]) -> Namespace:
    """Translate a whole ``UnivalConfig`` to published model options.

    Args:
        options: all fields of the configuration; ``modalities`` are those of the model.

    Raises:
        UserError: the published code does not support the model.
    """
    media = [name for name in options["modalities"].split(",") if name]
    _check_has_place(options, media)
    normed = split_names(options["modality_layernorm_media"] or "") or media
    arch = "unival_large" if (options["encoder_embed_dim"], options["encoder_layers"]) == (1024, 12) else "unival_base"
    return Namespace(
        arch=arch,
        **FIXED,
        **{name: options[name] for name in SAME if name not in COUNTS},
        **{name: options[name] or None for name in COUNTS},  # the published code takes 0 as a number of patches
        **{f"layernorm_{name}_embedding": bool(options["modality_layernorm"] and name in normed) for name in published_media()},
        **{f"freeze_{name}_encoder": bool(name in media and options[f"freeze_{name}_backbone"]) for name in published_media()},
        qk_norm=options["attention_input_norm"],
        freeze_batchnorm=options["freeze_batchnorm"],
        checkpoint_activations=options["checkpoint_activations"],
        **{old: options[new] for old, new in RENAMED.items() if new != "audio_sample_rate"},
        sample_rate=options["audio_sample_rate"] or 48000,
        decoder_embed_dim=options["encoder_embed_dim"],
        decoder_input_dim=options["encoder_embed_dim"],
        decoder_output_dim=options["encoder_embed_dim"],
        encoder_learned_pos=True,
        decoder_learned_pos=True,
        relu_dropout=options["activation_dropout"],
        activation_dropout=options["activation_dropout"],
        disable_entangle=not options["entangle_target_positions"],
        freeze_encoder_embedding=options["freeze_token_embeddings"],
        freeze_decoder_embedding=options["freeze_token_embeddings"],
        **{theirs.encoder: _their_encoder(theirs, options) if name in media else None for name, theirs in published_media().items()},
        **{old: options[new] for theirs in published_media().values() for old, (new, _) in theirs.more.items()},
        resnet_drop_path_rate=0.0,
        _name=arch,
    )


def _check_has_place(options: Mapping[str, Any], media: Sequence[str]) -> None:
    """Refuse options that the published code does not support."""
    if options["qk_norm"]:
        raise UserError(
            "--qk-norm: the published option of that name is another computation, our --attention-input-norm; models with ours"
            " cannot be written in the published format"
        )
    if options["peft"]:
        raise UserError(f"--peft {options['peft']}: the published format has no place for it; merge it first (`unival adapter merge`)")
    for name, theirs in published_media().items():
        if name in media:
            if _their_encoder(theirs, options) is None:
                able = ", ".join(str(value) for ours in theirs.encoders.values() for value in ours.values())
                option, value = next((option, options[option]) for ours in theirs.encoders.values() for option in ours)
                raise UserError(f"{flag(option)} {value}: the published format has only {able}")
            theirs.check(options)
        elif theirs.default is not None:
            raise UserError(f"--modalities {options['modalities']}: the published format has none without {name}s")


def _their_encoder(theirs: Published, options: Mapping[str, Any]) -> str | None:
    """The published name of the network that our options choose; None if it has no name there."""
    return next((name for name, ours in theirs.encoders.items() if all(options[key] == value for key, value in ours.items())), None)


def published_task(options: Mapping[str, Any]) -> dict[str, Any]:
    """Translate a whole ``UnivalTaskConfig`` to published task options."""
    found = {old: options[new] for old, new in TASK_RENAMED.items() if options.get(new) is not None}
    rate = found.get("sample_rate", 48000)
    if options.get("max_audio_seconds") is not None:
        found["max_audio_len"] = round(options["max_audio_seconds"] * rate)
    is_caption = options.get("_name") == "unival_caption"
    instruction = options.get("instruction") or ""
    name = "video_caption" if "[VIDEO" in instruction else "audio_caption" if "[AUDIO" in instruction else "caption"
    return {"_name": name if is_caption else "unify_task", **found}


def _check_fixed(given: Mapping[str, Any]) -> None:
    for name, value in FIXED.items():
        if name in given and given[name] != value and not (value in (None, False) and not given[name]):
            raise UserError(f"the checkpoint's option {name} is {given[name]!r}; this model has only {value!r}")
    dim = given.get("encoder_embed_dim")
    for name in ("decoder_embed_dim", "decoder_input_dim", "decoder_output_dim"):
        if dim is not None and given.get(name) not in (None, dim):
            raise UserError(f"the checkpoint's option {name} is {given[name]}; this model has only the encoder's, {dim}")


def _backbones(given: Mapping[str, Any]) -> dict[str, Any]:
    options: dict[str, Any] = {}
    media = []
    for name, theirs in published_media().items():
        encoder = given.get(theirs.encoder) or theirs.default
        if encoder is not None:
            media.append(name)
            options |= _choose(theirs.encoder, encoder, theirs.encoders)
            for old, (new, values) in theirs.more.items():
                if given.get(old):
                    options[new] = _choose(old, given[old], {value: value for value in values})
    return {**options, "modalities": ",".join(media)}


def _choose(option: str, value: Any, choices: Mapping[str, Any]) -> Any:
    if value not in choices:
        raise UserError(f"the checkpoint's option {option} is {value!r}; there are {', '.join(choices)}")
    return choices[value]
