"""Tables of a task from the rows of sampler data: questions, regions, statements to judge, captions; and guesses without looking."""

import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import permutations
from typing import Any

import numpy as np

from .names import with_article
from .relations import OPPOSITE, Thing, relation

OFTEN = 20  # a question that so many scenes answer, all in the same way, asks nothing of the image
YES, MAYBE, NO = "yes", "maybe", "no"
UNTOLD = ("was a present", "is for sale", "belongs to a teacher", "is older than it looks")  # nothing that an image can show

Row = dict[str, Any]
Pool = Sequence[str]


@dataclass(frozen=True)
class Task:
    """A task.

    Attributes:
        media: columns with media, of which the data must have one.
        rows: makes the task's own columns of a row of the data; with the names that the split has, and a generator.
        asked: the column with the text that goes with the media; "" if there is none.
        reference: the column with what is right.
        answers: the candidate answers; None: all answers in train; (): there are none.
    """

    media: tuple[str, ...]
    rows: Callable[[Row, Pool, np.random.Generator], Iterator[Row]]
    asked: str
    reference: str
    answers: tuple[str, ...] | None = ()


def questions(record: Row, pool: Pool, rng: np.random.Generator) -> Iterator[Row]:
    """The questions that the data has about the scene."""
    for asked in record["questions"]:
        yield {"question": asked["question"], "answer": asked["answer"], "kind": asked["kind"]}


def regions(record: Row, pool: Pool, rng: np.random.Generator) -> Iterator[Row]:
    """The name and the box of every thing."""
    for thing in record["objects"]:
        yield {"text": thing["name"], "box": thing["box"]}


def statements(record: Row, pool: Pool, rng: np.random.Generator) -> Iterator[Row]:
    """Statements of three forms: about what there is, how two things stand, and what an image cannot show of a thing in it.

    Each form has two labels, equally likely: the form does not tell which of them is right.
    """
    things = [Thing(thing["name"], tuple(thing["box"])) for thing in record["objects"]]
    present = [thing.name for thing in things]
    absent = [name for name in pool if name not in present]
    related = [(one.name, found, other.name) for one, other in permutations(things, 2) if (found := relation(one.box, other.box))]
    if absent:
        is_there = bool(rng.integers(2))
        yield {"hypothesis": f"there is {with_article(_one(present if is_there else absent, rng))}", "label": YES if is_there else NO}
        is_there = bool(rng.integers(2))
        said = f"the {_one(present if is_there else absent, rng)} {_one(UNTOLD, rng)}"
        yield {"hypothesis": said, "label": MAYBE if is_there else NO}
    if related:
        one, found, other = related[rng.integers(len(related))]
        is_true = bool(rng.integers(2))
        yield {"hypothesis": f"the {one} is {found if is_true else OPPOSITE[found]} the {other}", "label": YES if is_true else NO}


def captions(record: Row, pool: Pool, rng: np.random.Generator) -> Iterator[Row]:
    """The captions that the data has."""
    yield {"caption": record["caption"]}


def _one(values: Sequence[str], rng: np.random.Generator) -> str:
    return values[int(rng.integers(len(values)))]


TASKS = {
    "vqa": Task(("image",), questions, "question", "answer", None),
    "grounding": Task(("image",), regions, "text", "box"),
    "entailment": Task(("image",), statements, "hypothesis", "label", (YES, MAYBE, NO)),
    "video_qa": Task(("video",), questions, "question", "answer", None),
    "audio_caption": Task(("audio",), captions, "", "caption"),
}


def table(task: Task, medium: str, records: Iterable[Row], pool: Pool, seed: Sequence[int]) -> list[Row]:
    """The rows of a task for the rows of a split; the same ``seed`` makes the same texts, whatever the media are."""
    made = []
    for number, record in enumerate(records):
        rng = np.random.default_rng([*seed, number])
        for place, row in enumerate(task.rows(record, pool, rng)):
            made.append({"id": f"{number}-{place}", medium: record[medium], **row})
    return made


def empty_questions(task: Task, train: Sequence[Row]) -> set[str]:
    """Texts that are asked often in train and always have the same answer, such as how many things there are where there are always two."""
    if not task.asked or task.answers is not None:
        return set()
    found = defaultdict(list)
    for row in train:
        found[row[task.asked]].append(row[task.reference])
    return {text for text, answers in found.items() if len(answers) >= OFTEN and len(set(answers)) == 1}


def asked_otherwise(task: Task, rows: Sequence[Row]) -> list[Row]:
    """The rows with the text of another row about the same scene that is answered differently; what was right stays in the table.

    A model that reads what it is asked must be wrong here. Rows of scenes about which nothing else is asked are left out.
    """
    scenes = defaultdict(list)
    for row in rows:
        scenes[row["id"].partition("-")[0]].append(row)
    changed = []
    for scene in scenes.values():
        for place, row in enumerate(scene):
            others = [other for other in scene[place + 1 :] + scene[:place] if other[task.reference] != row[task.reference]]
            if others:
                changed.append({**row, task.asked: others[0][task.asked]})
    return changed


def guesses(task: Task, train: Sequence[Row], rows: Sequence[Row], names: Pool) -> list[str]:
    """What somebody says who knows train and does not look.

    That is the mean box, or the most frequent answer to the same question about whatever things, such as "is there a …?".
    """
    if task.reference == "box":
        mean = np.mean([row["box"] for row in train], axis=0)
        return [",".join(f"{x:.2f}" for x in mean)] * len(rows)
    name = re.compile(rf"\b(an? )?({'|'.join(map(re.escape, sorted(names, key=len, reverse=True)))})\b")

    def form(row: Row) -> str:
        return name.sub("…", row[task.asked]) if task.asked else ""

    counts: dict[str, Counter[str]] = defaultdict(Counter)
    for row in train:
        right = row[task.reference]
        counts[form(row)][right if isinstance(right, str) else right[0]] += 1
    every = sum(counts.values(), Counter())
    return [(counts.get(form(row)) or every).most_common(1)[0][0] for row in rows]
