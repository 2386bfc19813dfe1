#!/usr/bin/env python
"""`python checkpoints/convert.py IN OUT …` is `unival convert IN OUT …`."""

import sys

from unival.cli import main

if __name__ == "__main__":
    sys.exit(main(["convert", *sys.argv[1:]]))
