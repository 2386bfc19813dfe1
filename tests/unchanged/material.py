"""Tables, media and weights made by formula, so that the record needs no other files; and the command lines that it is of."""

import base64
import fractions
import io
import json
import math
import os
import pathlib
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from PIL import Image

HERE = pathlib.Path(__file__).parent
ROWS, VALID_ROWS = 7, 3
COLOURS, SHAPES = ("red", "green", "blue", "yellow"), ("square", "circle", "triangle")
ANSWERS = ("red", "red square", "blue circle", "green")
RATE = 16000

CAPTION = "[IMAGE:image] what does the image describe? -> [TEXT:caption,no_punctuation,max_length=20]"
CLOSED = (
    "[IMAGE:image] [TEXT:question,uncased] -> [TEXT:answer,closed_set]"
    " ||| [TEXT:question]? [IMAGE:image] -> [TEXT:answer,closed_set]"
)
VIDEO = "[VIDEO:video] what does the video describe? -> [TEXT:caption]"
AUDIO = "[AUDIO:audio] what does the audio describe? -> [TEXT:caption]"
BOTH = "[VIDEO:film] with [AUDIO:audio] and [IMAGE:image] [IMAGE:other] -> it is [TEXT:caption]"
TEXT = "[TEXT:question] -> [TEXT:caption,max_length=3]"
PREFIX = "[TEXT:question,max_length=4] -> [TEXT:question,no_loss] is [TEXT:caption,uncased]"

NARROW = [
    *("--arch", "unival_tiny", "--encoder-embed-dim", "16", "--encoder-ffn-embed-dim", "32", "--decoder-ffn-embed-dim", "32"),
    *("--encoder-attention-heads", "2", "--decoder-attention-heads", "2", "--encoder-layers", "1", "--decoder-layers", "1"),
    *("--max-source-positions", "64", "--max-target-positions", "64", "--token-bucket-size", "16", "--image-bucket-size", "8"),
    *("--code-image-size", "32", "--audio-hop-size", "160", "--audio-fmax", "8000", "--audio-mel-bins", "32", "--audio-window-size", "512"),
]
SMALL = [  # two layers, so that stochastic depth is there
    *NARROW,
    *("--encoder-embed-dim", "32", "--encoder-ffn-embed-dim", "64", "--decoder-ffn-embed-dim", "64"),
    *("--encoder-layers", "2", "--decoder-layers", "2", "--image-bucket-size", "42", "--token-bucket-size", "64"),
]
LOOP = [  # a large epsilon, so that Adam does not make differences of rounding larger
    *("--criterion", "unival_label_smoothed", "--label-smoothing", "0.1", "--optimizer", "adam", "--adam-eps", "1e-3", "--lr", "3e-3"),
    *("--lr-scheduler", "polynomial_decay", "--total-num-update", "100", "--clip-norm", "1.0", "--weight-decay", "0.01"),
    *("--batch-size", "3", "--cpu", "--required-batch-size-multiple", "1", "--disable-validation", "--no-epoch-checkpoints"),
    *("--patch-image-size", "32", "--image-backend", "pil", "--frame-resize", "pil", "--vocab-dir", "vocab"),
    *("--num-codes", "0", "--num-bins", "0"),
    *("--log-format", "json", "--log-interval", "100", "--skip-checks", "--num-workers", "0"),
]
STILL = ["--dropout", "0", "--encoder-drop-path-rate", "0", "--decoder-drop-path-rate", "0"]


def plain(instruction: str, **options: Any) -> dict[str, Any]:
    """The task of any instruction over the JSONL tables: its options by name."""
    media = {"patch_frame_size": 64, "num_frames": 4, "audio_sample_rate": RATE, "max_audio_seconds": 1.0}
    return {"data": "data", "_name": "unival", "instruction": instruction, **media, **options}


