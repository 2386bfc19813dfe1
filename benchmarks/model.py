"""Times training steps of the base model, with images, videos and audio: forward, backward and optimizer.

    python benchmarks/model.py [--against FOLDER] [--rounds 5] [--only caption] [--arch unival_base]

Random weights and inputs, label smoothing, Adam, float32 and bfloat16 autocast.  What a step's floating-point operations would take at
the machine's matmul limit (a square matmul, measured after each step, because the speed of shared machines drifts) stands beside it.
``--against`` measures another commit's worktree in turns.  The peak of the memory is that of all figures measured: choose one by
``--only``.
"""

import argparse
import contextlib
import functools
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from harness import (
    Builders,
    Figure,
    Stopwatch,
    arguments,
    build_model,
    dictionary,
    label_smoothed,
    main,
    model_arguments,
    net_input,
    text_input,
    training_input,
)
from torch.utils.flop_counter import FlopCounterMode

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}


def matmul_seconds(dtype: torch.dtype, size: int, clock: str) -> float:
    """Seconds per floating-point operation of a square matmul: the best of 3."""
    a, b = torch.randn(size, size, dtype=dtype), torch.randn(size, size, dtype=dtype)
    watch = Stopwatch(clock)
    for part in "123":
        with watch.part(part):
            a @ b
    return min(watch.parts.values()) / (2 * size**3)


class Training:
    """A model in training, its optimizer and a batch; the figures of both precisions share it."""

    def __init__(self, modality: str, shape: tuple[int, ...], args: argparse.Namespace, targets: int = 1) -> None:
        vocabulary = dictionary(args.vocabulary)
        self.clock, self.matmul = args.clock, args.matmul
        self.operations = 0  # floating-point operations of matmuls and convolutions in a step
        options = {"audio_hop_size": args.audio_hop} if modality == "audio" else {}
        self.model = build_model(args.arch, vocabulary, modalities=modality, **options).train()
        self.criterion = label_smoothed(vocabulary)
        self.optimizer = torch.optim.Adam(self.model.parameters(), lr=1e-5, fused=True)
        group = text_input(vocabulary, shape[0] * targets, 8, args.target, pad_from=args.target)
        group["media"] = training_input(self.model, modality, shape)
        group["media"][0]["rows"] = torch.arange(shape[0]).repeat_interleave(targets)
        self.sample = {"net_input": net_input(self.model.forward, group), "target": group["prev_output_tokens"]}

    def step(self, dtype: torch.dtype) -> dict[str, float]:
        """The seconds of one step's parts."""
        watch = Stopwatch(self.clock)
        with watch.part("forward"), torch.autocast("cpu", torch.bfloat16, enabled=dtype == torch.bfloat16):
            loss, *_ = self.criterion(self.model, self.sample)
        with watch.part("backward"):
            self.optimizer.zero_grad(set_to_none=True)
            loss.backward()
        with watch.part("optimizer"):
            self.optimizer.step()
        return watch.parts

    def measure(self, dtype: torch.dtype) -> dict[str, float]:
        """The seconds of one step's parts, of all, and at the matmul limit; the first time, which is a warm-up, operations are counted."""
        counter = FlopCounterMode(display=False) if not self.operations else None
        with counter or contextlib.nullcontext():
            parts = self.step(dtype)
        if counter:
            self.operations = counter.get_total_flops()
        limit = self.operations * matmul_seconds(dtype, self.matmul, self.clock)
        return {**parts, "all": sum(parts.values()), "at the matmul limit": limit}


def figures(args: argparse.Namespace) -> tuple[Builders, str]:
    rows, side, frames, frame = args.media_batch, args.image_size, args.frames, args.frame_size
    images = (args.batch, 3, side, side)
    shapes: dict[str, tuple[str, tuple[int, ...], int]] = {
        f"caption, batch {args.batch}, {side} px": ("image", images, 1),
        f"caption and matching, batch {args.batch}, {side} px": ("image", images, 2),  # a builder's two targets of each image
        f"video, batch {rows}, {frames} x {frame} px": ("video", (rows, 3, frames, frame, frame), 1),
        f"audio, batch {rows}, hop {args.audio_hop}": ("audio", (rows, args.audio_samples), 1),
    }

    def step(training: Callable[[], Training], dtype: torch.dtype) -> Figure:
        return partial(training().measure, dtype)

    builders: dict[str, Any] = {}
    for name, (modality, shape, targets) in shapes.items():
        training = functools.cache(partial(Training, modality, shape, args, targets))
        builders |= {f"{name}, {precision}": partial(step, training, dtype) for precision, dtype in DTYPES.items()}
    return builders, f"{args.arch}, {args.target} target tokens, {args.threads} threads, {torch.backends.cpu.get_cpu_capability()}"


def parser() -> argparse.ArgumentParser:
    result = arguments(__doc__)
    result.add_argument("--batch", type=int, default=4, help="images (default: %(default)s)")
    result.add_argument("--image-size", type=int, default=384)
    result.add_argument("--media-batch", type=int, default=2, help="videos, or stretches of audio (default: %(default)s)")
    result.add_argument("--frames", type=int, default=8)
    result.add_argument("--frame-size", type=int, default=224)
    result.add_argument("--audio-samples", type=int, default=480000, help="10 seconds at 48 kHz (default: %(default)s)")
    result.add_argument("--audio-hop", type=int, default=200, help="samples between frames of the spectrogram (default: %(default)s)")
    result.add_argument("--target", type=int, default=20, help="target tokens (default: %(default)s)")
    result.add_argument("--matmul", type=int, default=1024, help="size of the matmul (default: %(default)s)")
    return model_arguments(result)


if __name__ == "__main__":
    main(__file__, parser(), figures)
