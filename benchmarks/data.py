"""Times reading of media in one process, and what a large table costs before it is read.

    python benchmarks/data.py [--against FOLDER] [--rounds 5] [--rows 64] [--videos 2] [--large 10000000]

The rows of made tables go through a task's own batches, as training takes them: images of 640 x 480 to 384 pixels per side, and 8 of the
300 frames of videos.  ``--against`` measures another commit's worktree in turns, on the same files.  Rows per second are ``--rows``
divided by the seconds.  The images are also read as the published code reads them: base64 from a TSV, Pillow's bicubic resize, normalised
floats, in batches of 4; its texts are left out.

The large table has rows of text.  Measured are the seconds to open it (it was indexed before) and to plan an epoch of it, alone in batches
of 4 on one process, or with half of the share beside two tables of 1,000 rows; and in MB the memory that this adds to the process and to a
worker that reads its batches, above what they have with the tables of 1,000 rows.  Pages of files, which all processes share, do not count.
"""

import argparse
import base64
import contextlib
import gc
import io
import json
import multiprocessing
import pathlib
import tempfile
from collections.abc import Iterator
from functools import partial

import numpy as np
import torch
from harness import Builders, Figure, Stopwatch, arguments, main
from PIL import Image

CAPTION = "a red square above a green circle"
PUBLISHED = "the published way"
BLOCK = 10_000  # rows of the large table that are written at a time
INSTRUCTIONS = {
    "image": "[IMAGE:image] what does the image describe? -> [TEXT:caption]",
    "video": "[VIDEO:video] what does the video describe? -> [TEXT:caption]",
}


@contextlib.contextmanager
def tables(args: argparse.Namespace) -> Iterator[list[str]]:
    """A folder with a table of images and one of videos, and a vocabulary."""
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
        images = [base64.urlsafe_b64encode((folder / f"{i}.jpg").read_bytes()).decode() for i in range(args.rows)]
        (folder / "published.tsv").write_text("".join(f"{i}\t{i}\t{CAPTION}\t\t{image}\n" for i, image in enumerate(images)))
        for name, count in (("large", args.large), ("small", min(args.large, 1000))):
            with (folder / f"{name}.jsonl").open("wb") as file:
                line = json.dumps({"id": 1, "text": CAPTION, "label": "blue"}).encode() + b"\n"
                for start in range(0, count, BLOCK):
                    file.write(line * min(BLOCK, count - start))
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
        if kind == "image":
            with watch.part(PUBLISHED):
                read = sum(map(len, published_batches(args.folder / "published.tsv")))
            assert read == rows, read
            watch.parts["this : the published way"] = watch.parts[f"{rows} rows"] / watch.parts[PUBLISHED]
        return watch.parts

    return run


def published_batches(path: pathlib.Path) -> Iterator[torch.Tensor]:
    """The images of a TSV table as the published code reads them: batches of ``4 x 3 x 384 x 384`` floats between -1 and 1."""
    batch = []
    with path.open() as file:
        for line in file:
            cell = line.rstrip("\n").split("\t")[4]
            image = Image.open(io.BytesIO(base64.urlsafe_b64decode(cell))).convert("RGB")
            pixels = torch.from_numpy(np.array(image.resize((384, 384), Image.Resampling.BICUBIC)))
            values = pixels.permute(2, 0, 1).contiguous().to(torch.float32).div(255)
            batch.append(values.sub_(0.5).div_(0.5))
            if len(batch) == 4:
                yield torch.stack(batch)
                batch = []
    if batch:
        yield torch.stack(batch)


def private_megabytes(process: int | str) -> float:
    """The memory that a process has written and shares with no other, in MB."""
    lines = pathlib.Path(f"/proc/{process}/smaps_rollup").read_text().splitlines()
    return sum(int(line.split()[1]) for line in lines if line.startswith("Private_Dirty")) / 1024


def planning(shares: list[float], args: argparse.Namespace) -> Figure:
    """Opens the large table, and small ones if there are several shares, and plans an epoch."""
    from unival.data.mixture import EpochBatches, Mixture
    from unival.data.reading import close_reader
    from unival.data.stream import Stream, TextLimits
    from unival.data.table import open_table
    from unival.instructions import parse
    from unival.modalities import MODALITIES
    from unival.modalities.composed import MediaOptions
    from unival.vocab import Vocabulary

    vocabulary = Vocabulary.load(args.folder / "vocab", 0, 0)
    instruction = parse("[TEXT:text] -> [TEXT:label]", MODALITIES)

    def plan(watch: Stopwatch, *names: str) -> tuple[float, float]:
        """The memory in MB that is added to the process, and that of a worker."""
        gc.collect()
        before = private_megabytes("self")
        with watch.part("open"):
            tables = [open_table(args.folder / f"{name}.jsonl") for name in names]
        streams = [Stream(table, instruction, vocabulary, MediaOptions(), TextLimits(), train=True) for table in tables]
        mixture = Mixture(streams, shares=shares) if len(shares) > 1 else Mixture(streams)
        with watch.part("plan"):
            batches = EpochBatches(mixture, 4, workers=1).next_epoch_itr()
        own = private_megabytes("self") - before
        for _ in range(min(50, len(batches) - 3)):  # the worker ends with the last one
            next(batches)
        (worker,) = multiprocessing.active_children()
        return own, private_megabytes(worker.pid or 0)

    def run() -> dict[str, float]:
        watch = Stopwatch(args.clock)
        small = plan(Stopwatch(args.clock), *["small"] * len(shares))
        large = plan(watch, "large", *["small"] * (len(shares) - 1))
        close_reader()
        names = ("memory of the process, MB", "memory of a worker, MB")
        return {**watch.parts, **{name: with_it - without for name, with_it, without in zip(names, large, small, strict=True)}}

    return run


def figures(args: argparse.Namespace) -> tuple[Builders, str]:
    counts = {"image": args.rows, "video": args.videos}
    names = {"image": "JPEG, 640 x 480 to 384 px", "video": "8 of 300 frames, H.264 640 x 480"}
    builders: Builders = {names[kind]: partial(reading, kind, rows, args) for kind, rows in counts.items() if rows}
    if args.large:
        builders |= {f"{args.large:,} rows": partial(planning, [1.0], args), "in a mixture": partial(planning, [0.5, 0.3, 0.2], args)}
    return builders, ""


def parser() -> argparse.ArgumentParser:
    result = arguments(__doc__)
    result.add_argument("--rows", type=int, default=64, help="images (default: %(default)s)")
    result.add_argument("--videos", type=int, default=2, help="videos (default: %(default)s)")
    result.add_argument("--large", type=int, default=10_000_000, help="rows of the large table (default: %(default)s)")
    result.add_argument("--folder", type=pathlib.Path, help=argparse.SUPPRESS)
    return result


if __name__ == "__main__":
    main(__file__, parser(), figures, prepare=tables)
