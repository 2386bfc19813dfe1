"""Importing fairseq leaves traces in a process and takes long: here is how to import it without traces, and faster.

``import fairseq`` sets the root logger to DEBUG with a handler of its own, logs that tensorboardX is missing, shows a deprecation of
``torch.jit.script``, and one of its imports fixes the start method of multiprocessing.  All that is the application's to decide.
"""

import contextlib
import gc
import logging
import multiprocessing
import sys
import warnings
from collections.abc import Iterator

_keeps_imports = False  # see keep_imports


def keep_imports() -> None:
    """Say that this process belongs to a command, which needs what it imports until the process ends."""
    global _keeps_imports
    _keeps_imports = True


@contextlib.contextmanager
def uncollected() -> Iterator[None]:
    """Python's garbage collector does not run inside.

    Imports create hundreds of thousands of objects and next to no garbage, for which it would go through all of them again and again: a
    quarter of the processor time of importing fairseq.  In the process of a command it never goes through them later either, which saves
    another quarter when the process ends.
    """
    was_enabled, modules = gc.isenabled(), len(sys.modules)
    gc.disable()
    try:
        yield
    finally:
        if _keeps_imports and len(sys.modules) > modules:
            gc.freeze()
        if was_enabled:
            gc.enable()


@contextlib.contextmanager
def quiet_import() -> Iterator[None]:
    """As :func:`uncollected`; logging, warnings and multiprocessing's start method are afterwards what they were before."""
    placeholder = logging.NullHandler()  # logging.basicConfig does nothing where the root logger has a handler
    disabled = logging.root.manager.disable
    start_method: str | None = multiprocessing.get_start_method(allow_none=True)
    logging.root.addHandler(placeholder)
    logging.disable(max(disabled, logging.INFO))
    try:
        with uncollected(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(disabled)
        logging.root.removeHandler(placeholder)
        if start_method is None:
            multiprocessing.set_start_method(None, force=True)
