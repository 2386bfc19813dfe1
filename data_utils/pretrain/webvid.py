"""WebVid and the questions that were made from its captions, WebVidVQA.

WebVid: results_2M_train.csv or results_10M_train.csv (videoid, contentUrl, duration, page_dir, name), or folders and tar files as
video2dataset writes them. WebVidVQA: webvidvqa.json, which is the value of webvidvqa.pkl as JSON: a pickle can run anything, and cannot
be read a piece at a time. With val_webvidvqa.csv, the videos that it names are left out.
"""

import array
from collections.abc import Iterator

import numpy as np
from common.answers import normalise
from common.files import Entry, read_csv
from common.json_stream import stream_object

from unival.errors import UserError

from .rows import Context, Reader, Row, Table
from .shards import find_shards
from .shards import rows as rows_of_shards

FILES = [f"{name}.csv" for size in ("2M", "10M") for name in (f"results_{size}_train", f"train_{size}_results")]
CONVERT = "import json, pickle; json.dump(pickle.load(open('webvidvqa.pkl', 'rb')), open('webvidvqa.json', 'w'))"


def captions(context: Context) -> Iterator[Row]:
    """The rows of WebVid: a video and its caption."""
    shards = find_shards(context.source.folder)
    return rows_of_shards(context, "webvid", "video", shards) if shards else _listed(context)


def _listed(context: Context) -> Iterator[Row]:
    for entry in read_csv(context.source.need(*FILES)):
        number = entry.integer("videoid")
        values = {"caption": entry.text("name"), "objects": []}
        yield Row("webvid", number, _paths(context, number, entry.text("page_dir")), values)


def _paths(context: Context, number: int, page: str) -> list[str]:
    name = f"{number}.mp4"
    paths = [f"videos/{page}/{name}", f"{page}/{name}"] if page else []
    return [path for each in (*paths, f"videos/{name}", name) for path in dict.fromkeys((each, f"webvid/{each}", f"{context.name}/{each}"))]


class Pages:
    """The folders of videos, by the videos' ids: 12 bytes for each of millions."""

    def __init__(self, context: Context) -> None:
        numbers, pages, known = array.array("q"), array.array("i"), dict[str, int]()
        path = context.source.find(*FILES) or (context.sources["webvid"].find(*FILES) if "webvid" in context.sources else None)
        for entry in read_csv(path) if path else ():
            numbers.append(entry.integer("videoid"))
            pages.append(known.setdefault(entry.text("page_dir"), len(known)))
        order = np.argsort(np.frombuffer(numbers, np.int64), kind="stable") if numbers else np.zeros(0, np.int64)
        self._numbers, self._pages = np.asarray(numbers)[order], np.asarray(pages)[order]
        self._names = list(known)

    def of(self, number: int) -> str:
        """The folder of a video; "" where nobody says."""
        at = int(np.searchsorted(self._numbers, number))
        return self._names[self._pages[at]] if at < len(self._numbers) and self._numbers[at] == number else ""


def questions(context: Context) -> Iterator[Row]:
    """The rows of WebVidVQA: a video, a question and its answer."""
    path = context.source.find("webvidvqa.json")
    if path is None and context.source.find("webvidvqa.pkl"):
        raise UserError(f'{context.source.where}: webvidvqa.pkl is a pickle, which is refused; if you trust it: python -c "{CONVERT}"')
    path = path or context.source.need("webvidvqa.json")
    held_out = context.source.find("val_webvidvqa.csv")
    valid = {entry.integer("video_id") for entry in read_csv(held_out)} if held_out else set()
    pages, skipped = Pages(context), 0
    for name, value in stream_object(path):
        entry = Entry({"video_id": name, **Entry(value, f"{path}, {name}").values}, f"{path}, {name}")
        number = entry.integer("video_id")
        if number in valid:
            skipped += 1
            continue
        yield from _of_video(context, entry, _paths(context, number, pages.of(number)))
    if held_out:
        context.note(f"webvidqa: {skipped:,} videos of {held_out.name} are left out")


def _of_video(context: Context, entry: Entry, paths: list[str]) -> Iterator[Row]:
    asked, answers = entry.list("question"), entry.list("answer")
    if len(asked) != len(answers):
        entry.wrong("answer", f"as many answers as questions ({len(asked)})")
    for i, (question, answer) in enumerate(zip(asked, answers, strict=True)):
        pair = Entry({"question": question, "answer": answer}, f"{entry.where}, {i}")
        said = normalise(pair.text("answer"))
        values = {"question": pair.text("question"), "answer": {said: 1.0} if said else {}, "objects": []}
        yield Row("webvidqa", f"{entry.integer('video_id')}-{i}", paths, values)


READERS = {
    "webvid": Reader({"webvid": Table("video_captions")}, "video", captions, is_checked=False),
    "webvidqa": Reader({"webvidqa": Table("video_questions")}, "video", questions, is_checked=False),
}
