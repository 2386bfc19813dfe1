"""Options that every task shares."""

from dataclasses import dataclass, field, fields, is_dataclass
from typing import TYPE_CHECKING, Any, Optional  # fairseq's argument parser does not know ``str | None``

from fairseq.dataclass import ChoiceEnum, configs
from omegaconf import MISSING, open_dict

from unival.generation.answer_options import AnswerOptions
from unival.modalities import MODALITIES
from unival.modalities.options import compose, declared, owners, task_field
from unival.models.inference import TYPES
from unival.tasks.run_options import RunOptions

ON_BAD_SAMPLE = ChoiceEnum(["raise", "skip"])
WEIGHTS = ChoiceEnum(["model", "ema"])
DTYPES = ChoiceEnum(list(TYPES))
VALIDATE_WITH = ChoiceEnum(["model", "ema", "both"])


@dataclass
class CoreTaskConfig(RunOptions, AnswerOptions):
    """The options of a task that belong to no modality."""

    data: str = field(
        default=MISSING,
        metadata={
            "group": "data",
            "help": "folder with <split>.jsonl or <split>.tsv, or the tables themselves: TRAIN,VALID, or TRAIN1,TRAIN2,…,VALID, on which"
            " epochs train in turn (or one table for any split; to train on it, --disable-validation)",
        },
    )
    instruction: Optional[str] = field(
        default=None,
        metadata={
            "group": "task",
            "help": "the task, e.g. '[IMAGE:image] what does the image describe? -> [TEXT:caption]' (default: the task's own)",
        },
    )
    builder: str = field(
        default="plain",
        metadata={
            "group": "data",
            "help": "what is made of a row to train on: plain (the row as it is), grouped (an example per place of a JSONL row's lists), or"
            " several tasks such as caption_and_matching, of which the first is this one; media are read once",
        },
    )
    selected_cols: Optional[str] = field(
        default=None,
        metadata={
            "group": "data",
            "help": "TSV tables: numbers of the columns to read, e.g. 0,4,2 (default: the task's published layout)",
        },
    )
    columns: Optional[str] = field(
        default=None,
        metadata={"group": "data", "help": "TSV tables: names of the selected columns, e.g. id,image,caption"},
    )
    media_root: Optional[str] = field(
        default=None,
        metadata={"group": "data", "help": "folder that media paths are relative to (default: the table's folder)"},
    )
    vocab_dir: Optional[str] = field(
        default=None,
        metadata={
            "group": "text",
            "help": "folder with encoder.json, vocab.bpe and dict.txt (default: vocab/ in the data folder, else the"
            " checkpoint's)",
        },
    )
    num_codes: Optional[int] = field(
        default=None,
        metadata={
            "group": "text",
            "help": "number of image codes in the vocabulary (default: what its folder notes, as `unival train-vocab` does, else 8192)",
        },
    )
    num_bins: Optional[int] = field(
        default=None,
        metadata={"group": "text", "help": "number of location bins in the vocabulary (default: what its folder notes, else 1000)"},
    )
    on_bad_sample: ON_BAD_SAMPLE = field(  # type: ignore[valid-type]
        default="raise",
        metadata={"group": "data", "help": "rows that cannot be read, in training: stop, or skip and count them"},
    )
    on_bad_answer: ON_BAD_SAMPLE = field(  # type: ignore[valid-type]
        default="raise",
        metadata={"group": "data", "help": "rows whose answer is none of the candidates, in training: stop, or skip and count them"},
    )
    eval_metrics: Optional[str] = field(
        default=None,
        metadata={
            "group": "evaluation",
            "help": "metrics by generation at validation, e.g. cider,bleu,rouge_l ('' for none; default: the task's own)",
        },
    )
    eval_box_threshold: float = field(
        default=0.5, metadata={"group": "evaluation", "help": "box_accuracy: overlap (IoU) with a reference from which a box is right"}
    )
    eval_cider_df: Optional[str] = field(
        default=None,
        metadata={
            "group": "evaluation",
            "help": "cider_d and spider: file of document frequencies, .json, .npz or a published pickle (default: the split's own)",
        },
    )
    eval_args: str = field(
        default="{}",
        metadata={
            "group": "evaluation",
            "help": 'options of generation at validation as JSON, e.g. \'{"beam": 5, "max_len_b": 22}\'',
        },
    )
    eval_print_samples: int = field(
        default=0, metadata={"group": "evaluation", "help": "log this many generated samples per validation"}
    )
    validate_with: VALIDATE_WITH = field(  # type: ignore[valid-type]
        default="model",
        metadata={
            "group": "evaluation",
            "help": "weights that validation uses in training with --store-ema: the model's, their moving average (the best checkpoint is"
            " chosen by it, and checkpoint_best_ema.pt has it as its weights), or both (the model's own scores are model_<name> then)",
        },
    )
    weights: WEIGHTS = field(  # type: ignore[valid-type]
        default="model",
        metadata={
            "group": "evaluation",
            "help": "weights that generate and validate take from --path: the model's, or their moving average, which --store-ema keeps",
        },
    )
    dtype: DTYPES = field(  # type: ignore[valid-type]
        default="fp32",
        metadata={
            "group": "evaluation",
            "help": "type of numbers in which generate computes; weights are converted once. int8: linear layers are quantised, on CPUs",
        },
    )
    skip_checks: bool = field(
        default=False,
        metadata={
            "group": "data",
            "help": "before the first update, do not read a row of every table nor try loss and generation on a few rows",
        },
    )
    closed_set: Optional[str] = field(
        default=None,
        metadata={"group": "task", "help": "file with the answers that a slot with closed_set may have, one a line"},
    )


def add_newer_options(cfg: Any) -> None:
    """Add the options of the core that a checkpoint's options lack, since they came after it, with their defaults."""
    newer = {option.name: option.default for option in fields(CoreTaskConfig) if "help" in option.metadata and option.name not in cfg}
    with open_dict(cfg):
        cfg.update(newer)


if TYPE_CHECKING:

    class UnivalTaskConfig(CoreTaskConfig):
        """The options of a task, those of all modalities among them."""

        def __getattr__(self, name: str) -> Any: ...
else:
    # fairseq's own come last: where a task's option links to one of them, the task has it
    _known = {f.name: "fairseq" for c in vars(configs).values() if is_dataclass(c) for f in fields(c)}
    owners(MODALITIES, {**_known, **dict.fromkeys(CoreTaskConfig.__dataclass_fields__, "the task")})
    UnivalTaskConfig = compose(
        "UnivalTaskConfig",
        __name__,
        CoreTaskConfig,
        [task_field(option) for modality in MODALITIES.values() for option in declared(modality.options)],
        "Options of ``--task unival`` and of the tasks derived from it: the core's and those of all modalities.",
    )
