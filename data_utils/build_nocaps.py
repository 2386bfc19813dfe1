"""NoCaps: valid with ten captions per image and its domain, a table for each domain, and test without captions.

Source: nocaps_val_4500_captions.json, nocaps_test_image_info.json. Media: the folders val and test, or images in one folder.
"""

import argparse
import sys
from collections.abc import Iterator

from common.files import Source, read_object
from downstream.frame import Dataset, Report, Row, Size, main

DOMAINS = {"in-domain": "valid_in_domain", "near-domain": "valid_near_domain", "out-domain": "valid_out_domain"}


def rows(source: Source, args: argparse.Namespace, report: Report) -> Iterator[Row]:
    """The rows: an image, its domain and its captions."""
    valid = read_object(source.need("nocaps_val_4500_captions.json"))
    captions: dict[int, list[str]] = {}
    for entry in valid.entries("annotations"):
        captions.setdefault(entry.integer("image_id"), []).append(entry.text("caption"))
    for image in valid.entries("images"):
        number, name, domain = image.integer("id"), image.name("file_name"), image.choice("domain", list(DOMAINS))
        values = {"caption": list(filter(None, captions.get(number, []))), "domain": domain}
        for table in ("valid", DOMAINS[domain]):
            yield Row(table, number, [f"val/{name}", name], values)
    test = source.find("nocaps_test_image_info.json")
    for image in read_object(test).entries("images") if test else ():
        name = image.name("file_name")
        yield Row("test", image.integer("id"), [f"test/{name}", name], {})


SIZES = {"valid": Size(4_500, "4.5K"), **dict.fromkeys(DOMAINS.values(), Size()), "test": Size(10_600)}
DATASET = Dataset("nocaps", __doc__, "image", rows, SIZES, references="caption")

if __name__ == "__main__":
    sys.exit(main(DATASET))
