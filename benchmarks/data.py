"""Times reading of media in one process: images of 640 x 480 to 384 pixels per side, and 8 of the 300 frames of videos.

    python benchmarks/data.py [--against FOLDER] [--rounds 5] [--rows 64] [--videos 2]

The rows of made tables go through a task's own batches, as training takes them.  ``--against`` measures another commit's worktree in
turns, on the same files.  Rows per second are ``--rows`` divided by the seconds.
"""

import argparse
import contextlib
import json
import pathlib
import tempfile
from collections.abc import Iterator
from functools import partial

import numpy as np
from harness import Builders, Figure, Stopwatch, arguments, main

CAPTION = "a red square above a green circle"
INSTRUCTIONS = {
    "image": "[IMAGE:image] what does the image describe? -> [TEXT:caption]",
    "video": "[VIDEO:video] what does the video describe? -> [TEXT:caption]",
}


@contextlib.contextmanager
def tables(args: argparse.Namespace) -> Iterator[list[str]]:
    """A folder with a table of images and one of videos, and a vocabulary."""
    from PIL import Image
    from video import CLIPS, clip

    from unival.vocab import train_vocabulary

    with tempfile.TemporaryDirectory() as temporary:
        folder = pathlib.Path(temporary)
        train_vocabulary([f" {CAPTION}", *(f" {text}" for text in INSTRUCTIONS.values())], 300, folder / "vocab")
        rng = np.random.default_rng(0)
        for i in range(args.rows):
            coarse = Image.fromarray(rng.integers(0, 256, (30, 40, 3), dtype=np.uint8)).resize((640, 480), Image.Resampling.BICUBIC)
            noise = rng.integers(0, 16, (480, 640, 3)).astype(np.uint8)
            Image.fromarray(np.asarray(coarse) // 2 + noise).save(folder / f"{i}.jpg", quality=90)
        if args.videos:
            data = clip(*CLIPS["H.264 640x480, keyint 250"])
        for i in range(args.videos):
            (folder / f"{i}.mp4").write_bytes(data)
        for kind, count, suffix in (("image", args.rows, "jpg"), ("video", args.videos, "mp4")):
            lines = [json.dumps({kind: f"{i}.{suffix}", "caption": CAPTION}) for i in range(count)]
            (folder / f"{kind}.jsonl").write_text("\n".join(lines) + "\n")
        yield ["--folder", str(folder)]


def reading(kind: str, rows: int, args: argparse.Namespace) -> Figure:
    """One epoch of a table's training batches, read in this process."""
    from fairseq import options, tasks
    from fairseq.dataclass.utils import convert_namespace_to_omegaconf

    import unival.tasks  # noqa: F401

    flags = ["--task", "unival", "--arch", "unival_tiny", "--num-codes", "0", "--num-bins", "0", "--batch-size", "4", "--cpu"]
    flags += ["--instruction", INSTRUCTIONS[kind], "--train-subset", kind, "--save-dir", str(args.folder / "out")]
    flags += ["--eval-metrics=", "--disable-validation"]
    parsed = options.parse_args_and_arch(options.get_training_parser(), [str(args.folder), *flags])
    cfg = convert_namespace_to_omegaconf(parsed)
    task = tasks.setup_task(cfg.task)
    task.build_model(cfg.model)  # tells the task that it trains
    task.load_dataset(kind)

    def run() -> dict[str, float]:
        watch = Stopwatch(args.clock)
        iterator = task.get_batch_iterator(task.dataset(kind), max_sentences=4, num_workers=0, disable_iterator_cache=True)
        with watch.part(f"{rows} rows"):
            read = sum(batch["nsentences"] for batch in iterator.next_epoch_itr(shuffle=False))
        assert read == rows, read
        return watch.parts

    return run


def figures(args: argparse.Namespace) -> tuple[Builders, str]:
    counts = {"image": args.rows, "video": args.videos}
    names = {"image": "JPEG, 640 x 480 to 384 px", "video": "8 of 300 frames, H.264 640 x 480"}
    return {names[kind]: partial(reading, kind, rows, args) for kind, rows in counts.items() if rows}, ""


def parser() -> argparse.ArgumentParser:
    result = arguments(__doc__)
    result.add_argument("--rows", type=int, default=64, help="images (default: %(default)s)")
    result.add_argument("--videos", type=int, default=2, help="videos (default: %(default)s)")
    result.add_argument("--folder", type=pathlib.Path, help=argparse.SUPPRESS)
    return result


if __name__ == "__main__":
    main(__file__, parser(), figures, prepare=tables)