TASKS: dict[str, dict[str, Any]] = {
    "caption": {"data": "data", "_name": "unival_caption"},
    "published tsv": {"data": "tsv", "_name": "unival_caption"},
    "closed set": plain(CLOSED, closed_set="answers.txt"),
    "video": plain(VIDEO),
    "video, augmented": plain(VIDEO, use_dataaug=True),
    "audio": plain(AUDIO),
    "several media": plain(BOTH, imagenet_mean_and_std=True, frame_fit="squash", audio_filling="pad"),
    "mixed media": plain(f"{VIDEO} ||| {AUDIO} ||| {CAPTION} ||| {TEXT}"),
    "text": plain(PREFIX, max_src_length=4),
    "video and audio": plain("[VIDEO:video] [AUDIO:audio] what is it? -> [TEXT:caption]"),
}


def flags_of(name: str) -> list[str]:
    """A task as the beginning of a command line."""
    given = dict(TASKS[name])
    flags = [given.pop("data"), "--task", given.pop("_name")]
    for option, value in given.items():
        flags += [f"--{option.replace('_', '-')}"] + ([] if value is True else [str(value)])
    return flags


RUNS = {  # name -> flags of a run of 20 updates, or of as many as UPDATES says
    "caption": [*flags_of("caption"), *SMALL, *STILL, *LOOP, "--update-freq", "2"],
    "caption, dropout": [*flags_of("caption"), *SMALL, *LOOP, "--attention-dropout", "0.1", "--activation-dropout", "0.1"],
    "caption, encouraging": [*flags_of("caption"), *SMALL, *STILL, *LOOP, "--criterion", "unival_encouraging", "--drop-worst-ratio", "0.2"],
    "closed set": [*flags_of("closed set"), *SMALL, *STILL, *LOOP],
    "video and audio": [*flags_of("video and audio"), *SMALL, *STILL, *LOOP],
}
UPDATES = {"caption, encouraging": 8, "closed set": 8, "video and audio": 4}
# The run that is stored as it stopped within its second epoch: its image CNN follows from a formula and is not trained.
STOPPED = [*flags_of("caption"), *NARROW, *LOOP, "--freeze-image-backbone", "--scale-resids", "--lr", "2e-2", "--batch-size", "2"]
STOPPED_AFTER, GOES_ON = 6, 5


@contextmanager
def working_in(folder: pathlib.Path) -> Iterator[None]:
    """Run there: what checkpoints keep of command lines is relative to it."""
    before = pathlib.Path.cwd()
    os.chdir(folder)
    try:
        yield
    finally:
        os.chdir(before)


def picture(number: int) -> np.ndarray:
    """Pixels h x w x 3 of waves whose directions and sizes follow from a number."""
    height, width = 40 + 3 * number % 17, 52 - 5 * number % 13
    y, x = np.mgrid[:height, :width]
    waves = [(3 + number) * x + (7 + channel * number) * y + 31 * channel * number for channel in range(3)]
    return (np.stack(waves, axis=-1) * 2 % 256).astype(np.uint8)


def frames(number: int, count: int = 10) -> list[np.ndarray]:
    """A bright square that moves over a picture."""
    ground = np.resize(picture(number), (48, 64, 3)) // 3
    shown = []
    for i in range(count):
        frame = ground.copy()
        frame[8 + number : 24 + number, 5 * i : 5 * i + 12] = 250 - 9 * i
        shown.append(frame)
    return shown


def write_film(path: pathlib.Path, number: int) -> None:
    """Frames in a lossless codec."""
    import av

    with av.open(str(path), "w") as out:
        stream = out.add_stream("ffv1", rate=10)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "bgr0"
        stream.codec_context.thread_count = 1
        for i, pixels in enumerate(frames(number)):
            frame = av.VideoFrame.from_ndarray(pixels, format="rgb24").reformat(format="bgr0")
            frame.pts, frame.time_base = i, fractions.Fraction(1, 10)
            out.mux(stream.encode(frame))
        out.mux(stream.encode())


