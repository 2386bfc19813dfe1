"""Captioned images of the web: SBU, CC3M and CC12M, as img2dataset writes them, or as lists of addresses and captions.

Where there is a list alone, images are taken to be named by their line, as img2dataset numbers them: 10,000 a shard, 00000/000000000.jpg.
"""

from collections.abc import Callable, Iterator

from common.files import Entry, text_lines
from common.json_stream import stream_values

from unival.errors import UserError

from .held_out import flickr_id
from .rows import Context, Reader, Row, Table
from .shards import find_shards
from .shards import rows as rows_of_shards

SHARD = 10_000  # images of a shard of img2dataset
HEADER = ("url", "caption")  # which img2dataset wants above the lines

Pairs = Iterator[tuple[str, str]]  # addresses and captions


def reader(name: str, lists: Callable[[Context], Pairs]) -> Reader:
    """The reader of one of the three; ``lists`` reads its list."""

    def read(context: Context) -> Iterator[Row]:
        shards = find_shards(context.source.folder)
        return rows_of_shards(context, name, "image", shards) if shards else _listed(context, lists(context))

    return Reader({name: Table("cc12m" if name == "cc12m" else "captions")}, "image", read)


def _listed(context: Context, pairs: Pairs) -> Iterator[Row]:
    for number, (url, caption) in enumerate(pairs):
        shard = number // SHARD
        paths = context.below_root(f"{shard:05d}/{number:09d}.jpg", f"{number:09d}.jpg", *_own_names(url))
        yield Row(context.name, number, paths, {"caption": caption, "objects": []}, flickr=flickr_id(url))


def _own_names(url: str) -> list[str]:
    """An image may have the name that it has in its address, which is unambiguous on Flickr."""
    name = url.rsplit("/", 1)[-1]
    return [name, f"images/{name}"] if flickr_id(url) is not None else []


def tsv(*names: str) -> Callable[[Context], Pairs]:
    """What reads a file of addresses and captions, in any order, separated by tabs."""

    def pairs(context: Context) -> Pairs:
        path = context.source.need(*names)
        for number, line in text_lines(path):
            cells = line.split("\t")
            if number == 1 and sorted(cells) == sorted(HEADER) or not line.strip():
                continue
            entry = Entry(dict(zip(HEADER, cells if _is_address(cells[0]) else cells[::-1], strict=False)), f"{path}, line {number}")
            if len(cells) != len(HEADER) or not _is_address(entry["url"]):
                raise UserError(f"{entry.where}: expected an address and a caption, separated by a tab, got {line[:60]!r}")
            yield entry.text("url"), entry.text("caption")

    return pairs


def _is_address(cell: str) -> bool:
    return cell.startswith(("http://", "https://"))


def sbu(context: Context) -> Pairs:
    """The list of SBU: two files of lines, or one of two lists."""
    listed = context.source.find("sbu-captions-all.json")
    if listed is not None:
        addresses, captions = stream_values(listed, "image_urls"), stream_values(listed, "captions")
        where = str(listed)
    else:
        files = [context.source.need(f"SBU_captioned_photo_dataset_{name}.txt", "sbu-captions-all.json") for name in ("urls", "captions")]
        addresses, captions = ((line for _, line in text_lines(file)) for file in files)
        where = f"{files[0]}, {files[1].name}"
    for number, url in enumerate(addresses):
        entry = Entry({"url": url, "caption": next(captions, None)}, f"{where}, entry {number}")
        if entry["caption"] is None:
            raise UserError(f"{where}: there are more addresses than captions ({number:,})")
        yield entry.text("url"), entry.text("caption")
    if next(captions, None) is not None:
        raise UserError(f"{where}: there are more captions than addresses")


READERS = {
    "sbu": reader("sbu", sbu),
    "cc3m": reader("cc3m", tsv("Train_GCC-training.tsv", "Train-GCC-training.tsv", "cc3m.tsv")),
    "cc12m": reader("cc12m", tsv("cc12m.tsv")),
}
