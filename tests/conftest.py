"""Fixtures that every test may use."""

import os
import pathlib
import signal

import pytest

os.environ.setdefault("OMP_NUM_THREADS", "2")
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # as a shell starts what runs in its background; tests of Ctrl-C need it
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def shared() -> pathlib.Path:
    """The folder with golden values and third-party fixtures beside the checkout; tests that need it are skipped without it."""
    folder = pathlib.Path(os.environ.get("UNIVAL_SHARED", pathlib.Path(__file__).resolve().parents[2] / "shared"))
    if not (folder / "reference").is_dir():
        pytest.skip("needs the reference values (set UNIVAL_SHARED to the folder that holds reference/)")
    return folder