def write_audio(path: pathlib.Path, number: int) -> None:
    """A tone that rises; every third at another sample rate, lengths around the second that is read."""
    import soundfile

    rate = 22050 if number % 3 == 2 else RATE
    time = np.arange(rate * (7 + number) // 10) / rate
    soundfile.write(path, 0.4 * np.sin(2 * np.pi * (200 + 90 * number + 300 * time) * time), rate, subtype="PCM_16")


def write_row(folder: pathlib.Path, name: str, i: int, number: int) -> dict[str, object]:
    """The media of a row, and its record in the JSONL tables."""
    stem = f"{name}-{i}"
    image = Image.fromarray(picture(number))
    image = [image, image.convert("L"), image.convert("RGBA"), image.convert("P")][number % 4]
    if number % 4 == 2:
        image.putalpha(Image.fromarray(picture(number + 1)[..., 0]).resize(image.size))
    image.save(folder / f"{stem}.png")
    shown = [Image.fromarray(frame) for frame in frames(number)]
    shown[0].save(folder / f"{stem}.webp", save_all=True, append_images=shown[1:], duration=100, lossless=True)
    write_film(folder / f"{stem}.mkv", number)
    write_audio(folder / f"{stem}.wav", number)
    colour, other, shape = COLOURS[number % 4], COLOURS[number // 4 % 4], SHAPES[number % 3]
    captions = [f"A {colour} {shape}, above a {other} circle!", f"the {shape} is {colour}", f"{other} circle & {colour} {shape}"]
    return {
        "id": stem,
        "image": f"{stem}.png",
        "other": f"{name}-0.png",
        "video": f"{stem}.webp",
        "film": f"{stem}.mkv",
        "audio": f"{stem}.wav",
        "question": [f"What is the {shape} LIKE number {number}", f"and what is {colour}"],
        "caption": captions[: 1 + number % 3],
        "answer": ANSWERS[number % 4],
    }


def write(folder: pathlib.Path) -> pathlib.Path:
    """Everything that the command lines name, below ``folder``."""
    shutil.copytree(HERE / "vocab", folder / "vocab")
    (folder / "data").mkdir()
    (folder / "tsv").mkdir()
    (folder / "answers.txt").write_text("\n".join(ANSWERS) + "\n")
    for name, rows, first in (("train", ROWS, 0), ("valid", VALID_ROWS, 20)):
        records = [write_row(folder / "data", name, i, first + i) for i in range(rows)]
        lines = [json.dumps(record) + "\n" for record in records]
        (folder / "data" / f"{name}.jsonl").write_text("".join(lines))
        lines = []
        for record in records:
            cell = base64.urlsafe_b64encode((folder / "data" / str(record["image"])).read_bytes()).decode()
            captions = record["caption"]
            assert isinstance(captions, list)
            lines.append("\t".join([str(record["id"]), "x", "&&".join(captions), "y", cell]) + "\n")
        (folder / "tsv" / f"{name}.tsv").write_text("".join(lines))
    return folder


def write_backbone(path: pathlib.Path, shapes: dict[str, Sequence[int]]) -> None:
    """Weights of a CNN from few values in a short period, which compress well."""
    state = {}
    for key, shape in shapes.items():
        count = math.prod(shape)
        values = torch.arange(count) * 5 % 13 - 6.0
        scale = 0.5 / max(1, count // shape[0]) ** 0.5
        state[key] = torch.ones(shape) if len(shape) == 1 else (values * scale).view(*shape)
        if key.endswith(("bias", "running_mean")):
            state[key] = torch.zeros(shape)
    torch.save(state, path)


def image_file(folder: pathlib.Path, number: int) -> bytes:
    """An image that is in no table, as a file."""
    buffer = io.BytesIO()
    Image.fromarray(picture(number)).save(buffer, "png")
    return buffer.getvalue()
