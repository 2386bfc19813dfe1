"""Times the Python API: loading a model, and captions of images.

    python benchmarks/api.py [--against FOLDER] [--rounds 5] [--images 64] [--beam 5] [--tokens 16] [--arch unival_base]

A checkpoint of random weights; images of 640 x 480, read from JPEGs and resized to 480 pixels.  Both trees caption in float32; this one in
bfloat16 and int8, too.
"""

import argparse
import contextlib
import pathlib
import tempfile
from collections.abc import Iterator
from functools import partial

import numpy as np
from harness import Builders, Figure, Stopwatch, arguments, main, model_arguments

TYPES = {"fp32": {}, "bf16": {"dtype": "bf16"}, "int8": {"dtype": "int8"}}  # the other tree may have no option for the first


@contextlib.contextmanager
def files(args: argparse.Namespace) -> Iterator[list[str]]:
    """A folder with a checkpoint and images."""
    from merging import write_model
    from PIL import Image

    with tempfile.TemporaryDirectory() as temporary:
        folder = pathlib.Path(temporary)
        write_model(folder / "model.pt", args.arch, args.vocabulary)
        rng = np.random.default_rng(0)
        for i in range(args.images):
            coarse = Image.fromarray(rng.integers(0, 256, (15, 20, 3), dtype=np.uint8))
            coarse.resize((640, 480), Image.Resampling.BICUBIC).save(folder / f"{i}.jpg", quality=90)
        yield ["--folder", str(folder)]


def captions(name: str, args: argparse.Namespace) -> Figure:
    """The seconds of loading, and of captions of all images."""
    from unival.hub import from_checkpoint

    images = [args.folder / f"{i}.jpg" for i in range(args.images)]
    options = {"beam": args.beam, "min_len": args.tokens, "max_len_b": args.tokens}

    def run() -> dict[str, float]:
        watch = Stopwatch(args.clock)
        with watch.part("load"):
            model = from_checkpoint(args.folder / "model.pt", **TYPES[name])
        with watch.part(f"{args.images} images"):
            assert len(model.caption(images, **options)) == len(images)
        return watch.parts

    return run


def figures(args: argparse.Namespace) -> tuple[Builders, str]:
    note = f"{args.arch}, beam {args.beam}, {args.tokens} tokens, {args.threads} threads"
    return {name: partial(captions, name, args) for name in TYPES}, note


def parser() -> argparse.ArgumentParser:
    result = arguments(__doc__)
    result.add_argument("--images", type=int, default=64, help="images to caption (default: %(default)s)")
    result.add_argument("--tokens", type=int, default=16, help="tokens of a caption (default: %(default)s)")
    result.add_argument("--beam", type=int, default=5, help="(default: %(default)s)")
    result.add_argument("--folder", type=pathlib.Path, help=argparse.SUPPRESS)
    return model_arguments(result)


if __name__ == "__main__":
    main(__file__, parser(), figures, prepare=files)
