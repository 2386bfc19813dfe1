"""The images on which benchmarks are evaluated, which pretraining must not see: by COCO's and Flickr's ids.

Visual Genome's images, and so GQA's, are partly COCO's; COCO's, those of SBU and of SNLI-VE, and many others, are Flickr's. The images of
NoCaps and VizWiz, and the videos and audio files of the other benchmarks, are not in the data sets of pretraining.
"""

import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from common.files import Source, read_lines
from common.json_stream import stream_list
from common.refs import find_refs, read_splits

from unival.errors import UserError

TRAINED = ("train", "restval")  # splits that are not for evaluation
_FLICKR = re.compile(r"//[^/]*flickr[^/]*/(?:[^/]+/)*(\d+)_[0-9a-f]+(?:_\w)?\.\w+$", re.IGNORECASE)


def _karpathy(source: Source) -> Iterator[int]:
    """COCO's ids of Karpathy's images for validation and test."""
    for image in stream_list(source.need("dataset_coco.json"), "images"):
        if image.choice("split", (*TRAINED, "val", "test")) not in TRAINED:
            yield image.integer("cocoid")


def _questions(prefix: str) -> Callable[[Source], Iterator[int]]:
    """What gives COCO's ids of the images of questions of val2014."""

    def images(source: Source) -> Iterator[int]:
        for question in stream_list(source.need(f"{prefix}OpenEnded_mscoco_val2014_questions.json"), "questions"):
            yield question.integer("image_id")

    return images


def _refs(variant: str) -> Callable[[Source], Iterator[int]]:
    """What gives COCO's ids of the images of references that are not for training."""

    def images(source: Source) -> Iterator[int]:
        return (image for split, image in read_splits(find_refs(source, variant)) if split not in TRAINED)

    return images


def _entailment(source: Source) -> Iterator[int]:
    """Flickr's ids of the images of SNLI-VE for validation and test."""
    for name in ("snli_ve_dev.jsonl", "snli_ve_test.jsonl"):
        for entry in read_lines(source.need(name)):
            number = entry.name("Flickr30K_ID").removesuffix(".jpg")
            yield int(number) if number.isdecimal() else entry.wrong("Flickr30K_ID", "a number")


OF_COCO: dict[str, Callable[[Source], Iterator[int]]] = {
    "coco": _karpathy,
    "vqa": _questions("v2_"),
    "okvqa": _questions(""),
    "refcoco": _refs("refcoco"),
    "refcoco+": _refs("refcoco+"),
    "refcocog": _refs("refcocog"),
}
OF_FLICKR: dict[str, Callable[[Source], Iterator[int]]] = {"snli_ve": _entailment}
BENCHMARKS = (*OF_COCO, *OF_FLICKR)


class HeldOut:
    """Images that are held out, by their ids.

    Args:
        folders: the files of benchmarks, by the benchmarks' names.
        coco: COCO's annotations, if they are there: they have Flickr's ids of its images.

    Raises:
        UserError: a file is missing or damaged; a benchmark gives no image.
    """

    def __init__(self, folders: Mapping[str, Source], coco: Source | None = None):
        self.names = tuple(name for name in BENCHMARKS if name in folders)
        self.coco: dict[int, int] = {}  # id -> the benchmarks that have the image, a bit of each
        self.flickr: dict[int, int] = {}
        for name in self.names:
            reader, those = (OF_COCO[name], self.coco) if name in OF_COCO else (OF_FLICKR[name], self.flickr)
            bit, count = 1 << BENCHMARKS.index(name), 0
            for count, image in enumerate(reader(folders[name]), start=1):  # noqa: B007  counts
                those[image] = those.get(image, 0) | bit
            if not count:
                raise UserError(f"--held-out {name}={folders[name].folder}: its files name no image for validation or test")
        if coco is not None and self.coco:
            self._add_addresses(coco)

    def __contains__(self, benchmark: str) -> bool:
        return benchmark in self.names

    def of(self, coco: int | None, flickr: int | None) -> list[str]:
        """The benchmarks that have an image."""
        bits = (self.coco.get(coco, 0) if coco is not None else 0) | (self.flickr.get(flickr, 0) if flickr is not None else 0)
        return [name for i, name in enumerate(BENCHMARKS) if bits >> i & 1] if bits else []

    def _add_addresses(self, source: Source) -> None:
        """COCO's files of captions and of instances say where on Flickr its images are from."""
        for split in ("train", "val"):
            path = source.find(f"captions_{split}2014.json", f"instances_{split}2014.json")
            for image in stream_list(path, "images") if path else ():
                bits = self.coco.get(image.integer("id"), 0)
                number = flickr_id(image.text("flickr_url")) if bits and "flickr_url" in image else None
                if number is not None:
                    self.flickr[number] = self.flickr.get(number, 0) | bits


def flickr_id(url: str) -> int | None:
    """Flickr's id of an image, by its address; None: it is none of Flickr's."""
    found = _FLICKR.search(url.strip())
    return int(found[1]) if found else None


def parse_folders(option: str, given: list[str], known: Mapping[str, Any] | tuple[str, ...]) -> dict[str, Source]:
    """The folders of ``--option NAME=FOLDER``, by their names.

    Raises:
        UserError: it is not of this form; the name is unknown or given twice; there is no such folder.
    """
    found: dict[str, Source] = {}
    for text in given:
        name, equals, folder = text.partition("=")
        if not equals or not folder:
            raise UserError(f"{option} {text}: expected NAME=FOLDER, where NAME is one of {', '.join(known)}")
        if name not in known:
            raise UserError(f"{option} {text}: there is no {name!r}; there are {', '.join(known)}")
        if name in found:
            raise UserError(f"{option} {text}: {name} is given twice")
        found[name] = Source(folder, option=f"{option} {name}=")
    return found
