"""Options that every task shares."""

from dataclasses import dataclass, field
from typing import Optional  # fairseq's argument parser does not know `str | None`

from fairseq.dataclass import ChoiceEnum
from omegaconf import MISSING

from unival.tasks.run_options import RunOptions

ON_BAD_SAMPLE = ChoiceEnum(["raise", "skip"])


@dataclass
class UnivalTaskConfig(RunOptions):
    """Options of ``--task unival`` and of the tasks derived from it."""

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
            "help": "folder with encoder.json, vocab.bpe and dict.txt (default: vocab/ in the data folder; to evaluate, else the"
            " one in the checkpoint)",
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
    patch_image_size: Optional[int] = field(
        default=None,
        metadata={
            "group": "media",
            "help": "pixels per side that images are resized to (default: the checkpoint's, else 384)",
        },
    )
    image_fit: Optional[str] = field(
        default=None,
        metadata={
            "group": "media",
            "help": "how image files become pixels: as a person sees them, turned by their EXIF orientation, on white where they are"
            " transparent, grey of 16 bits and more scaled (seen), or as the published code reads them, without any of that"
            " (published) (default: the checkpoint's, else seen)",
        },
    )
    imagenet_mean_and_std: bool = field(
        default=False,
        metadata={"group": "media", "help": "normalise pixels by ImageNet's mean and deviation instead of to [-1, 1]"},
    )
    patch_frame_size: Optional[int] = field(
        default=None,
        metadata={"group": "media", "help": "pixels per side of video frames (default: the checkpoint's, else 224)"},
    )
    num_frames: Optional[int] = field(
        default=None,
        metadata={"group": "media", "help": "frames taken from a video (default: the checkpoint's, else 8)"},
    )
    sample_type: Optional[str] = field(
        default=None,
        metadata={
            "group": "media",
            "help": "frames in training: one of each interval at random (rand) or its middle one, as in evaluation (middle)"
            " (default: the checkpoint's, else rand)",
        },
    )
    frame_fit: Optional[str] = field(
        default=None,
        metadata={
            "group": "media",
            "help": "how frames become squares: resize the shorter side and crop the centre (crop), resize both sides (squash),"
            " or crop the centre without resizing, as the published evaluation does (published)"
            " (default: the checkpoint's, else crop)",
        },
    )
    video_backend: Optional[str] = field(
        default=None,
        metadata={
            "group": "media",
            "help": "what decodes videos and their sound tracks: FFmpeg by PyAV, every frame the one asked for (pyav), or decord, as"
            " published, which refuses the files that it may read wrongly (decord) (default: the checkpoint's, else pyav)",
        },
    )
    use_dataaug: bool = field(
        default=False,
        metadata={
            "group": "media",
            "help": "in training, augment video frames: random crops, mirror images, two random operations",
        },
    )
    audio_sample_rate: Optional[int] = field(
        default=None,
        metadata={
            "group": "media",
            "help": "sounds are resampled to this many Hz (default: the checkpoint's, else 48000)",
        },
    )
    max_audio_seconds: Optional[float] = field(
        default=None,
        metadata={
            "group": "media",
            "help": "length of sounds: longer ones are cut, shorter filled up (default: the checkpoint's, else 10)",
        },
    )
    audio_filling: Optional[str] = field(
        default=None,
        metadata={
            "group": "media",
            "help": "how short sounds are filled up: repeated whole, then silence (repeatpad), repeated (repeat), silence (pad)"
            " (default: the checkpoint's, else repeatpad)",
        },
    )
    max_src_length: int = field(
        default=80,
        metadata={"group": "text", "help": "longest source text of a slot in words; longer ones are cut and counted"},
    )
    max_tgt_length: int = field(
        default=30, metadata={"group": "text", "help": "longest target text in words; longer ones are cut and counted"}
    )
    on_bad_sample: ON_BAD_SAMPLE = field(  # type: ignore[valid-type]
        default="raise",
        metadata={"group": "data", "help": "rows that cannot be read, in training: stop, or skip and count them"},
    )
    eval_metrics: Optional[str] = field(
        default=None,
        metadata={
            "group": "evaluation",
            "help": "metrics by generation at validation, e.g. cider,bleu,rouge_l ('' for none; default: the task's own)",
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
