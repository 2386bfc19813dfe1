"""A small checkpoint as training writes them, made without training."""

import pathlib
from dataclasses import asdict
from typing import Any

from omegaconf import OmegaConf

from tests import tiny
from unival.tasks.config import UnivalTaskConfig


def own_container(folder: pathlib.Path, seed: int = 0) -> dict[str, Any]:
    """What `fairseq-train` saves of a tiny captioning model after 12 updates; every call makes tensors of its own."""
    vocab = tiny.vocabulary(folder, num_codes=4, num_bins=3)
    model = tiny.model(vocab, seed=seed, modalities="image")
    options = OmegaConf.to_container(OmegaConf.structured(UnivalTaskConfig(data="data")), enum_to_str=True)
    task = {key: value for key, value in options.items() if not str(value).startswith("${")}
    task.update(_name="unival_caption", num_codes=4, num_bins=3, seed=1, cpu=True, bf16=False, fp16=False)
    return {
        "args": None,
        "cfg": {
            "model": {**asdict(OmegaConf.to_object(model.cfg)), "_name": "unival_tiny"},
            "task": task,
            "checkpoint": {"best_checkpoint_metric": "cider"},
            "optimization": {"lr": [0.001]},
        },
        "model": model.state_dict(),
        "criterion": None,
        "optimizer_history": [
            {
                "criterion_name": "LabelSmoothedCriterion",
                "optimizer_name": "FairseqAdam",
                "lr_scheduler_state": {"best": None},
                "num_updates": 12,
            }
        ],
        "task_state": {
            "num_codes": 4,
            "num_bins": 3,
            "vocabulary": vocab.fingerprint,
            "vocabulary_files": vocab.files(),
        },
        "extra_state": {
            "train_iterator": {"version": 2, "epoch": 3, "iterations_in_epoch": 2, "shuffle": True},
            "val_loss": 0.5,
            "best": 0.75,
        },
        "last_optimizer_state": None,
    }
