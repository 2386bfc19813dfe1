"""Options as older checkpoints keep them: an ``argparse.Namespace``, which stands in files by that name and is read and written as it is.

Nothing in ``checkpoints`` knows of a command line; this is the only module that names the class.
"""

from argparse import Namespace
from typing import Any

__all__ = ["Namespace", "unwrapped"]


def unwrapped(value: Any) -> Any:
    """A namespace as the dict of its entries; any other value as it is."""
    return vars(value) if isinstance(value, Namespace) else value
