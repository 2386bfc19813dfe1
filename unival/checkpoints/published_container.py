"""The ``cfg`` of a checkpoint in the published format: every group and every option of the original's files.

The original evaluates and trains with the options in a file and has no defaults for many of them: its encoder takes ``patch_image_size``
from the model's options, which contain those of fairseq, task, criterion, optimizer and schedule, too (one flat namespace).
"""

from collections.abc import Mapping
from typing import Any

from unival.checkpoints.namespace import Namespace

# fairseq's own groups in a published file, and those of them whose options are repeated among the model's.
CFG_GROUPS = (
    *("common", "common_eval", "distributed_training", "dataset", "optimization", "checkpoint", "bmuf", "generation", "eval_lm"),
    *("interactive", "ema"),
)
REPEATED = ("common", "distributed_training", "dataset", "optimization", "checkpoint", "ema")
# Options of the original's fairseq that today's lacks, by group, and those that came later.
OLDER: dict[str, dict[str, Any]] = {
    "distributed_training": {"slowmo_algorithm": "LocalSGD"},
    "checkpoint": {
        "use_ema_weights_to_init_param": False,
        "use_latest_weights_to_init_ema": False,
        "load_on_cuda": False,
        "save_on_cuda": False,
    },
}
NEWER: dict[str, tuple[str, ...]] = {
    "common": ("aim_repo", "aim_run_hash"),
    "distributed_training": ("slowmo_base_algorithm", "not_fsdp_flatten_parameters"),
    "dataset": ("update_epoch_batch_itr", "grouped_shuffling", "update_ordered_indices_seed"),
    "optimization": ("skip_remainder_batch", "debug_param_names"),
    "checkpoint": ("continue_once",),
    "generation": ("beam_mt", "max_len_a_mt", "max_len_b_mt", "lenpen_mt", "eos_token"),
}

# Options without a counterpart here, with their values in published files.
MODEL: dict[str, Any] = {
    "bitfit": False,
    "quant_noise_pq_block_size": 8,
    "min_params_to_wrap": 100_000_000,
    "video_model_path": None,
    "audio_model_path": None,
    "fstride": 10,
    "tstride": 10,
    "input_tdim": 1024,
    **{f"unfreeze_epoch{part}": 0 for part in ("", "_encoder", "_decoder", "_image", "_video", "_audio")},
    "strict": True,
    "adapt_arch_for_init": True,
    "no_seed_provided": False,
    "encoder_embed_path": None,
    "decoder_embed_path": None,
    "adaptive_softmax_dropout": 0,
    "pooler_activation_fn": "tanh",
    "pooler_dropout": 0.0,
    "pooler_classifier": "mlp",
}
# Paths are relative to the original's folder.
TASK: dict[str, Any] = {
    "data": "",
    "selected_cols": None,
    "bpe": None,
    "bpe_dir": "utils/BPE",
    "constraint_range": None,
    "read_from_img_path": False,
    "image_dir": "",
    "no_image_transform": False,
    "audio_cfg": None,
    "audio_sample_rate": False,
    "ast": False,
}
CAPTION_TASK: dict[str, Any] = {
    "eval_bleu": False,
    "eval_cider": False,
    "eval_args": "{}",
    "eval_print_samples": False,
    "eval_cider_cached_tokens": None,
    "scst": False,
    "scst_args": "{}",
}
CAPTION_TASKS = ("caption", "video_caption", "audio_caption")
CRITERION: dict[str, Any] = {
    "label_smoothing": 0.1,
    "report_accuracy": False,
    "ignore_prefix_size": 0,
    "ignore_eos": False,
    "sentence_avg": False,
    "drop_worst_ratio": 0.05,
    "drop_worst_after": 6000,
    "use_rdrop": False,
    "reg_alpha": 1.0,
    "constraint_range": None,
    "log_end": 0.75,
    "drop_best_ratio": 0.05,
    "drop_best_after": 6000,
}
OPTIMIZER: dict[str, Any] = {
    "adam_betas": "(0.9,0.999)",
    "adam_eps": 1e-08,
    "weight_decay": 0.01,
    "use_old_adam": False,
    "fp16_adam_stats": False,
    "tpu": False,
}
SCHEDULE: dict[str, Any] = {
    "warmup_updates": 0,
    "warmup_ratio": 0.0,
    "force_anneal": None,
    "end_learning_rate": 0.0,
    "power": 1.0,
    "total_num_update": 1000000.0,
}
SCORING: dict[str, Any] = {"pad": 1, "eos": 2, "unk": 3}
NAMES: dict[str, Any] = {
    "criterion": "adjust_label_smoothed_encouraging_loss",
    "optimizer": "adam",
    "lr_scheduler": "polynomial_decay",
    "scoring": "bleu",
    "tokenizer": None,
    "bpe": None,
    "simul_type": None,
}


def published_cfg(groups: Mapping[str, Any], model: Namespace, task: Mapping[str, Any]) -> dict[str, Any]:
    """Make the whole ``cfg`` of a published container.

    Args:
        groups: fairseq's configuration as plain dicts, from which :data:`CFG_GROUPS` are taken.
        model: result of :func:`unival.checkpoints.published_options.published_model`.
        task: result of :func:`unival.checkpoints.published_options.published_task`.
    """
    cfg: dict[str, Any] = {"_name": None}
    for name in CFG_GROUPS:
        kept = {key: value for key, value in groups[name].items() if key not in NEWER.get(name, ())}
        cfg[name] = {**kept, **OLDER.get(name, {})}
    options = vars(model)
    shared = {key: options[key] for key in ("max_source_positions", "max_target_positions", "orig_patch_image_size", "mel_bins")}
    caption = CAPTION_TASK if task["_name"] in CAPTION_TASKS else {}
    cfg["task"] = {**TASK, **caption, **shared, **task}
    rate = {"lr": list(cfg["optimization"]["lr"])}
    cfg["criterion"] = {"_name": NAMES["criterion"], **CRITERION, "sample_patch_num": options["sample_patch_num"]}
    cfg["optimizer"] = {"_name": NAMES["optimizer"], **OPTIMIZER, **rate}
    cfg["lr_scheduler"] = {"_name": NAMES["lr_scheduler"], **SCHEDULE, **rate}
    cfg["scoring"] = {"_name": NAMES["scoring"], **SCORING}
    cfg.update({"bpe": None, "tokenizer": None, "simul_type": None})
    flat: dict[str, Any] = {}
    for name in (*REPEATED, "scoring", "lr_scheduler", "optimizer", "criterion", "task"):
        flat.update({key: value for key, value in cfg[name].items() if key != "_name"})
    cfg["model"] = Namespace(**{**flat, **MODEL, **NAMES, "task": task["_name"], **options})
    return cfg
