"""Runs that are stopped while they save: kills, and disks that are full."""

import pathlib
import resource
import subprocess
import time

import pytest

from tests import runs, tiny
from tests.test_training import assert_equal, state

KILLS = pathlib.Path(__file__).resolve().parents[1] / "benchmarks" / "kills.py"
LAST = "checkpoint_last.pt"
FLAGS = ("--batch-size", "4", "--save-interval-updates", "1", "--keep-interval-updates", "1", "--disable-validation")


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    tiny.write_table(folder, rows=12, name="train.jsonl")
    tiny.vocabulary(folder / "vocab", num_codes=0, num_bins=0)
    return folder


def test_a_run_killed_while_it_writes_or_copies_ends_with_the_same_bits(tmp_path):
    """Real kills: half way through the first file ever, through a copy to the best and through one to the last checkpoint."""
    command = [runs.python(), str(KILLS), "--kills", "0", "--updates", "6", "--at", "written:1", "best:2", "last:2"]
    result = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=900)
    assert result.returncode == 0, result.stdout + result.stderr[-3000:]
    rows = [line.strip("| ").split(" | ") for line in result.stdout.splitlines() if line.startswith("| ")][1:]
    assert [row[1] for row in rows] == ["checkpoint_1_1.pt.tmp unfinished", "checkpoint_best.pt cut short", "checkpoint_last.pt cut short"]
    assert [updates in row[2] for updates, row in zip(["starts over", "(2 updates)", "(4 updates)"], rows, strict=True)] == [True] * 3
    assert result.stdout.count("the same bits as uninterrupted") == 2


def test_a_full_disk_is_one_line_and_the_run_resumes(data, tmp_path, capsys, monkeypatch):
    """No room for a file that is being written (a limit on its size), then none for a copy (a device that is always full)."""
    monkeypatch.setattr(time, "sleep", lambda seconds: None)  # fairseq waits for room
    whole, out = tmp_path / "whole", tmp_path / "out"
    assert runs.train(data, whole, *FLAGS, "--max-update", "3") == 0
    size, before = (whole / LAST).stat().st_size, resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size // 2, before[1]))
    try:
        assert runs.train(data, out, *FLAGS, "--max-update", "3") == 1
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("unival: error: ") and "File too large" in line and f"(this run writes to {out}); make room" in line
    assert [path.name for path in out.glob("checkpoint*")] == ["checkpoint_1_1.pt.tmp"]
    (out / LAST).symlink_to("/dev/full")
    (out / "train.log").unlink()
    (out / "train.log").symlink_to("/dev/full")  # no room for a line of the log either
    assert runs.train(data, out, *FLAGS, "--max-update", "3") == 1
    printed = capsys.readouterr()
    (line,) = printed.err.splitlines()
    assert "No space left on device" in line and f"(this run writes to {out}); make room" in line
    assert "stopped before its first checkpoint was complete: it starts over" in printed.out and not list(out.glob("*.tmp"))
    (out / LAST).unlink()
    (out / "train.log").unlink()
    (out / LAST).write_bytes((out / "checkpoint_1_1.pt").read_bytes()[: size // 2])  # what such a copy leaves
    assert runs.train(data, out, *FLAGS, "--max-update", "3") == 0
    said = f"{LAST} is cut short, as after a stop while saving: resuming from checkpoint_1_1.pt (1 update)"
    assert said in capsys.readouterr().out
    a, b = state(whole / LAST), state(out / LAST)
    for key in ("model", "last_optimizer_state"):
        assert_equal(a[key], b[key], key)
