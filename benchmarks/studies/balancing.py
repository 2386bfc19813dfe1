"""Should every task have the same share of a batch, or its share of the rows?  Table 3 of the UnIVAL paper in kind.

Three tasks on drawn images (captions, questions, regions) with 600 rows each, and captions of another kind, which name one thing of two,
with 20 times as many rows, as CC12M beside COCO, VQAv2 and RefCOCO.  Every run makes the same number of updates of 32 rows.

    python benchmarks/studies/balancing.py --work FOLDER
"""

import pathlib
import sys
from collections.abc import Mapping, Sequence
from typing import Any

import frame

TASKS = ("captions", "questions", "regions")
ROWS, LARGER, VALID = 600, 20, 100
SIZE = 48  # pixels


def data(folder: pathlib.Path, small: bool) -> None:
    """Draw the images and write the tables of the streams, and a vocabulary."""
    rows, valid = (20, 4) if small else (ROWS, VALID)
    flags = ["--sprites", "shapes", "--size", str(SIZE), "--objects", "9", "--unseen-objects", "0", "--test-unseen", "0"]
    counts = ["--train", str((1 + LARGER) * rows), "--valid", str(valid), "--test", "8"]
    frame.script("build_sampler.py", "--out", str(folder / "image"), *flags, *counts)
    records = {split: frame.rows(folder / "image" / f"{split}.jsonl") for split in ("train", "valid")}
    for split, scenes in {"train": records["train"][:rows], "valid": records["valid"]}.items():
        made = [rows_of(number, scene) for number, scene in enumerate(scenes)]
        for task in TASKS:
            frame.write(folder / f"{task}-{split}.jsonl", [row[task] for row in made])
    frame.write(folder / "web-train.jsonl", [web_row(number, scene) for number, scene in enumerate(records["train"][rows:])])
    frame.vocabulary(folder, ("captions-train.jsonl", "caption"), ("web-train.jsonl", "caption"), ("questions-train.jsonl", "question"))


def rows_of(number: int, scene: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """A row of each task; questions and things take turns."""
    image = {"image": f"image/{scene['image']}"}
    asked = scene["questions"][1 + number % (len(scene["questions"]) - 1)]  # the first: how many things, always two
    thing = scene["objects"][number % 2]
    return {
        "captions": image | {"caption": scene["caption"]},
        "questions": image | {"question": asked["question"], "answer": asked["answer"]},
        "regions": image | {"text": thing["name"], "box": thing["box"]},
    }


def web_row(number: int, scene: Mapping[str, Any]) -> dict[str, Any]:
    """A caption as of images in the web: of one thing."""
    return {"image": f"image/{scene['image']}", "caption": f"photo of my {scene['objects'][number % 2]['name']}"}


def stream(task: str, **more: Any) -> dict[str, Any]:
    """A stream of the mixture."""
    builder = {"captions": "caption", "questions": "question", "regions": "grounding", "web": "caption"}[task]
    return {"table": f"{task}-train.jsonl", "builder": builder, **more}


METRICS = {"captions": "cider", "questions": "vqa_score", "regions": "box_accuracy"}


def settings(small: bool) -> Sequence[frame.Setting]:
    """The tasks alone, and with the large source: by the rows, and balanced."""
    tasks = {task: stream(task, valid=f"{task}-valid.jsonl", metrics=[METRICS[task]]) for task in TASKS}
    with_web = {**tasks, "web": stream("web")}
    stages = {"all": {"epochs": 1, "updates_per_epoch": 2 if small else 120}}
    options = frame.options(patch_image_size=SIZE, num_bins=SIZE, batch_size=8 if small else 32)

    def setting(name: str, streams: Mapping[str, Any], balancing: str) -> frame.Setting:
        return frame.Setting(name, {"streams": streams, "balancing": balancing, "stages": stages, "options": options})

    return (
        setting("three tasks", tasks, "equal"),
        setting("with the large source, proportional", with_web, "proportional"),
        setting("with the large source, balanced", with_web, "equal"),
    )


STUDY = frame.Study(
    file=__file__,
    question="A source 20 times as large: shares by rows, or the same for all?",
    data=data,
    settings=settings,
    scores={"captions/cider": "captions, CIDEr", "questions/vqa_score": "questions, accuracy", "regions/box_accuracy": "regions, accuracy"},
)

if __name__ == "__main__":
    sys.exit(frame.main(STUDY))
