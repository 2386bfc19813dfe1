"""Imports without Python's garbage collector."""

import gc
import subprocess
import sys

import pytest

from unival.quiet_import import quiet_import, uncollected

COMMAND = """
import gc, sys
from unival.quiet_import import keep_imports, uncollected
if "keep" in sys.argv:
    keep_imports()
with uncollected():
    pass
before = gc.get_freeze_count()
with uncollected():
    import colorsys
print(before, gc.get_freeze_count() > before, gc.isenabled())
"""


@pytest.mark.parametrize("importing", [uncollected, quiet_import])
@pytest.mark.parametrize("enabled", [True, False])
def test_the_collector_pauses_and_is_as_before(importing, enabled):
    before = gc.isenabled()
    (gc.enable if enabled else gc.disable)()
    try:
        with pytest.raises(ImportError), importing():
            assert not gc.isenabled()
            raise ImportError
        assert gc.isenabled() == enabled
    finally:
        (gc.enable if before else gc.disable)()


@pytest.mark.parametrize(("argument", "frozen"), [("keep", True), ("", False)])
def test_only_the_process_of_a_command_keeps_imports_from_the_collector(argument, frozen):
    command = [sys.executable, "-c", COMMAND, argument]
    output = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert output.split() == ["0", str(frozen), "True"]


def test_a_process_that_calls_the_command_line_keeps_its_own_collector():
    code = "import gc; from unival.cli import main; main(['score', '--help'])"
    code = f"import atexit, gc, sys; atexit.register(lambda: sys.stderr.write(str(gc.get_freeze_count()))); {code}"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stderr == "0"
