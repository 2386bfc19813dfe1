"""Make tables of a task from sampler data: what is asked about an image, video or recording, and what is right.

python data_utils/build_sampler.py --out sampler/image
python data_utils/sampler_tasks.py --data sampler/image --task vqa --out sampler/vqa

Writes train, valid and test, for fairseq-train OUT --media-root DATA, answers.txt where there are candidate answers, and three
tables that show what the scores of test are worth: test_other_media has the same rows with another row's image, video or
recording (needs test_swapped in DATA); test_other_text has the text of another row about the same image, and what was right before;
guesses-test.txt, in the format of fairseq-generate, is what somebody says who knows train and does not look.
"""

import argparse
import json
import pathlib
import sys
from collections.abc import Iterable, Sequence
from typing import Any

from common.groups import by_file
from sampler import tasks
from sampler.errors import UserError
from sampler.tables import BUILDER, MANIFEST

SPLITS = {"train": "train", "valid": "valid", "test": "test", "test_other_media": "test_swapped"}  # ours -> the data's


def parser() -> argparse.ArgumentParser:
    """The command's argument parser."""
    made = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("--data", required=True, type=pathlib.Path, help="folder that build_sampler.py has written")
    made.add_argument("--task", required=True, choices=tasks.TASKS, help="what is asked")
    made.add_argument("--out", required=True, type=pathlib.Path, help="folder for the tables; those of an earlier run are replaced")
    made.add_argument("--test-rows", type=int, help="rows of test at most: the first ones (default: all)")
    made.add_argument(
        "--row-per-file",
        action="store_true",
        help="train: a row for each image, video or recording, with lists of what is asked about it, for --builder grouped",
    )
    return made


def build(
    data: pathlib.Path, name: str, out: pathlib.Path, test_rows: int | None = None, row_per_file: bool = False
) -> dict[str, int]:
    """Write the tables; returns how many rows each has.

    Raises:
        UserError: ``data`` is no sampler data, or not of the media that the task is about.
    """
    task = tasks.TASKS[name]
    file = data / MANIFEST
    manifest = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
    if manifest.get("builder", {}).get("name") != BUILDER:
        raise UserError(f"--data {data}: is not sampler data (python data_utils/build_sampler.py makes it)")
    records = {split: _records(data / f"{source}.jsonl") for split, source in SPLITS.items() if (data / f"{source}.jsonl").is_file()}
    absent = next((split for split in ("train", "valid", "test") if not records.get(split)), None)
    if absent:
        raise UserError(f"--data {data}: there are no rows of {absent}")
    medium = next((column for column in task.media if column in records["train"][0]), None)
    if medium is None:
        raise UserError(f"--data {data}: --task {name} is about {' or '.join(task.media)}, which these rows do not have")
    seed, names = manifest["builder"]["arguments"]["seed"], sorted(manifest["objects"])
    made = {split: tasks.table(task, medium, rows, names, (seed, len(split.partition("_")[0]))) for split, rows in records.items()}
    empty = tasks.empty_questions(task, made["train"])
    made = {split: [row for row in rows if row.get(task.asked) not in empty] for split, rows in made.items()}
    for split in ("test", "test_other_media"):
        if split in made and test_rows is not None:
            made[split] = made[split][:test_rows]
    if task.asked:
        made["test_other_text"] = tasks.asked_otherwise(task, made["test"])
    out.mkdir(parents=True, exist_ok=True)
    for split, rows in made.items():
        if row_per_file and split == "train":
            rows = by_file(rows, medium)
        _write(out / f"{split}.jsonl", (json.dumps(row, ensure_ascii=False) for row in rows))
    guesses = tasks.guesses(task, made["train"], made["test"], names)
    _write(out / "guesses-test.txt", (f"D-{row}\t0\t{text}" for row, text in enumerate(guesses)))
    if task.answers != ():
        _write(out / "answers.txt", task.answers or sorted({row[task.reference] for row in made["train"]}))
    return {split: len(rows) for split, rows in made.items()}


def _records(path: pathlib.Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def _write(path: pathlib.Path, lines: Iterable[str]) -> None:
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8", newline="\n")


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns the exit code: 0, or 2 for invalid input."""
    args = parser().parse_args(argv)
    try:
        counts = build(args.data, args.task, args.out, args.test_rows, args.row_per_file)
    except (UserError, OSError) as error:
        sys.stderr.write(f"error: {error}\n")
        return 2
    sys.stdout.write(f"{args.out}: {', '.join(f'{split} {count}' for split, count in counts.items())}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
