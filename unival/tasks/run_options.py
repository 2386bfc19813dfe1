"""fairseq's own options that a task looks at: fairseq fills them in, nobody gives them to the task."""

from dataclasses import dataclass
from typing import Any, Optional  # fairseq's argument parser does not know ``str | None``

from fairseq.dataclass import FairseqDataclass
from omegaconf import II


@dataclass
class RunOptions(FairseqDataclass):
    """Links to the options of a run, so that a task can check them before the run's first update.

    They have values where fairseq's commands made the task; a checkpoint may lack those that came later.
    """

    seed: int = II("common.seed")
    cpu: bool = II("common.cpu")
    bf16: bool = II("common.bf16")
    fp16: bool = II("common.fp16")
    path: Optional[str] = II("common_eval.path")  # only fairseq-generate and fairseq-validate know it
    model_overrides: str = II("common_eval.model_overrides")
    train_subset: str = II("dataset.train_subset")
    valid_subset: str = II("dataset.valid_subset")
    gen_subset: str = II("dataset.gen_subset")
    num_shards: int = II("dataset.num_shards")
    shard_id: int = II("dataset.shard_id")
    combine_valid_subsets: Optional[bool] = II("dataset.combine_valid_subsets")
    disable_validation: bool = II("dataset.disable_validation")
    batch_size: Optional[int] = II("dataset.batch_size")
    batch_size_valid: Optional[int] = II("dataset.batch_size_valid")
    validate_interval: int = II("dataset.validate_interval")
    log_interval: int = II("common.log_interval")
    max_epoch: int = II("optimization.max_epoch")
    max_update: int = II("optimization.max_update")
    update_freq: Any = II("optimization.update_freq")
    distributed_world_size: int = II("distributed_training.distributed_world_size")
    store_ema: bool = II("ema.store_ema")
    ema_update_freq: int = II("ema.ema_update_freq")
    save_dir: str = II("checkpoint.save_dir")
    restore_file: str = II("checkpoint.restore_file")
    finetune_from_model: Optional[str] = II("checkpoint.finetune_from_model")
    reset_optimizer: bool = II("checkpoint.reset_optimizer")
    reset_meters: bool = II("checkpoint.reset_meters")
    reset_dataloader: bool = II("checkpoint.reset_dataloader")
    continue_once: Optional[str] = II("checkpoint.continue_once")
    checkpoint_suffix: str = II("checkpoint.checkpoint_suffix")
    no_save: bool = II("checkpoint.no_save")
    no_save_optimizer_state: bool = II("checkpoint.no_save_optimizer_state")
    no_epoch_checkpoints: bool = II("checkpoint.no_epoch_checkpoints")
    no_last_checkpoints: bool = II("checkpoint.no_last_checkpoints")
    save_interval: int = II("checkpoint.save_interval")
    save_interval_updates: int = II("checkpoint.save_interval_updates")
    keep_interval_updates: int = II("checkpoint.keep_interval_updates")
    keep_last_epochs: int = II("checkpoint.keep_last_epochs")
    keep_best_checkpoints: int = II("checkpoint.keep_best_checkpoints")
    patience: int = II("checkpoint.patience")
    best_checkpoint_metric: str = II("checkpoint.best_checkpoint_metric")
    maximize_best_checkpoint_metric: bool = II("checkpoint.maximize_best_checkpoint_metric")
