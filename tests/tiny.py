"""A tiny model and tiny data for tests that need neither golden values nor downloads."""

import json
import pathlib
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from omegaconf import OmegaConf
from PIL import Image

from unival.models.config import UnivalConfig
from unival.models.unival import UnivalModel
from unival.vocab import Vocabulary, train_vocabulary

WORDS = ["red", "green", "blue", "square", "circle", "above", "left", "of", "a", "the"]


def vocabulary(folder: pathlib.Path, num_codes: int = 16, num_bins: int = 10) -> Vocabulary:
    """A byte-level BPE trained on a few sentences."""
    texts = [
        " a red square above a green circle",
        " a blue circle left of the red square",
        " what does the image describe?",
    ]
    train_vocabulary(texts * 3, 300, folder)
    return Vocabulary.load(folder, num_codes, num_bins)


def model(vocab: Vocabulary, seed: int = 0, **changes: Any) -> UnivalModel:
    """Width 32, two layers per side, small CNNs, without dropout unless asked for; eval mode."""
    sizes = {
        "encoder_embed_dim": 32,
        "encoder_ffn_embed_dim": 64,
        "encoder_layers": 2,
        "encoder_attention_heads": 2,
        "decoder_ffn_embed_dim": 64,
        "decoder_layers": 2,
        "decoder_attention_heads": 2,
        "dropout": 0.0,
        "encoder_drop_path_rate": 0.0,
        "decoder_drop_path_rate": 0.0,
        "image_backbone": "resnet10",
        "video_backbone": "resnext3d14",
        "audio_backbone": "cnn6",
        "code_image_size": 32,
    }
    torch.manual_seed(seed)
    built = UnivalModel.build_model(
        OmegaConf.structured(UnivalConfig(**{**sizes, **changes})), SimpleNamespace(source_dictionary=vocab.dictionary)
    )
    with torch.no_grad():  # larger than BERT's initialisation, so that differences show
        for name, parameter in built.named_parameters():
            if parameter.dim() == 2 and "backbone" not in name:
                parameter.mul_(8)
    return built.eval()


def write_table(
    folder: pathlib.Path, rows: int = 8, size: int = 40, name: str = "train.jsonl", seed: int = 0
) -> pathlib.Path:
    """A JSONL table of coloured noise images with two captions each."""
    rng = np.random.default_rng(seed)
    (folder / "images").mkdir(parents=True, exist_ok=True)
    lines = []
    for i in range(rows):
        pixels = rng.integers(0, 256, (size, size + 8, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / "images" / f"{name}-{i}.png")
        words = rng.choice(WORDS, size=4).tolist()
        captions = [" ".join(words), " ".join(words[::-1])]
        lines.append(json.dumps({"id": f"row-{i}", "image": f"images/{name}-{i}.png", "caption": captions}))
    path = folder / name
    path.write_text("\n".join(lines) + "\n")
    return path


def write_data(folder: pathlib.Path, train: int, valid: int) -> pathlib.Path:
    """A folder as training takes it: tables of so many rows, and their vocabulary without codes and bins."""
    write_table(folder, rows=train, name="train.jsonl")
    write_table(folder, rows=valid, name="valid.jsonl", seed=1)
    vocabulary(folder / "vocab", num_codes=0, num_bins=0)
    return folder


def write_video(path: pathlib.Path, frames: int = 10, size: int = 64, seed: int = 0) -> None:
    """An animated WebP of a bright square that moves over a dark ground."""
    rng = np.random.default_rng(seed)
    background = rng.integers(0, 80, (size, size, 3), dtype=np.uint8)
    pictures = []
    for i in range(frames):
        picture = background.copy()
        left = i * (size - 10) // max(frames - 1, 1)
        picture[10:20, left : left + 10] = 255
        pictures.append(Image.fromarray(picture))
    pictures[0].save(path, save_all=True, append_images=pictures[1:], duration=50, lossless=True)


def write_sound(path: pathlib.Path, seconds: float = 1.0, rate: int = 16000, seed: int = 0) -> None:
    """A wav of a tone with noise."""
    import soundfile

    rng = np.random.default_rng(seed)
    time = np.arange(round(seconds * rate)) / rate
    tone = 0.3 * np.sin(2 * np.pi * rng.uniform(200, 4000) * time) + 0.05 * rng.standard_normal(len(time))
    soundfile.write(path, tone, rate)


def write_media_table(folder: pathlib.Path, rows: int = 6, name: str = "train.jsonl", seed: int = 0) -> pathlib.Path:
    """A JSONL table whose rows have an image, a video, a sound and a caption."""
    path = write_table(folder, rows, name=name, seed=seed)
    lines = []
    for i, line in enumerate(path.read_text().splitlines()):
        write_video(folder / "images" / f"{name}-{i}.webp", seed=seed + i)
        write_sound(folder / "images" / f"{name}-{i}.wav", seed=seed + i)
        media = {"video": f"images/{name}-{i}.webp", "audio": f"images/{name}-{i}.wav"}
        lines.append(json.dumps({**json.loads(line), **media}))
    path.write_text("\n".join(lines) + "\n")
    return path
