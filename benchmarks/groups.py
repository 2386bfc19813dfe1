"""Times a training step of a mixed batch, and of its groups run alone: images, videos, audio and text, forward and backward.

    python benchmarks/groups.py [--against FOLDER] [--rounds 5] [--arch unival_base] [--batch 2]

Random weights and inputs, label smoothing, float32.  The mixed batch runs as groups within one forward of the model; the ratio says what
that costs compared with the sum of the groups, each in a batch of its own: 1 if being mixed is free.  The ratio of the floating-point
operations stands beside that of the seconds, since it does not depend on how busy the machine is.
"""

import argparse
from collections.abc import Mapping, Sequence
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
    text_input,
    training_input,
)
from torch.utils.flop_counter import FlopCounterMode


class Steps:
    """A model in training, and groups of each kind of media."""

    def __init__(self, args: argparse.Namespace) -> None:
        vocabulary = dictionary(args.vocabulary)
        self.clock = args.clock
        self.model = build_model(args.arch, vocabulary, modalities="image,video,audio", audio_hop_size=args.audio_hop).train()
        self.criterion = label_smoothed(vocabulary)
        shapes = {
            "image": (args.batch, 3, args.image_size, args.image_size),
            "video": (args.batch, 3, args.frames, args.frame_size, args.frame_size),
            "audio": (args.batch, args.audio_samples),
            "": (),
        }
        self.groups = []
        for modality, shape in shapes.items():
            group = text_input(vocabulary, args.batch, args.source, args.target)
            if modality:
                group["media"] = training_input(self.model, modality, shape)
            self.groups.append(group)

    def step(self, groups: Sequence[Mapping[str, Any]]) -> None:
        """Forward and backward of a batch of groups."""
        target = torch.cat([group["prev_output_tokens"] for group in groups])
        self.model.zero_grad(set_to_none=True)
        loss, *_ = self.criterion(self.model, {"net_input": {"groups": groups}, "target": target})
        loss.backward()

    def operations(self, *batches: Sequence[Mapping[str, Any]]) -> int:
        """Floating-point operations of the steps of some batches."""
        with FlopCounterMode(display=False) as counter:
            for groups in batches:
                self.step(groups)
        return counter.get_total_flops()

    def measure(self) -> dict[str, float]:
        """The seconds of all groups alone and of the mixed batch, and the ratios."""
        watch = Stopwatch(self.clock)
        with watch.part("groups alone"):
            for group in self.groups:
                self.step([group])
        with watch.part("mixed"):
            self.step(self.groups)
        return {**watch.parts, "mixed : alone": watch.parts["mixed"] / watch.parts["groups alone"]}


def figures(args: argparse.Namespace) -> tuple[Builders, str]:
    def mixed() -> Figure:
        steps = Steps(args)
        ratio = steps.operations(steps.groups) / steps.operations(*([group] for group in steps.groups))
        return lambda: {**steps.measure(), "operations, mixed : alone": ratio}

    name = f"{args.batch} images, videos, audio and texts"
    return {name: mixed}, f"{args.arch}, {args.image_size} px, {args.frames} x {args.frame_size} px, {args.threads} threads"


def parser() -> argparse.ArgumentParser:
    result = arguments(__doc__)
    result.add_argument("--batch", type=int, default=2, help="rows of each kind (default: %(default)s)")
    result.add_argument("--image-size", type=int, default=224)
    result.add_argument("--frames", type=int, default=4)
    result.add_argument("--frame-size", type=int, default=112)
    result.add_argument("--audio-samples", type=int, default=144000, help="3 seconds at 48 kHz (default: %(default)s)")
    result.add_argument("--audio-hop", type=int, default=480, help="samples between frames of the spectrogram (default: %(default)s)")
    result.add_argument("--source", type=int, default=10, help="source tokens (default: %(default)s)")
    result.add_argument("--target", type=int, default=20, help="target tokens (default: %(default)s)")
    return model_arguments(result)


if __name__ == "__main__":
    main(__file__, parser(), figures)
