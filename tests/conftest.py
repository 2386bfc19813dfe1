"""Fixtures that every test may use."""

import os
import pathlib
import shutil
import signal
from collections.abc import Iterator

import pytest

os.environ.setdefault("OMP_NUM_THREADS", "2")
if os.environ.get("UNIVAL_TEST_GPU") == "1":  # on a GPU, torch adds in an order that varies unless told otherwise
    import torch

    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.use_deterministic_algorithms(True, warn_only=True)
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # as a shell starts what runs in its background; tests of Ctrl-C need it
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def shared() -> pathlib.Path:
    """The folder with golden values and third-party fixtures beside the checkout; tests that need it are skipped without it."""
    folder = pathlib.Path(os.environ.get("UNIVAL_SHARED", pathlib.Path(__file__).resolve().parents[2] / "shared"))
    if not (folder / "reference").is_dir():
        pytest.skip("needs the reference values (set UNIVAL_SHARED to the folder that holds reference/)")
    return folder


@pytest.fixture(scope="module", autouse=True)
def folders_end_with_their_module(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Remove what the fixtures of a module that passed have written: of all modules it would be gigabytes of checkpoints."""
    place, failed = tmp_path_factory.getbasetemp(), request.session.testsfailed
    before = set(place.iterdir())
    yield
    if request.session.testsfailed == failed:
        for folder in [new for new in set(place.iterdir()) - before if not new.name.startswith("session-")]:
            shutil.rmtree(folder, ignore_errors=True)
