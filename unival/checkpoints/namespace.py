"""Options in older checkpoints: an ``argparse.Namespace``, which files refer to by this name.

Nothing in ``checkpoints`` parses a command line; this is the only module that imports the class.
"""

from argparse import Namespace
from typing import Any

__all__ = ["Namespace", "unwrapped"]


def unwrapped(value: Any) -> Any:
    """Convert a namespace to the dict of its entries; other values are returned as they are."""
    return vars(value) if isinstance(value, Namespace) else value
