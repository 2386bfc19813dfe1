#!/usr/bin/env python
"""`python checkpoints/merge.py MODELS … --out OUT` is `unival merge MODELS … --out OUT`."""

import sys

from unival.cli import main

if __name__ == "__main__":
    sys.exit(main(["merge", *sys.argv[1:]]))
