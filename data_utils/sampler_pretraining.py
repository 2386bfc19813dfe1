"""Make all tables of a pretraining from sampler data, and the mixture of its curriculum: texts, then images, then images and videos.

python data_utils/build_sampler.py --out data/image
python data_utils/build_sampler.py --out data/video --media video
python data_utils/build_sampler.py --out data/audio --media audio
python data_utils/sampler_pretraining.py --image data/image --video data/video --audio data/audio --out data

Writes STREAM-train.jsonl, STREAM-valid.jsonl and STREAM-test.jsonl for the streams text, captions, questions, regions, video_captions and
video_questions; test tables of the second tasks of their rows, matching and region_captions; answers.txt and video_answers.txt with the
candidate answers; mixture.yaml, which trains on them; and tables of audio_captions, which it does not have: they are for what comes after.
Training tables of questions and regions have a row for each image or video, with all that is asked of it.
"""

import argparse
import json
import pathlib
import shutil
import sys
from collections.abc import Iterable, Sequence

from common.groups import by_file
from sampler import pretraining
from sampler.errors import UserError

MIXTURE = pathlib.Path(__file__).resolve().parent / "sampler" / "mixture.yaml"
ALSO_TESTED = {"captions": ("matching", pretraining.to_match), "regions": ("region_captions", list)}  # the second tasks of these rows
ANSWERS = {"questions": "answers.txt", "video_questions": "video_answers.txt"}
BY_FILE = {"questions": "image", "video_questions": "video", "regions": "image"}  # in train: their medium


def parser() -> argparse.ArgumentParser:
    """The command's argument parser."""
    made = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for medium in pretraining.MEDIA:
        made.add_argument(f"--{medium}", required=True, type=pathlib.Path, metavar="DIR", help=f"sampler data of --media {medium}")
    made.add_argument("--out", required=True, type=pathlib.Path, help="folder for the tables; those of an earlier run are replaced")
    made.add_argument("--valid-rows", type=int, help="rows of every validation table at most, at even distances (default: all)")
    made.add_argument("--test-rows", type=int, help="rows of every test table at most, at even distances (default: all)")
    return made


def build(folders: dict[str, pathlib.Path], out: pathlib.Path, most: dict[str, int | None]) -> dict[str, dict[str, int]]:
    """Write the tables; returns how many rows each has, by stream and split.

    Args:
        folders: sampler data by medium.
        out: folder for the tables.
        most: rows at most, by split; None: all.

    Raises:
        UserError: a folder is no sampler data, or of another medium.
    """
    for split, rows in most.items():
        if rows is not None and rows < 1:
            raise UserError(f"--{split}-rows {rows}: must be at least 1")
    media = {name: pretraining.read_medium(name, folder) for name, folder in folders.items()}
    counts = {}
    out.mkdir(parents=True, exist_ok=True)
    for name, stream in pretraining.STREAMS.items():
        made = pretraining.tables(stream, media, out)
        made = {split: evenly(rows, most.get(split)) for split, rows in made.items()}
        if name == "text":
            made["test"] = pretraining.with_spans_masked(made["test"], media["image"].seed)
        answers = {row["answer"] for row in made["train"]} if name in ANSWERS else set()
        if name in BY_FILE:
            made["train"] = by_file(made["train"], BY_FILE[name], nested=("answer",))
        for split, rows in made.items():
            _write(out / f"{name}-{split}.jsonl", (json.dumps(row, ensure_ascii=False) for row in rows))
        if name in ALSO_TESTED:
            also, change = ALSO_TESTED[name]
            _write(out / f"{also}-test.jsonl", (json.dumps(row, ensure_ascii=False) for row in change(made["test"])))
        if name in ANSWERS:
            _write(out / ANSWERS[name], sorted(answers))
        counts[name] = {split: len(rows) for split, rows in made.items()}
    shutil.copyfile(MIXTURE, out / MIXTURE.name)
    return counts


def evenly(rows: Sequence[dict], most: int | None) -> list[dict]:
    """``most`` rows at even distances, or all."""
    count = len(rows) if most is None else min(most, len(rows))
    return [rows[number * len(rows) // count] for number in range(count)]


def _write(path: pathlib.Path, lines: Iterable[str]) -> None:
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8", newline="\n")


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns the exit code: 0, or 2 for invalid input."""
    args = parser().parse_args(argv)
    folders = {medium: getattr(args, medium) for medium in pretraining.MEDIA}
    try:
        counts = build(folders, args.out, {"valid": args.valid_rows, "test": args.test_rows})
    except (UserError, OSError) as error:
        sys.stderr.write(f"error: {error}\n")
        return 2
    for name, rows in counts.items():
        sys.stdout.write(f"{name}: {', '.join(f'{split} {count}' for split, count in rows.items())}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
