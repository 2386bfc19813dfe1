"""Open-ended questions about videos in the files of MSRVTT-QA and MSVD-QA."""

import argparse
from collections.abc import Callable, Iterator

from common.answers import candidates
from common.files import Entry, Source, read_list

from downstream.frame import Report, Row

FILES = {"train": "train_qa.json", "valid": "val_qa.json", "test": "test_qa.json"}
ANSWERABLE = "test_answerable"
PUBLISHED = "the published tables leave out rows whose answer is no candidate"


def most(default: int) -> Callable[[argparse.ArgumentParser], None]:
    """What declares the number of candidate answers."""

    def arguments(parser: argparse.ArgumentParser) -> None:
        text = f"candidate answers (default: {default:,}, as in the published recipe)"
        parser.add_argument("--most", type=int, default=default, metavar="N", help=text)

    return arguments


def rows(source: Source, most: int, media: Callable[[Entry], list[str]], report: Report) -> Iterator[Row]:
    """The rows: a question about a video.

    A row of train whose answer is no candidate is left out; test_answerable is test without such rows.
    """
    paths = {table: source.find(name) for table, name in FILES.items()} | {"train": source.need(FILES["train"])}  # for the candidates
    entries = {table: list(read_list(path)) for table, path in paths.items() if path}
    report.answers = candidates((entry.text("answer") for table in entries if table != "test" for entry in entries[table]), most=most)
    known = set(report.answers)
    for table, those in entries.items():
        for entry in those:
            answer, values = entry.name("answer"), {"question": entry.name("question"), "answer": entry.name("answer")}
            if table == "train" and answer not in known:
                report.leave_out(table, "whose answer is no candidate")
                continue
            yield Row(table, entry.integer("id"), media(entry), values)
            if table == "test" and answer in known:
                yield Row(ANSWERABLE, entry.integer("id"), media(entry), values)
