"""Importing fairseq leaves traces in a process: here is how to import it without them.

``import fairseq`` sets the root logger to DEBUG with a handler of its own, logs that tensorboardX is missing, shows a deprecation of
``torch.jit.script``, and one of its imports fixes the start method of multiprocessing.  All that is the application's to decide.
"""

import contextlib
import logging
import multiprocessing
import warnings
from collections.abc import Iterator


@contextlib.contextmanager
def quiet_import() -> Iterator[None]:
    """Logging, warnings and multiprocessing's start method are afterwards what they were before."""
    placeholder = logging.NullHandler()  # logging.basicConfig does nothing where the root logger has a handler
    disabled = logging.root.manager.disable
    start_method: str | None = multiprocessing.get_start_method(allow_none=True)
    logging.root.addHandler(placeholder)
    logging.disable(max(disabled, logging.INFO))
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(disabled)
        logging.root.removeHandler(placeholder)
        if start_method is None:
            multiprocessing.set_start_method(None, force=True)
