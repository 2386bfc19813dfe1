"""`python -m unival`: the command line."""

import sys

from unival.cli import main

sys.exit(main())
