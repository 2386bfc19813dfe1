#!/usr/bin/env python
"""`python checkpoints/inspect_checkpoint.py FILE` is `unival inspect FILE`.

The name is not inspect.py: scripts in this folder would then find this file in place of Python's own module of that name.
"""

import sys

from unival.cli import main

if __name__ == "__main__":
    sys.exit(main(["inspect", *sys.argv[1:]]))
