"""The user's own plugin, ``--user-dir``: tasks and modalities from outside of the package.  Imports nothing heavy.

A plugin is loaded before the rest of this package, since importing ``unival.tasks`` composes options of the registered modalities.
"""

import argparse
import os
import pathlib
import sys

from unival.errors import UserError
from unival.quiet_import import quiet_import

OWN = pathlib.Path(__file__).resolve().parents[1]  # this package, a plugin itself


def add_user_dir(parser: argparse.ArgumentParser) -> None:
    """Declare the option."""
    parser.add_argument("--user-dir", metavar="PLUGIN", help="folder of a plugin whose tasks and modalities the checkpoint needs")


def load_user_dir(given: str | None) -> None:
    """Load the plugin in a folder, so that it registers what it has; for None and for this package itself do nothing.

    Raises:
        UserError: there is no such folder, or another module of its name.
    """
    if given is None or pathlib.Path(given).resolve() == OWN:
        return
    if not pathlib.Path(given).is_dir():
        raise UserError(f"--user-dir {given}: no such folder")
    name = pathlib.Path(os.path.abspath(given)).name
    known = sys.modules.get(name)
    if known is not None and os.path.abspath(given) not in getattr(known, "__path__", []):
        where = os.path.dirname(known.__file__ or "") or name
        raise UserError(
            f"--user-dir {given}: a module {name!r} is loaded already, from {where}; "
            + ("`unival` brings its own plugin: leave the option out" if name == "unival" else "give the folder another name")
        )
    with quiet_import():
        from fairseq.utils import import_user_module
    import_user_module(argparse.Namespace(user_dir=given))
